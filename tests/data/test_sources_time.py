"""A column of times orders the rows of a log and tells its episodes apart."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iql_ray.data.sources import open_source
from iql_ray.data.sources.time_order import EpisodeCounter
from tests.data.examples import prepare_here, read_rows, tables_of

TIMES = [0, 1, 2, 0, 1, 5, 6]
DONES = [False, False, False, False, True, False, False]
EPISODES = [0, 0, 0, 1, 1, 2, 2]
"""Time restarts at row 3; the flag on row 4 ends episode 1 although time goes on."""
MAPPING = {"observations": "x", "actions": "u", "rewards": "r", "terminations": "done", "time": "t"}


def table(**columns: list) -> pa.Table:
    num_rows = len(next(iter(columns.values())))
    defaults = {"x": np.arange(num_rows) * 1.0, "u": np.zeros(num_rows), "r": np.ones(num_rows), "done": DONES}
    return pa.table({**defaults, **columns})


def as_parquet(folder: Path, logged: pa.Table) -> str:
    """Files of three rows in row groups of two: time restarts at a file's start, an episode crosses both."""
    for index, start in enumerate(range(0, logged.num_rows, 3)):
        pq.write_table(logged.slice(start, 3), folder / f"part-{index}.parquet", row_group_size=2)
    return f"parquet:{folder}"


def as_csv(folder: Path, logged: pa.Table) -> str:
    for index, start in enumerate(range(0, logged.num_rows, 3)):
        rows = logged.slice(start, 3).to_pylist()
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        (folder / f"part-{index}.csv").write_text("\n".join(lines) + "\n")
    return f"csv:{folder}"


WRITERS = pytest.mark.parametrize("write", [as_parquet, as_csv])


def episodes(spec: str, mapping: dict[str, str] = MAPPING) -> list[int]:
    return pa.concat_tables(tables_of(open_source(spec, mapping)))["episode"].to_pylist()


@WRITERS
def test_an_episode_begins_where_time_does_not_increase(write, tmp_path: Path) -> None:
    assert episodes(write(tmp_path, table(t=TIMES))) == EPISODES


@WRITERS
def test_a_fragment_read_alone_knows_its_first_episode(write, tmp_path: Path) -> None:
    source = open_source(write(tmp_path, table(t=TIMES)), MAPPING)
    fragment = source.fragments[-1]
    assert pa.concat_tables(source.read(fragment))["episode"].to_pylist() == [2]


@WRITERS
def test_times_may_be_timestamps_or_fractions(write, tmp_path: Path) -> None:
    start = datetime(2024, 2, 29, 23, 59, 59)
    stamps = [start + timedelta(seconds=time) for time in TIMES]
    assert episodes(write(tmp_path, table(t=stamps))) == EPISODES
    assert episodes(write(tmp_path, table(t=[time / 10 for time in TIMES]))) == EPISODES


@WRITERS
def test_a_time_may_be_observed_too(write, tmp_path: Path) -> None:
    source = open_source(write(tmp_path, table(t=TIMES)), {**MAPPING, "observations": "t,x"})
    tables = pa.concat_tables(tables_of(source))
    assert [row[0] for row in tables["observations"].to_pylist()] == TIMES
    assert tables["episode"].to_pylist() == EPISODES


@WRITERS
def test_times_alone_make_episodes_that_were_cut(write, tmp_path: Path) -> None:
    """Rows 2, 4 and 6 are the last of their episodes, and nobody says what came after them."""
    mapping = {**MAPPING, "terminations": "never"}
    manifest = prepare_here(write(tmp_path, table(t=[0, 1, 2, 0, 1, 0, 1])), tmp_path / "a", mapping)
    assert (manifest.num_episodes, manifest.num_rows, manifest.num_truncations) == (3, 4, 3)
    assert [row["rewards"] for row in read_rows(tmp_path / "a")] == [1] * 4
    assert manifest.provenance.columns["episode"] == "(where time restarts)"


@WRITERS
def test_rows_of_an_id_in_increasing_time_are_fine(write, tmp_path: Path) -> None:
    spec = write(tmp_path, table(t=TIMES, run=[5, 5, 5, 3, 3, 8, 8]))
    assert episodes(spec, {**MAPPING, "episode": "run"}) == [5, 5, 5, 3, 3, 8, 8]


@pytest.mark.parametrize(("times", "row"), [([0, 1, 1, 0, 1, 5, 6], 2), ([0, 1, 2, 1, 2, 5, 6], 0)])
@WRITERS
def test_rows_of_an_id_out_of_time_are_named(write, times: list[int], row: int, tmp_path: Path) -> None:
    """Row 2 of the first file repeats a time; row 0 of the second file goes back from the first file's last."""
    spec = write(tmp_path, table(t=times, run=[5, 5, 5, 5, 5, 8, 8]))
    file = rf"part-{0 if row else 1}\."
    with pytest.raises(ValueError, match=rf"time \(t\) is 1 at row {row} of {file}.*, not after [12] .*sort the logs"):
        open_source(spec, {**MAPPING, "episode": "run"})


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, 1.0, np.nan, 0.0, 1.0, 5.0, 6.0], r"time \(t\) is NaN at row 2 of part-0\.parquet"),
        ([0, 1, None, 0, 1, 5, 6], r"column t is null at row 2 of part-0\.parquet"),
        (list("abcdefg"), r"time \(t\) has dtype .* at row 0 of part-0\.parquet, expected a number or a timestamp"),
    ],
)
def test_times_that_are_none(times: list, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(as_parquet(tmp_path, table(t=times)), MAPPING)


def test_other_formats_have_no_times(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", t=np.arange(3))
    with pytest.raises(ValueError, match=r"time=t goes with parquet: and csv:"):
        open_source(f"npz:{tmp_path / 'a.npz'}", {"time": "t"})


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_episodes_do_not_depend_on_how_blocks_are_cut(size: int) -> None:
    counter, times, ends = EpisodeCounter(), np.array(TIMES), np.array(DONES)
    pieces = [counter.number(times[i : i + size], ends[i : i + size]) for i in range(0, len(times), size)]
    assert np.concatenate(pieces).tolist() == EPISODES
