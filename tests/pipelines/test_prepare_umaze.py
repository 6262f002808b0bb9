"""The command makes the maze's datasets on the spot, without Ray, and as Minari datasets too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from iql_ray.data.demo import demo_dataset_path
from iql_ray.data.prepared import read_manifest
from iql_ray.envs.maze_map import maze_map, states_of
from iql_ray.envs.umaze_data import maze_data
from iql_ray.experience import Spaces
from pipelines.prepare import PrepareConfig, main, prepare
from tests.data.examples import prepare_here, read_rows


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.prepare.ray_session", lambda: pytest.fail("Ray was asked for"))


@pytest.mark.parametrize(
    ("name", "num_rows"), [("paper", 19_492), ("stitching", 16_290), ("narrow", 2_917), ("lucky", 9_787)]
)
def test_every_dataset_is_prepared_by_name(
    name: str, num_rows: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--source", f"umaze:{name}", "--out", str(tmp_path / "a")]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["num_rows"], result["num_dropped_rows"]) == (num_rows, 0)
    assert read_manifest(tmp_path / "a").num_episodes == maze_data(name).num_episodes


def test_the_manifest_says_where_the_rows_come_from(tmp_path: Path) -> None:
    prepare(PrepareConfig(source="umaze:stitching:3", out=tmp_path / "a", seed=7))
    manifest = read_manifest(tmp_path / "a")
    assert manifest.environment_id == "iql_ray/UMazeStitching-v0"
    assert manifest.spaces == Spaces(observation_dim=46, action_dim=1, num_actions=4)
    assert manifest.licence == "Apache-2.0, made by iql_ray's own simulator"
    recorded = manifest.provenance.recorded
    assert (recorded["map"], recorded["episodes_seed"], manifest.provenance.seed) == ("stitching", "3", 7)
    assert "10 good first halves" in recorded["description"]
    assert (manifest.provenance.source, manifest.provenance.files) == ("umaze:stitching:3", ())


def test_the_prepared_rows_are_the_drawn_ones(tmp_path: Path) -> None:
    prepare(PrepareConfig(source="umaze:lucky:coordinates", out=tmp_path / "a"))
    rows, data = read_rows(tmp_path / "a"), maze_data("lucky")
    assert read_manifest(tmp_path / "a").environment_id == "iql_ray/UMazeLuckyCoordinates-v0"
    for name, states in (("observations", data.states), ("next_observations", data.next_states)):
        observed = np.array([row[name] for row in rows])
        assert states_of(maze_map("lucky"), observed).tolist() == states.tolist()
    assert [row["actions"][0] for row in rows] == data.actions.tolist()


@pytest.mark.parametrize("source", ["umaze:lucky", "umaze:paper:coordinates"])
def test_prepared_from_minari_the_dataset_is_the_same(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    prepare(PrepareConfig(source=source, out=tmp_path / "a", minari="iql-ray/maze-v0"))
    direct, from_minari = read_manifest(tmp_path / "a"), prepare_here("minari:iql-ray/maze-v0", tmp_path / "b")
    assert from_minari.digest == direct.digest
    assert from_minari.environment_id == direct.environment_id
    assert from_minari.licence == direct.licence
    assert from_minari.episode_returns == direct.episode_returns


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "umaze:papers"], "maze dataset 'papers' is unknown"),
        (["--source", "umaze:paper", "--columns", "rewards=r"], "names its own columns, leave --columns out"),
        (["--source", "umaze:paper", "--env", "CartPole-v1", "--minari", "a/b-v0"], "the data has 46 observations"),
        (
            ["--source", f"npz:{demo_dataset_path()}", "--minari", "a/b-v0"],
            "--minari a/b-v0 goes with umaze:NAME and experience:RUN_FOLDER",
        ),
        (["--source", "umaze:lucky", "--minari", "no id!"], "no id!"),
    ],
)
def test_what_cannot_be_is_one_message_and_exit_2(
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    assert main([*options, "--out", str(tmp_path / "a")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.rglob("*.json"))
