"""A preparation that is interrupted at any moment and run again gives the bytes of one that was not."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iql_ray import config
from iql_ray.data.actions import resolve_actions
from iql_ray.data.fixes import Rule
from iql_ray.data.intake import WritingPlan
from iql_ray.data.prepared import Manifest, read_manifest
from iql_ray.data.reading import read_in_threads
from iql_ray.data.shuffling import Buckets
from iql_ray.data.sources import open_source
from iql_ray.data.writing import prepare_dataset
from pipelines.prepare import main
from tests.data.examples import example, prepare_here, write_npz
from tests.data.inspected import clean_columns

LENGTHS = np.tile([12, 5, 40], 5)


class Killed(BaseException):
    """Stands for the end of the process: nothing may be done after it but to let go of the lock."""


class Killer:
    """Lets so many calls of the patched functions pass, then kills each that follows."""

    def __init__(self, num_passed: int) -> None:
        self.num_left = num_passed

    def wrapped(self, function: Callable[..., Any], damage: Callable[..., Any] | None = None) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.num_left -= 1
            if self.num_left < 0:
                if damage is not None:
                    damage(*arguments)
                raise Killed
            return function(*arguments, **options)

        return call

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Everything that changes the disk."""
        monkeypatch.setattr(Buckets, "add", self.wrapped(Buckets.add, lambda self, block: Buckets.flush(self)))
        monkeypatch.setattr(pq, "write_table", self.wrapped(pq.write_table, lambda _, path: path.write_bytes(b"PAR1")))
        monkeypatch.setattr(np, "savez", self.wrapped(np.savez, lambda path: path.write_bytes(b"PK")))
        monkeypatch.setattr(config, "save", self.wrapped(config.save))
        monkeypatch.setattr(shutil, "rmtree", self.wrapped(shutil.rmtree))
        for name in ("rename", "unlink", "replace", "mkdir"):
            monkeypatch.setattr(Path, name, self.wrapped(getattr(Path, name)))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows make a table, a save, a bucket."""
    monkeypatch.setattr("iql_ray.data.sources.npz.ROWS_PER_TABLE", 40)
    monkeypatch.setattr("iql_ray.data.first_pass.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("iql_ray.data.shuffling.BUCKET_BYTES", 4000)
    monkeypatch.setattr("iql_ray.data.work_folder.code_version", lambda: "this")
    monkeypatch.setattr("iql_ray.data.describing.git_commit", lambda: None)
    monkeypatch.setattr("iql_ray.data.writing.num_threads", lambda: 2)


def linked_spec(folder: Path) -> str:
    columns = clean_columns(LENGTHS)
    del columns["next_observations"]
    return write_npz(folder / "a.npz", columns)


def broken_spec(folder: Path) -> str:
    """Something for every repair to do."""
    columns = clean_columns(LENGTHS)
    columns["terminations"] |= columns["truncations"]
    columns["truncations"][:] = False
    columns["observations"][[3, 77, 200]] = np.nan
    columns["actions"][[6, 150]] = 1.5
    return write_npz(folder / "a.npz", columns)


CASES: list[tuple[Callable[[Path], str], tuple[Rule, ...]]] = [
    (linked_spec, ()),
    (broken_spec, ("clip-actions", "time-limit-is-truncation", "drop-nonfinite-rows")),
]


def plan_of(spec: str, out: Path, fixes: tuple[Rule, ...] = ()) -> WritingPlan:
    source = open_source(spec)
    actions = resolve_actions(source.layout, None, None, None)
    return WritingPlan(source=source, actions=actions, destination=out, fixes=fixes, rows_per_shard=60, overwrite=True)


def prepare(spec: str, out: Path, fixes: tuple[Rule, ...] = (), say: Callable[[str], None] = print) -> list[int]:
    """Prepare without Ray; from which rows on the source was read."""
    plan, asked = plan_of(spec, out, fixes), []

    def read(first_row: int) -> Iterator[pa.Table]:
        asked.append(first_row)
        return read_in_threads(plan.source, first_row)

    prepare_dataset(read, plan, say)
    return asked


def told(folder: Path) -> tuple[Manifest, dict[str, bytes]]:
    """All that a dataset is, but the time when it was made."""
    manifest = read_manifest(folder)
    provenance = replace(manifest.provenance, created_at="")
    shards = {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", *shards]
    return replace(manifest, provenance=provenance), shards


@pytest.mark.parametrize(("make_spec", "fixes", "num_passed"), [(*CASES[0], 0), (*CASES[1], 2)])
def test_killed_at_any_moment_the_same_command_gives_the_same_bytes(
    make_spec: Callable[[Path], str], fixes: tuple[Rule, ...], num_passed: int, tmp_path: Path
) -> None:
    """At every fourth of the calls that change the disk, from the first or the third on."""
    spec = make_spec(tmp_path)
    prepare(spec, tmp_path / "whole", fixes)
    ended = False
    while not ended:
        prepare_here(write_npz(tmp_path / "old.npz", example()), tmp_path / "a", overwrite=True)
        with pytest.MonkeyPatch.context() as patches:
            Killer(num_passed).patch(patches)
            try:
                prepare(spec, tmp_path / "a", fixes)
                ended = True
            except Killed:
                pass
        prepare(spec, tmp_path / "a", fixes)
        assert told(tmp_path / "a") == told(tmp_path / "whole"), num_passed
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], num_passed
        num_passed += 4
    assert num_passed > 40


def test_killed_again_and_again_it_comes_to_an_end(tmp_path: Path) -> None:
    spec, fixes = broken_spec(tmp_path), CASES[1][1]
    prepare(spec, tmp_path / "whole", fixes)
    for _ in range(20):
        with pytest.MonkeyPatch.context() as patches:
            Killer(30).patch(patches)
            try:
                prepare(spec, tmp_path / "a", fixes)
                break
            except Killed:
                pass
    assert told(tmp_path / "a") == told(tmp_path / "whole")


def killed_at(patched: object, name: str, num_passed: int, spec: str, out: Path, lines: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(patched, name, Killer(num_passed).wrapped(getattr(patched, name)))
        with pytest.raises(Killed):
            prepare(spec, out, say=lines.append)


def test_what_was_done_is_said_and_not_done_again(tmp_path: Path) -> None:
    spec, out = linked_spec(tmp_path), tmp_path / "a"
    first: list[str] = []
    killed_at(Buckets, "add", 4, spec, out, first)
    (folder,) = tmp_path.glob(".a.preparing-*")
    assert first == [f"interrupted; the same command goes on from {folder}"]
    second: list[str] = []
    killed_at(pq, "write_table", 3, spec, out, second)
    num_read = np.cumsum(LENGTHS)[4]
    assert second[0] == (
        f"goes on where an earlier run was interrupted: {num_read} of {LENGTHS.sum()} rows are read,"
        " 0 shards are written"
    )
    third: list[str] = []
    assert prepare(spec, out, say=third.append) == [], "nothing of the source is read again"
    assert third == ["goes on where an earlier run was interrupted: 285 of 285 rows are read, 3 shards are written"]


def test_other_data_or_settings_do_not_go_on_with_the_work(tmp_path: Path) -> None:
    spec, out = linked_spec(tmp_path), tmp_path / "a"
    killed_at(pq, "write_table", 0, spec, out, [])
    (folder,) = tmp_path.glob(".a.preparing-*")
    linked_spec(tmp_path)  # written again, so that its time is another
    lines: list[str] = []
    assert prepare(spec, out, say=lines.append) == [0]
    assert lines == [f"removed {folder}: left by an interrupted run of other data, settings or code"]


def test_damaged_work_is_refused_and_removed(tmp_path: Path) -> None:
    spec, out = linked_spec(tmp_path), tmp_path / "a"
    killed_at(pq, "write_table", 3, spec, out, [])
    (shard, *_) = tmp_path.glob(".a.preparing-*/dataset/*.parquet")
    shard.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=rf"run again to begin anew: .*{shard.name}"):
        prepare(spec, out)
    assert prepare(spec, out) == [0]


KILLED_FOR_GOOD = """
import os, signal, sys
import pyarrow.parquet as pq
from iql_ray.data import first_pass, shuffling, writing
from iql_ray.data.sources import npz
from pipelines.prepare import main

npz.ROWS_PER_TABLE, first_pass.SAVE_SECONDS, shuffling.BUCKET_BYTES = 40, 0.0, 4000
place, name, num_left = {"reading": (shuffling.Buckets, "add", 4), "writing": (pq, "write_table", 3)}[sys.argv[1]]
original = getattr(place, name)

def call(*arguments, **options):
    global num_left
    num_left -= 1
    if num_left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)

setattr(place, name, call)
main(sys.argv[2:])
"""


@pytest.mark.parametrize(("stage", "said"), [("reading", "rows are read, 0 shards"), ("writing", "285 of 285 rows")])
def test_killed_for_good_the_command_goes_on(
    stage: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the commit and the version are part of what must not change
    monkeypatch.setattr("iql_ray.data.shuffling.BUCKET_BYTES", 4000)
    options = ["--source", linked_spec(tmp_path), "--rows-per-shard", "60"]
    assert main([*options, "--out", str(tmp_path / "whole")]) == 0
    arguments = [*options, "--out", str(tmp_path / "a")]
    killed = subprocess.run([sys.executable, "-c", KILLED_FOR_GOOD, stage, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    capsys.readouterr()
    assert main(arguments) == 0
    assert said in capsys.readouterr().err
    assert told(tmp_path / "a") == told(tmp_path / "whole")
