"""A prepared dataset as whole episodes in order, split into those to learn from and those held out.

    shards (shuffled)   (1,1) (0,0) (1,0) (0,2) (0,1)
    here                (0,0) (0,1) (0,2) | (1,0) (1,1)       starts 0, 3, 5

Raw values, as they were logged. It reads Parquet and needs no Ray; what is made of the episodes is not its business.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from iql_ray.data.packing import column_values
from iql_ray.data.prepared import Manifest, read_columns, read_manifest
from iql_ray.seeding import child_seed

COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminations")


@dataclass(frozen=True, kw_only=True)
class LoggedEpisodes:
    """Whole episodes of a dataset, one after the other, steps in order."""

    manifest: Manifest
    observations: np.ndarray
    actions: np.ndarray
    """(rows, action_dim) in the environment's units."""
    rewards: np.ndarray
    next_observations: np.ndarray
    terminations: np.ndarray
    starts: np.ndarray
    """(episodes + 1,) where each episode starts."""
    is_held_out: np.ndarray
    """(episodes,)."""

    @property
    def num_episodes(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def episodes(self) -> np.ndarray:
        """(rows,) which episode a row is of."""
        return np.repeat(np.arange(self.num_episodes), np.diff(self.starts))

    @cached_property
    def is_last(self) -> np.ndarray:
        """(rows,) whether a row is its episode's last one."""
        is_last = np.zeros(len(self.rewards), bool)
        is_last[self.starts[1:] - 1] = True
        return is_last

    @cached_property
    def has_next_action(self) -> np.ndarray:
        """(rows,) whether it is known what was done next; nothing is, after a termination, and nothing need be."""
        return ~self.is_last | self.terminations

    @property
    def next_actions(self) -> np.ndarray:
        """(rows, action_dim) what was done next, some other row's action where that is not known."""
        return np.roll(self.actions, -1, axis=0)

    @property
    def is_truncated(self) -> np.ndarray:
        """(episodes,) whether the task had not ended when the episode did."""
        return ~self.terminations[self.starts[1:] - 1]

    def returns_to_go(self, discount: float) -> np.ndarray:
        """(rows,) float64: discounted rewards from each row to its episode's end; nothing stands for what was cut."""
        returns = np.empty(len(self.rewards))
        following = 0.0
        is_last = self.is_last
        for row, reward in zip(range(len(returns) - 1, -1, -1), self.rewards[::-1].tolist(), strict=True):
            following = reward + (0.0 if is_last[row] else discount * following)
            returns[row] = following
        return returns


def read_episodes(dataset: str | Path, *, held_out_share: float, max_rows: int, seed: int) -> LoggedEpisodes:
    """Read as many whole episodes as fit, drawn at random, in two passes over the shards.

    Args:
        held_out_share: of the episodes read, in (0, 1); at least one is held out and one is not.
        max_rows: rows read at most. Two episodes are read, however long.
        seed: of the draw; equal seeds read and hold out equal episodes.

    Raises:
        ValueError: no such dataset, or one of fewer than two episodes.
    """
    manifest = read_manifest(dataset)
    lengths = np.zeros(manifest.num_episodes, np.int64)
    for table in read_columns(dataset, "episode"):
        lengths += np.bincount(column_values(table, "episode"), minlength=len(lengths))
    chosen = _chosen(lengths, max_rows, seed)
    if len(chosen) < 2:
        raise ValueError(
            f"dataset {dataset} has {len(chosen)} episodes; fitted Q evaluation learns from some and estimates on"
            " others, and needs at least 2 (many more for an estimate worth having)"
        )
    kept = np.where(np.isin(np.arange(len(lengths)), chosen), lengths, 0)
    places = np.append(0, np.cumsum(kept))
    columns = _read_in_order(dataset, manifest, places)
    num_held_out = min(max(1, round(held_out_share * len(chosen))), len(chosen) - 1)
    is_held_out = np.isin(np.arange(len(lengths)), chosen[-num_held_out:])[kept > 0]
    starts = np.append(0, np.cumsum(kept[kept > 0]))
    return LoggedEpisodes(manifest=manifest, starts=starts, is_held_out=is_held_out, **columns)


def _chosen(lengths: np.ndarray, max_rows: int, seed: int) -> np.ndarray:
    """Episodes with rows in a random order, as many as have `max_rows` rows together, two at least."""
    order = np.random.default_rng(child_seed(seed, "fqe", "split")).permutation(np.flatnonzero(lengths))
    num_fitting = int(np.searchsorted(np.cumsum(lengths[order]), max_rows, side="right"))
    return order[: max(2, num_fitting)]


def _read_in_order(dataset: str | Path, manifest: Manifest, starts: np.ndarray) -> dict[str, np.ndarray]:
    """Every column in the order of episodes and steps, of the episodes that take a place."""
    spaces, num_rows = manifest.spaces, int(starts[-1])
    widths = {"observations": spaces.observation_dim, "actions": spaces.action_dim}
    widths["next_observations"] = spaces.observation_dim
    ordered = {name: np.empty((num_rows, width), np.float32) for name, width in widths.items()}
    ordered |= {"rewards": np.empty(num_rows, np.float32), "terminations": np.empty(num_rows, bool)}
    num_placed = 0
    for table in read_columns(dataset, "episode", "step", *COLUMNS):
        episodes = column_values(table, "episode")
        places = starts[episodes] + column_values(table, "step")
        is_placed = places < starts[episodes + 1]
        for name, column in ordered.items():
            column[places[is_placed]] = column_values(table, name)[is_placed]
        num_placed += int(is_placed.sum())
    assert num_placed == num_rows, "a prepared episode's steps are 0, 1, ... without a gap"
    return ordered
