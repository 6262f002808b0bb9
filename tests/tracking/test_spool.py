"""The spool: nothing written is lost, nothing half-written is read."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from iql_ray.tracking.spool import CURSOR_FILE, SPOOL_FILE, Spool, count_waiting

KILLED_WRITER = """
import os, pathlib, signal, sys
from iql_ray.tracking.spool import Spool
spool = Spool(pathlib.Path(sys.argv[1]))
for step in range(100):
    spool.append("metrics", step=step, values={"loss": step / 2})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path)
    yield spool
    spool.close()


def steps(spool: Spool) -> list[int]:
    return [record.fields["step"] for record in spool.read()]


def test_a_record_is_in_the_file_when_append_returns(spool, tmp_path):
    spool.append("metrics", step=500, values={"train/value_loss": 0.25})
    line = json.loads((tmp_path / SPOOL_FILE).read_text())
    assert line["kind"] == "metrics"
    assert line["values"] == {"train/value_loss": 0.25}


def test_kill_9_loses_no_record(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(tmp_path)], check=False)
    assert killed.returncode == -9
    spool = Spool(tmp_path)
    assert steps(spool) == list(range(100))
    spool.close()


def test_a_torn_last_line_is_cut_and_the_next_record_is_whole(tmp_path):
    (tmp_path / SPOOL_FILE).write_text('{"kind":"metrics","step":1}\n{"kind":"metrics","st')
    spool = Spool(tmp_path)
    spool.append("metrics", step=2)
    assert steps(spool) == [1, 2]
    spool.close()


@pytest.mark.parametrize("length", [3, 65535, 65536, 65537, 200_000])
def test_a_torn_line_of_any_length_is_cut(tmp_path, length):
    whole = '{"kind":"metrics","step":1}\n'
    (tmp_path / SPOOL_FILE).write_text(whole + "x" * length)
    Spool(tmp_path).close()
    assert (tmp_path / SPOOL_FILE).read_text() == whole


def test_a_spool_of_one_torn_line_becomes_empty(tmp_path):
    (tmp_path / SPOOL_FILE).write_text('{"kind":')
    Spool(tmp_path).close()
    assert (tmp_path / SPOOL_FILE).read_text() == ""


def test_a_line_that_is_still_being_written_is_not_read(spool, tmp_path):
    spool.append("metrics", step=1)
    with (tmp_path / SPOOL_FILE).open("a") as file:
        file.write('{"kind":"metrics","step":2')
    assert steps(spool) == [1]


def test_reading_goes_on_behind_the_cursor(tmp_path, spool):
    for step in range(3):
        spool.append("metrics", step=step)
    spool.advance(spool.read(limit=2)[-1].end)
    assert [record.fields["step"] for record in spool.read(spool.cursor)] == [2]
    assert count_waiting(tmp_path) == 1


@pytest.mark.parametrize("content", ["", "12x", None])
def test_an_unreadable_cursor_means_that_nothing_was_sent(spool, tmp_path, content):
    spool.append("metrics", step=1)
    if content is not None:
        (tmp_path / CURSOR_FILE).write_text(content)
    assert spool.cursor == 0


def test_a_cursor_behind_the_end_stands_at_the_end(spool, tmp_path):
    spool.append("metrics", step=1)
    spool.advance(10_000)
    assert spool.cursor == (tmp_path / SPOOL_FILE).stat().st_size


def test_a_spool_has_one_holder(spool, tmp_path):
    with pytest.raises(ValueError, match="held by another process"):
        Spool(tmp_path, wait_seconds=0.0)


def test_a_spool_can_be_held_again_after_it_was_closed(tmp_path):
    Spool(tmp_path).close()
    Spool(tmp_path, wait_seconds=0.0).close()


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        Spool(tmp_path / "nowhere")


def test_a_line_that_is_no_record_is_named_by_its_byte(spool, tmp_path):
    spool.append("metrics", step=1)
    size = (tmp_path / SPOOL_FILE).stat().st_size
    with (tmp_path / SPOOL_FILE).open("a") as file:
        file.write("not json\n")
    with pytest.raises(ValueError, match=f"byte {size} is no JSON record"):
        spool.read()


def test_a_record_that_the_disk_took_in_part_is_taken_back(spool, tmp_path):
    spool.append("metrics", step=1)

    before = (tmp_path / SPOOL_FILE).read_bytes()

    class FullDisk(io.FileIO):
        def write(self, data) -> int:
            return super().write(bytes(data)[:7])

    spool.close()
    spool._file = FullDisk(tmp_path / SPOOL_FILE, "a")
    with pytest.raises(OSError, match="disk full"):
        spool.append("metrics", step=2)
    assert (tmp_path / SPOOL_FILE).read_bytes() == before


def test_a_rejected_record_is_kept_with_the_reason(spool, tmp_path: Path):
    spool.append("metrics", step=1)
    spool.reject(spool.read()[0], "too long")
    kept = json.loads((tmp_path / "spool.rejected.jsonl").read_text())
    assert kept["reason"] == "too long"
    assert kept["record"]["step"] == 1
