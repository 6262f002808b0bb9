"""One process at a time makes a dataset, and nothing but unfinished work is left beside it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from iql_ray.data.actions import resolve_actions
from iql_ray.data.intake import WritingPlan
from iql_ray.data.sources import open_source
from iql_ray.data.sources.files import RemoteFile
from iql_ray.data.work_folder import DATASET_FOLDER, Say, fingerprint, work_folder
from tests.data.examples import example, write_npz


@pytest.fixture
def plan(tmp_path: Path) -> WritingPlan:
    source = open_source(write_npz(tmp_path / "a.npz", example()))
    actions = resolve_actions(source.layout, None, None, None)
    return WritingPlan(source=source, actions=actions, destination=tmp_path / "out" / "a")


def beside(plan: WritingPlan) -> list[str]:
    return sorted(path.name for path in plan.destination.parent.iterdir())


def interrupt(plan: WritingPlan, error: BaseException, say: Say = print) -> Path:
    """The folder of work that an error ended when it had written half of something."""
    try:
        with work_folder(plan, say) as folder:
            (folder / "state").write_text("half")
            raise error
    except type(error):
        return folder


def test_at_the_end_the_dataset_is_in_its_place_and_nothing_else(plan: WritingPlan) -> None:
    with work_folder(plan, print) as folder:
        (folder / DATASET_FOLDER / "shard").write_text("rows")
    assert beside(plan) == ["a"]
    assert (plan.destination / "shard").read_text() == "rows"


def test_bad_data_leave_nothing(plan: WritingPlan) -> None:
    with pytest.raises(ValueError, match="NaN"), work_folder(plan, print):
        raise ValueError("NaN")
    assert beside(plan) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no space left on device")])
def test_an_interruption_keeps_the_work_and_says_so(plan: WritingPlan, error: BaseException) -> None:
    lines: list[str] = []
    folder = interrupt(plan, error, lines.append)
    assert lines == [f"interrupted; the same command goes on from {folder}"]
    with work_folder(plan, print) as found:
        assert (found / "state").read_text() == "half"


def test_a_network_that_fails_keeps_the_work(plan: WritingPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoteFile, "stat", lambda file: os.stat_result([0] * 10))
    plan = replace(plan, source=replace(plan.source, files=(RemoteFile("s3://bucket/a.npz"),)))
    with pytest.raises(ValueError, match="cannot be read"), work_folder(plan, print) as folder:
        raise ValueError("s3://bucket/a.npz cannot be read") from OSError("timeout")
    assert beside(plan) == [folder.name]


def test_rows_that_lie_in_memory_are_not_gone_on_with(plan: WritingPlan) -> None:
    plan = replace(plan, source=replace(plan.source, files=()))
    folder = interrupt(plan, KeyboardInterrupt())
    with work_folder(plan, print) as found:
        assert found == folder
        assert not (found / "state").exists()


def test_a_second_process_is_refused(plan: WritingPlan) -> None:
    with (
        work_folder(plan, print),
        pytest.raises(ValueError, match=r"another `iql-ray prepare` is making .*out/a right now"),
        work_folder(plan, print),
    ):
        pass
    assert beside(plan) == ["a"]


def test_work_of_other_settings_is_left_alone_while_it_is_done(plan: WritingPlan) -> None:
    other, lines = replace(plan, seed=1), []
    with work_folder(plan, print) as first:
        second = interrupt(other, KeyboardInterrupt(), lines.append)
        assert beside(plan) == sorted([first.name, second.name])
    busy = f"another `iql-ray prepare` is at work in {first}, with other data, settings or code"
    assert lines == [busy, f"interrupted; the same command goes on from {second}"]


def test_work_of_other_settings_goes_once_nobody_does_it(plan: WritingPlan) -> None:
    folder = interrupt(plan, KeyboardInterrupt())
    lines: list[str] = []
    with work_folder(replace(plan, seed=1), lines.append):
        pass
    assert lines == [f"removed {folder}: left by an interrupted run of other data, settings or code"]
    assert beside(plan) == ["a"]


def test_the_fingerprint_is_of_what_decides_the_bytes(plan: WritingPlan, tmp_path: Path) -> None:
    same = replace(plan, overwrite=True, destination=tmp_path / "b")
    assert fingerprint(same) == fingerprint(plan)
    others = [replace(plan, seed=1), replace(plan, licence="MIT"), replace(plan, rows_per_shard=7)]
    before = fingerprint(plan)
    os.utime(tmp_path / "a.npz", ns=(0, 1))
    assert len({before, fingerprint(plan), *map(fingerprint, others)}) == 5
