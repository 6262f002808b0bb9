"""Threads read ahead, in bounded memory, and the rows come in their order from any row on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from iql_ray.data.reading import fragment_of, read_in_threads, without_first
from iql_ray.data.sources import Fragment, Source, open_source
from tests.data.examples import (
    changed,
    example,
    tables_of,
    write_hdf5,
    write_minari,
    write_npz,
    write_parquet,
)

NUM_ROWS = 100


def columns() -> dict[str, np.ndarray]:
    return {
        "observations": np.arange(NUM_ROWS, dtype=np.float32)[:, None],
        "actions": np.zeros((NUM_ROWS, 1)),
        "rewards": np.arange(NUM_ROWS),
        "terminations": np.zeros(NUM_ROWS, bool),
    }


def rewards(tables: Iterator[pa.Table]) -> list[float]:
    return [value for table in tables for value in table.column("rewards").to_pylist()]


@pytest.mark.parametrize("threads", [1, 3, 20])
@pytest.mark.parametrize("first_row", [0, 6, 7, 50, 99, 100])
def test_rows_come_in_order_from_any_row_on(threads: int, first_row: int, tmp_path: Path) -> None:
    source = open_source(write_parquet(tmp_path / "a", columns(), rows_per_file=7))
    assert rewards(read_in_threads(source, first_row, threads)) == list(range(first_row, NUM_ROWS))


def test_every_format_can_be_read_by_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    specs = [
        write_npz(tmp_path / "a.npz", example()),
        write_hdf5(tmp_path / "a.hdf5", example()),
        write_minari("test/line-v0", example()),
    ]
    for source in map(open_source, specs):
        many = replace(source, fragments=source.fragments * 20)
        assert rewards(read_in_threads(many, threads=4)) == rewards(tables_of(source)) * 20


def test_a_rows_fragment_is_found(tmp_path: Path) -> None:
    source = open_source(write_parquet(tmp_path / "a", columns(), rows_per_file=7))
    assert [fragment_of(source, row) for row in (0, 6, 7, 99, 100)] == [(0, 0), (0, 0), (1, 7), (14, 98), (15, 100)]


def test_first_rows_are_left_out() -> None:
    tables = [pa.table({"rewards": rows}) for rows in ([0, 1], [2, 3, 4], [5])]
    assert rewards(without_first(tables, 3)) == [3, 4, 5]


def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose tables have been read so far."""
    read: list[str] = []
    original = Source.read

    def counted(source: Source, fragment: Fragment) -> Iterator[pa.Table]:
        for table in original(source, fragment):
            read.append(fragment.file_name)
            yield table

    monkeypatch.setattr(Source, "read", counted)
    return read


def test_what_nobody_takes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iql_ray.data.sources.parquet.read_columns.__defaults__", (10,))
    monkeypatch.setattr("iql_ray.data.reading.READ_AHEAD_BYTES", 0)
    read = counting(monkeypatch)
    tables = read_in_threads(open_source(write_parquet(tmp_path / "a", columns(), rows_per_file=50)), threads=2)
    assert len(next(tables)) == 10
    time.sleep(0.2)
    assert len(read) <= 4, "two of each of two files at most"
    assert rewards(tables) == list(range(10, NUM_ROWS))


def test_who_stops_early_leaves_no_thread_behind(tmp_path: Path) -> None:
    tables = read_in_threads(open_source(write_parquet(tmp_path / "a", columns(), rows_per_file=7)), threads=3)
    next(tables)
    del tables
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]


def test_a_bad_file_is_named_once_the_rows_before_it_are_taken(tmp_path: Path) -> None:
    bad = changed(terminations=np.array([0, 0, 2, 0, 0]))
    tables = read_in_threads(open_source(write_parquet(tmp_path / "a", bad)), threads=3)
    assert len(next(tables)) == 2
    with pytest.raises(ValueError, match=r"terminations has 2 at row 0 of part-1\.parquet"):
        next(tables)
