"""Which rows of a prepared dataset are learned from: those of the best episodes, those whose next action is known.

The shards hold all rows shuffled, each with its episode and its step; what is kept of an episode are its steps 0, 1,
..., so every row has a known place in the order of episodes and steps:

    (episode, step) in the shards   (1,1) (0,0) (1,0) (0,2) (0,1)
    the same in order               (0,0) (0,1) (0,2) | (1,0) (1,1)      starts of the episodes: 0, 3, 5

The row that follows (episode, step) is at starts[episode] + step + 1, unless that is another episode's. Selected rows
stay shuffled. Nothing here packs rows; pyarrow is imported late, for a command's help knows `RowSelection` too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iql_ray.data.packing import column_values
from iql_ray.data.prepared import Manifest, shard_paths

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_READ = 65_536


@dataclass(frozen=True, kw_only=True)
class RowSelection:
    """Which rows to learn from, and what to know of them; by default all, as they are stored."""

    top_episode_share: float = 1.0
    """Share of the episodes in (0, 1] to keep, those of the highest return; 0.1 cloned is the paper's 10%BC."""
    with_next_actions: bool = False
    """Give each row the action taken after it; a row without one goes, unless the task ended there."""

    def __post_init__(self) -> None:
        if not 0.0 < self.top_episode_share <= 1.0:
            raise ValueError(f"top_episode_share = {self.top_episode_share}: expected a number in (0, 1]")


ALL_ROWS = RowSelection()


@dataclass(frozen=True, kw_only=True)
class SelectedRows:
    """A selection applied to a dataset: which rows it keeps and what was done after each."""

    starts: np.ndarray
    """(episodes + 1,) int64: where each episode starts in the order of the rows; one not kept takes no place."""
    num_rows: int
    """How many rows are kept, fewer than there are places where a last row has no next action."""
    actions: np.ndarray | None
    """(places, action_dim) float32 in the environment's units; None unless next actions were asked for."""

    def choose(self, table: pa.Table) -> tuple[pa.Table, np.ndarray | None]:
        """The rows of a table that are kept, in their order, and (kept rows, action_dim) the actions taken after them.

        A terminated row has no next action; it gets that of some other row.
        """
        episodes = column_values(table, "episode")
        starts, stops = self.starts[episodes], self.starts[episodes + 1]
        is_kept = starts < stops
        if self.actions is None:
            return table.filter(is_kept), None
        following = starts + column_values(table, "step") + 1
        is_kept &= (following < stops) | column_values(table, "terminations")
        return table.filter(is_kept), self.actions[np.minimum(following[is_kept], len(self.actions) - 1)]


def select_rows(folder: str | Path, manifest: Manifest, selection: RowSelection) -> SelectedRows:
    """Apply a selection, reading a few columns of the shards in blocks.

    Memory is 4 bytes a row and dimension of the action where next actions are asked for, and passes through 20 bytes
    a row where episodes are ranked; each is one pass over the shards.
    """
    starts, num_rows = _choose_episodes(folder, manifest, selection)
    actions = None
    if selection.with_next_actions:
        actions = _in_order(folder, starts, "actions", (manifest.spaces.action_dim,))
    return SelectedRows(starts=starts, num_rows=num_rows, actions=actions)


def count_selected(folder: str | Path, manifest: Manifest, selection: RowSelection) -> tuple[int, int]:
    """How many rows and how many episodes a selection keeps, without reading an action; free for `ALL_ROWS`."""
    if selection == ALL_ROWS:
        return manifest.num_rows, manifest.num_episodes
    starts, num_rows = _choose_episodes(folder, manifest, selection)
    return num_rows, int(np.count_nonzero(np.diff(starts)))


def check_enough_rows(
    folder: str | Path, manifest: Manifest, selection: RowSelection, num_rows: int, num_learners: int
) -> None:
    """Refuse a selection that leaves a learner without a row.

    Raises:
        ValueError: names the dataset, how many rows are left, and what to change.
    """
    if num_rows >= num_learners:
        return
    fixes = ["lower --num-learners"] if num_rows else []
    if selection.top_episode_share < 1:
        fixes.append(f"keep a larger share of the episodes than {selection.top_episode_share:g}")
    if selection.with_next_actions:
        fixes.append("choose a critic that needs no next actions, which the last row of a cut episode does not have")
    raise ValueError(
        f"dataset {folder} has {num_rows} of its {manifest.num_rows} rows left to learn from, for {num_learners}"
        f" learners; every learner needs one at least: {', or '.join(fixes)}"
    )


def is_among_best(returns: np.ndarray, share: float) -> np.ndarray:
    """(episodes,) True for the ceil(share * episodes) highest returns; of equal ones the earlier episode goes first."""
    num_best = math.ceil(Fraction(str(share)) * len(returns))  # exact: in floats 0.07 * 100 is above 7
    is_best = np.zeros(len(returns), bool)
    is_best[np.argsort(-returns, kind="stable")[:num_best]] = True
    return is_best


def _choose_episodes(folder: str | Path, manifest: Manifest, selection: RowSelection) -> tuple[np.ndarray, int]:
    """`SelectedRows.starts` and `.num_rows`."""
    lengths, is_terminated = _lengths_and_terminations(folder, manifest.num_episodes)
    if selection.top_episode_share < 1:
        ranked = np.flatnonzero(lengths)  # an episode none of whose rows was kept takes no other's place
        is_best = is_among_best(_returns(folder, lengths)[ranked], selection.top_episode_share)
        lengths[ranked[~is_best]] = 0
    num_rows = int(lengths.sum())
    if selection.with_next_actions:
        num_rows -= int(np.count_nonzero((lengths > 0) & ~is_terminated))
    return _starts(lengths), num_rows


def _lengths_and_terminations(folder: str | Path, num_episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """(episodes,) each: how many rows the shards hold of an episode, and whether the task ended in it."""
    lengths, is_terminated = np.zeros(num_episodes, np.int64), np.zeros(num_episodes, bool)
    for table in _tables(folder, "episode", "terminations"):
        episodes = column_values(table, "episode")
        lengths += np.bincount(episodes, minlength=num_episodes)
        is_terminated[episodes[column_values(table, "terminations")]] = True
    return lengths, is_terminated


def _returns(folder: str | Path, lengths: np.ndarray) -> np.ndarray:
    """(episodes,) undiscounted raw returns of the rows that the shards hold.

    Sums run in the order of the steps: equal episodes are then equal to the last bit, wherever their rows lie.
    """
    rewards = _in_order(folder, _starts(lengths), "rewards")
    return np.bincount(np.repeat(np.arange(len(lengths)), lengths), rewards, len(lengths))


def _in_order(folder: str | Path, starts: np.ndarray, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """(places, *shape) float32: a column in the order of episodes and steps, of the episodes that take a place."""
    ordered = np.empty((starts[-1], *shape), np.float32)
    num_placed = 0
    for table in _tables(folder, "episode", "step", name):
        episodes = column_values(table, "episode")
        places = starts[episodes] + column_values(table, "step")
        is_placed = places < starts[episodes + 1]
        ordered[places[is_placed]] = column_values(table, name)[is_placed]
        num_placed += int(is_placed.sum())
    assert num_placed == len(ordered), "a prepared episode's steps are 0, 1, ... without a gap"
    return ordered


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.append(0, np.cumsum(lengths))


def _tables(folder: str | Path, *columns: str) -> Iterator[pa.Table]:
    """These columns of all shards in order, a block at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in shard_paths(folder):
        with pq.ParquetFile(path) as shard:
            for batch in shard.iter_batches(ROWS_PER_READ, columns=list(columns)):
                yield pa.Table.from_batches([batch])
