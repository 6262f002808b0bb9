"""The command `maze`: what it trains, and on two small grids through Ray its picture and its last line."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import pytest

from pipelines import maze
from pipelines.maze import GRIDS, Grid, MazeConfig

TINY = {
    "narrow": Grid(critics=(("implicit", 0.5), ("td", 0.9)), inverse_temperatures=(0.0, 10.0)),
    "lucky": Grid(critics=(("implicit", 0.95), ("single-q", 0.95))),
}


@pytest.mark.parametrize(
    ("name", "num_critics", "num_policies"), [("paper", 80, 160), ("stitching", 80, 160), ("lucky", 20, 20)]
)
def test_a_grid_is_one_run_of_the_umaze_recipe_with_all_its_members(name: str, num_critics: int, num_policies: int):
    flags = maze._grid_flags(GRIDS[name], 4000)
    config = maze._train_config(MazeConfig(), name, name, flags)
    assert (config.population.num_critics, config.population.num_policies) == (num_critics, num_policies)
    assert (config.agent.discount, config.num_updates, config.checkpoint_interval_updates) == (0.9, 4000, 4000)
    assert config.population.seeds == tuple(range(10))


def test_the_best_tenth_is_cloned_by_networks_of_the_same_size():
    cloning = maze._train_config(MazeConfig(), "paper", "10%bc", maze._cloning_flags(1000))
    grid = maze._train_config(MazeConfig(), "paper", "paper", maze._grid_flags(GRIDS["paper"], 1000))
    assert (cloning.top_episode_share, cloning.population.inverse_temperatures) == (0.1, (0.0,))
    assert cloning.agent.hidden_sizes == grid.agent.hidden_sizes
    assert cloning.population.num_policies == 10


@pytest.mark.parametrize("option", ["num-updates", "num-cloning-updates", "num-seeds"])
def test_a_comparison_of_nothing_is_refused(option: str, capsys: pytest.CaptureFixture[str]):
    assert maze.main([f"--{option}", "0"]) == 2
    assert "is 0, expected at least 1" in capsys.readouterr().err


def test_the_last_line_has_every_measure_and_the_picture_is_there(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(maze, "GRIDS", TINY)
    tiny = ["--num-updates", "30", "--num-seeds", "2"]
    assert maze.main(["--out", str(tmp_path / "maze"), *tiny]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    assert result["returns"]["narrow"].keys() == {"bc", "iql-0.5", "td-weighted", "td"}
    assert result["returns"]["lucky"].keys() == {"iql-0.95", "single-q-0.95"}
    low, high = result["returns"]["narrow"]["td"]["interval"]
    assert 0 <= low <= result["returns"]["narrow"]["td"]["return"] <= high < 0.6
    assert result["v_star_start"] == pytest.approx({"narrow": 0.572, "lucky": 7.372}, abs=5e-4)
    assert result["td_overestimate"]["narrow"]["outside_data"]["num_actions"] == 135
    assert result["value_error"]["narrow"].keys() == {"0.5"}
    assert result["lucky_choice"]["lucky"].keys() == {"iql-0.95", "single-q-0.95"}
    assert result["run_ids"].keys() == {"narrow", "lucky"}
    assert all((tmp_path / "maze" / "runs" / run_id).is_dir() for run_id in result["run_ids"].values())
    assert "td-weighted" in captured.err
    assert matplotlib.image.imread(result["picture"]).shape[1] == 1598
