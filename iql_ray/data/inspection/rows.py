"""One pass over all columns of the shuffled rows: distributions, actions at bounds, links, outliers, twin columns.

The manifest's ranges are known beforehand, so every histogram has its edges from the start. Memory does not grow with
the rows, but for the 4 bytes a row of `links.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iql_ray.data.inspection.actions import ActionCount, ActionFacts
from iql_ray.data.inspection.behaviour import NUM_ROWS
from iql_ray.data.inspection.columns import EpisodeTwinCheck, Outliers, TwinCheck, outlier_counts
from iql_ray.data.inspection.counting import Histogram, RunningHistogram
from iql_ray.data.inspection.episodes import EpisodeFacts
from iql_ray.data.inspection.links import LinkCheck, Links
from iql_ray.data.packing import column_values
from iql_ray.data.prepared import Manifest, read_columns

COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations", "episode", "step")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A random sample of the rows: the first ones of the shuffled shards."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    episodes: np.ndarray


@dataclass(frozen=True, kw_only=True)
class RowFacts:
    """What the rows show."""

    rewards: Histogram
    actions: ActionFacts
    links: Links
    outliers: tuple[Outliers, ...]
    twins: tuple[tuple[str, ...], ...]
    """Groups of columns that are equal in every row."""
    episode_twins: tuple[tuple[int, int], ...]
    """Episodes with an earlier one that they repeat."""


def read_sample(folder: str | Path) -> Sample:
    """At most `behaviour.NUM_ROWS` rows."""
    pieces: list[list[np.ndarray]] = []
    num_rows = 0
    for table in read_columns(folder, "observations", "actions", "rewards", "episode"):
        piece = table.slice(0, NUM_ROWS - num_rows)
        pieces.append([column_values(piece, name) for name in ("observations", "actions", "rewards", "episode")])
        num_rows += piece.num_rows
        if num_rows >= NUM_ROWS:
            break
    observations, actions, rewards, episodes = map(np.concatenate, zip(*pieces, strict=True))
    return Sample(observations=observations, actions=actions, rewards=rewards, episodes=episodes)


def read_rows(folder: str | Path, manifest: Manifest, episodes: EpisodeFacts, sample: Sample) -> RowFacts:
    """One pass over everything."""
    rewards = RunningHistogram(*shown_range(manifest, sample))
    actions, links = ActionCount(manifest), LinkCheck(manifest, episodes.starts)
    outliers, twins, episode_twins = outlier_counts(manifest), TwinCheck(manifest), EpisodeTwinCheck(manifest)
    for table in read_columns(folder, *COLUMNS):
        columns = {name: column_values(table, name) for name in COLUMNS}
        rewards.add(columns["rewards"])
        for each in (actions, links, twins, episode_twins, *outliers):
            each.add(columns)
    return RowFacts(
        rewards=rewards.result(),
        actions=actions.result(),
        links=links.result(),
        outliers=tuple(found for each in outliers if (found := each.result()) is not None),
        twins=twins.result(),
        episode_twins=episode_twins.result(episodes.lengths),
    )


def shown_range(manifest: Manifest, sample: Sample) -> tuple[float, float]:
    """The rewards that a histogram shows: all of them, unless a few lie so far away that the rest would be one bar."""
    low, high = manifest.columns["rewards"].min[0], manifest.columns["rewards"].max[0]
    inner_low, inner_high = np.quantile(sample.rewards, [0.005, 0.995]).tolist()
    if inner_high > inner_low and high - low > 5 * (inner_high - inner_low):
        room = 0.25 * (inner_high - inner_low)
        return max(low, inner_low - room), min(high, inner_high + room)
    return low, high
