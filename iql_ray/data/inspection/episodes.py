"""What is known of every episode of a prepared dataset after one pass over a few columns of its shuffled rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iql_ray.data.packing import column_values
from iql_ray.data.prepared import Manifest, read_columns

MAX_REWARD_VALUES = 16
"""Rewards of more distinct values are not counted by value."""


@dataclass(frozen=True, kw_only=True)
class EpisodeFacts:
    """(episodes,) arrays over the rows that the shards hold; 50 bytes an episode."""

    lengths: np.ndarray
    returns: np.ndarray
    """Undiscounted, raw."""
    is_terminated: np.ndarray
    first_rewards: np.ndarray
    last_rewards: np.ndarray
    first_peaks: np.ndarray
    """The first step that earned the largest reward of the data; the episode's length where none did."""
    num_peaks: np.ndarray
    """How many rows earned it."""
    reward_counts: dict[float, int] | None
    """Rows by reward, ascending; None beyond `MAX_REWARD_VALUES` values."""
    largest_reward: float

    @property
    def starts(self) -> np.ndarray:
        """(episodes + 1,) where each episode starts in the order of episodes and steps."""
        return np.append(0, np.cumsum(self.lengths))

    @property
    def success_reward(self) -> float | None:
        """The larger of exactly two reward values, unless most episodes begin with it."""
        counts = self.reward_counts
        if counts is None or len(counts) != 2 or (self.first_rewards == self.largest_reward).mean() > 0.5:
            return None
        return self.largest_reward

    @property
    def is_successful(self) -> np.ndarray:
        """(episodes,) True where an episode earned the success reward, if there is one."""
        return (self.num_peaks > 0) & (self.success_reward is not None)


class _Scan:
    """Takes rows in any order."""

    def __init__(self, num_episodes: int, largest_reward: float) -> None:
        self.lengths = np.zeros(num_episodes, np.int64)
        self.returns = np.zeros(num_episodes)
        self.is_terminated = np.zeros(num_episodes, bool)
        self.first_rewards, self.last_rewards = np.zeros((2, num_episodes), np.float32)
        self.first_peaks = np.full(num_episodes, np.iinfo(np.int64).max)
        self.num_peaks = np.zeros(num_episodes, np.int64)
        self.reward_counts: dict[float, int] | None = {}
        self.largest_reward = largest_reward

    def add(self, columns: dict[str, np.ndarray]) -> None:
        episodes, steps, rewards = columns["episode"], columns["step"], columns["rewards"]
        num_episodes = len(self.lengths)
        self.lengths += np.bincount(episodes, minlength=num_episodes)
        self.returns += np.bincount(episodes, rewards, num_episodes)
        self.is_terminated[episodes[columns["terminations"]]] = True
        is_first, is_last = steps == 0, columns["terminations"] | columns["truncations"]
        self.first_rewards[episodes[is_first]] = rewards[is_first]
        self.last_rewards[episodes[is_last]] = rewards[is_last]
        is_peak = rewards == np.float32(self.largest_reward)
        np.minimum.at(self.first_peaks, episodes[is_peak], steps[is_peak])
        self.num_peaks += np.bincount(episodes[is_peak], minlength=num_episodes)
        self._count_rewards(rewards)

    def _count_rewards(self, rewards: np.ndarray) -> None:
        if self.reward_counts is None:
            return
        for value, count in zip(*np.unique(rewards, return_counts=True), strict=True):
            self.reward_counts[float(value)] = self.reward_counts.get(float(value), 0) + int(count)
            if len(self.reward_counts) > MAX_REWARD_VALUES:
                self.reward_counts = None
                return


def read_episodes(folder: str | Path, manifest: Manifest) -> EpisodeFacts:
    """One pass over flags, rewards and places."""
    names = ("episode", "step", "rewards", "terminations", "truncations")
    scan = _Scan(manifest.num_episodes, manifest.columns["rewards"].max[0])
    for table in read_columns(folder, *names):
        scan.add({name: column_values(table, name) for name in names})
    counts = scan.reward_counts
    return EpisodeFacts(
        lengths=scan.lengths,
        returns=scan.returns,
        is_terminated=scan.is_terminated,
        first_rewards=scan.first_rewards,
        last_rewards=scan.last_rewards,
        first_peaks=np.minimum(scan.first_peaks, scan.lengths),
        num_peaks=scan.num_peaks,
        reward_counts=None if counts is None else dict(sorted(counts.items())),
        largest_reward=scan.largest_reward,
    )
