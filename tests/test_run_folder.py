"""Where things of a run lie, and its evaluations as lines that survive a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from iql_ray import run_folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "r1"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def evaluated(run: Path, **returns: float) -> None:
    for update, return_mean in returns.items():
        run_folder.append_evaluation(run, {"num_updates": int(update[1:]), "return_mean": return_mean})


def test_a_run_is_found_by_id_and_by_path(run: Path):
    assert run_folder.find_run(run.parent, "r1") == run
    assert run_folder.find_run("elsewhere", str(run)) == run


def test_a_path_within_the_working_directory_becomes_absolute(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(run.parent.parent)
    assert run_folder.find_run("runs", "r1") == run


def test_an_unknown_run_and_a_folder_that_is_none_are_refused(run: Path):
    (run.parent / "empty").mkdir()
    for name in ("r2", "empty"):
        with pytest.raises(ValueError, match=f"run '{name}' not found: .* holds a config.json"):
            run_folder.find_run(run.parent, name)


def test_checkpoints_are_counted_and_half_written_ones_are_not(run: Path):
    assert run_folder.checkpoint_updates(run) == []
    for update in (10, 9, 100):
        run_folder.checkpoint_folder(run, update).mkdir(parents=True)
    (run / "checkpoints" / "000000200.partial").mkdir()
    assert run_folder.checkpoint_updates(run) == [9, 10, 100]


def test_evaluations_come_back_by_update(run: Path):
    assert run_folder.read_evaluations(run) == {}
    evaluated(run, u10=1.0, u20=2.0)
    assert run_folder.read_evaluations(run)[20] == {"num_updates": 20, "return_mean": 2.0}


def test_a_line_cut_by_a_crash_costs_only_itself(run: Path):
    evaluated(run, u10=1.0)
    with (run / "evaluations.jsonl").open("a") as file:
        file.write('{"num_updates": 20, "retu')
    evaluated(run, u30=3.0)
    assert list(run_folder.read_evaluations(run)) == [10, 30]


def test_the_best_is_the_highest_return_and_the_earlier_of_equals(run: Path):
    assert run_folder.best_update(run) is None
    evaluated(run, u30=5.0, u10=-1.0, u20=5.0)
    assert run_folder.best_update(run) == 20
