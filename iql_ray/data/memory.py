"""How much memory a learner's data takes, and from that whether it is held whole or streamed in windows.

Sizes alone: nothing here reads rows. The limit is that of the data; Python, torch, Ray and the networks come on top
(some 500 MB a process).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from iql_ray.data.prepared import Manifest
from iql_ray.data.row_groups import ROWS_PER_READ, RowGroup
from iql_ray.data.selection import ALL_ROWS, RowSelection

GIB = 2**30
FLOAT_BYTES = 4
INDEX_BYTES = 4
EPISODE_BYTES = 8
NUM_WINDOWS = 2
"""One is drawn from while the next one is read."""
READING_COPIES = 10
"""How often a block of rows lies in memory while it is read: decoded, transformed, put together."""
PAGE_BYTES = 16 * 2**20
"""Of the file's pages that are decompressed at a time, a few of each column."""
PAGE_COPIES = 6
"""Of a row group that is smaller than those pages."""


@dataclass(frozen=True, kw_only=True)
class LearnerData:
    """What one learner learns from, by size."""

    num_rows: int
    """Of its share, the largest of all."""
    row_width: int
    """Floats of a packed row (`RowLayout.width`)."""
    num_seeds: int = 1
    """Of the population: each has its own order of the same rows."""
    batch_size: int
    """Of one seed in this learner."""
    tables_bytes: int = 0
    """What a selection of rows needs at hand while they are read (`SelectedRows`)."""

    @property
    def resident_bytes(self) -> int:
        """The whole share as one packed matrix."""
        return self.num_rows * self.row_bytes

    @property
    def row_bytes(self) -> int:
        return self.row_width * FLOAT_BYTES

    def streamed_bytes(self, rows_per_window: int, largest_group: int) -> int:
        """Two windows with their orders, a block that is read, a batch, and the tables of the selection."""
        order_bytes = self.num_seeds * INDEX_BYTES
        windows = rows_per_window * (NUM_WINDOWS * (self.row_bytes + order_bytes) + INDEX_BYTES)
        reading = READING_COPIES * min(ROWS_PER_READ, largest_group) * self.row_bytes
        reading += min(PAGE_BYTES, PAGE_COPIES * largest_group * self.row_bytes)
        batch = 2 * self.num_seeds * self.batch_size * self.row_bytes
        return windows + reading + batch + self.tables_bytes


def selection_bytes(manifest: Manifest, selection: RowSelection) -> int:
    """What `SelectedRows` takes: where each episode starts, and the action of every row where next ones are asked."""
    if selection == ALL_ROWS:
        return 0
    actions = manifest.num_rows * manifest.spaces.action_dim * FLOAT_BYTES if selection.with_next_actions else 0
    return (manifest.num_episodes + 1) * EPISODE_BYTES + actions


def groups_per_window(
    data: LearnerData, limit_bytes: float, groups: Callable[[], tuple[RowGroup, ...]], name: str
) -> int | None:
    """How many row groups a learner has in memory at a time; None where its whole share fits.

    Args:
        limit_bytes: of one learner.
        groups: the dataset's row groups as stored; asked for only where the share does not fit.
        name: of the dataset, for the message.

    Raises:
        ValueError: not even windows of one row group fit.
    """
    if data.resident_bytes <= limit_bytes:
        return None
    largest = max(group.num_rows for group in groups())
    nothing, one = (data.streamed_bytes(num_groups * largest, largest) for num_groups in (0, 1))
    if one > limit_bytes:
        raise ValueError(
            f"a memory limit of {limit_bytes / GIB:.4g} GiB a learner is too small for {name}: held whole, a learner's "
            f"share takes {data.resident_bytes / GIB:.4g} GiB, and streamed, two row groups of {largest} rows, the "
            f"reading of one, a batch of {data.num_seeds * data.batch_size} and the selection of rows take "
            f"{one / GIB:.4g}; raise --memory-limit, or prepare it with fewer --rows-per-shard"
        )
    return int((limit_bytes - nothing) // (one - nothing))
