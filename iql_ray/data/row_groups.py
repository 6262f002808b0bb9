"""A prepared dataset by row groups: the unit in which a learner reads what it cannot hold, already packed.

Which group is read when is `streaming.py`'s; nothing here keeps rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iql_ray.data.packing import PACKED_COLUMNS, pack
from iql_ray.data.selection import SelectedRows
from iql_ray.data.transforms import Transforms

ROWS_PER_READ = 8192
"""Rows decoded and packed at a time, so that reading takes the same memory whatever the size of a row group."""

FILE_BUFFER_BYTES = 256 * 2**10
"""Of each column of the file that is being read."""

SELECTED_BY = ("episode", "step", "terminations")


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """A row group of a shard."""

    path: str
    index: int
    """Within its file."""
    num_rows: int
    """Learned from: fewer than are stored where a selection leaves some out."""


def stored_groups(paths: Iterable[Path]) -> tuple[RowGroup, ...]:
    """All row groups of all shards in order (`prepared.shard_paths`); reads the files' footers."""
    groups: list[RowGroup] = []
    for path in paths:
        with pq.ParquetFile(path) as shard:
            sizes = [shard.metadata.row_group(index).num_rows for index in range(shard.num_row_groups)]
        groups += [RowGroup(path=str(path), index=index, num_rows=size) for index, size in enumerate(sizes)]
    return tuple(groups)


def selected_groups(groups: Iterable[RowGroup], selected: SelectedRows) -> tuple[RowGroup, ...]:
    """The same with the rows that a selection keeps, less those of which it keeps none: one pass over few columns."""
    counted = (replace(group, num_rows=_count_kept(group, selected)) for group in groups)
    return tuple(group for group in counted if group.num_rows)


def packed_blocks(group: RowGroup, transforms: Transforms, selected: SelectedRows | None) -> Iterator[np.ndarray]:
    """The rows of a group that are learned from, in order, as (at most `ROWS_PER_READ`, width) float32 matrices.

    Raises:
        RuntimeError: the file cannot be read, or is not what it was when the groups were listed.
    """
    columns = dict.fromkeys((*PACKED_COLUMNS, *(SELECTED_BY if selected else ())))
    num_rows = 0
    try:
        for table in _tables(group, tuple(columns)):
            kept, next_actions = selected.choose(table) if selected else (table, None)
            num_rows += kept.num_rows
            yield pack(kept, transforms, next_actions)
    except (OSError, pa.ArrowException) as error:
        raise RuntimeError(f"row group {group.index} of {group.path} cannot be read: {error}") from error
    if num_rows != group.num_rows:
        raise RuntimeError(
            f"row group {group.index} of {group.path} has {num_rows} rows to learn from, it had {group.num_rows} when "
            "the run began; put the file back and resume"
        )


def _count_kept(group: RowGroup, selected: SelectedRows) -> int:
    return sum(selected.choose(table)[0].num_rows for table in _tables(group, SELECTED_BY))


def _tables(group: RowGroup, columns: tuple[str, ...]) -> Iterator[pa.Table]:
    """On the caller's thread, and without a copy of the whole group's bytes."""
    with pq.ParquetFile(group.path, pre_buffer=False, buffer_size=FILE_BUFFER_BYTES) as shard:
        for batch in shard.iter_batches(
            ROWS_PER_READ, row_groups=[group.index], columns=list(columns), use_threads=False
        ):
            yield pa.Table.from_batches([batch])
