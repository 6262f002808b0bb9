"""Whether each row's next observation is the observation of the row after it, in shuffled rows and one number a row.

Every observation is projected on one direction, and each row's place in the order of episodes and steps gets

    projection of its own observation  -  projection of the next observation of the row before it

which is 0 where the one follows from the other, and else about how many standard deviations lie between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iql_ray.data.inspection.counting import MAX_EXAMPLES, Columns
from iql_ray.data.prepared import Manifest

TOLERANCE = 1e-3
"""In standard deviations: nearer ones are the same observation in another precision."""


@dataclass(frozen=True, kw_only=True)
class Links:
    """How many of the pairs of rows, one after the other in an episode, do not fit together."""

    num_pairs: int
    num_broken: int
    typical_gap: float
    """Median over the broken ones, in standard deviations of the observations."""
    examples: tuple[tuple[int, int], ...]
    """(episode, step) of rows whose next observation is not the next row's."""


class LinkCheck:
    """Takes rows in any order; 4 bytes a row of the dataset."""

    def __init__(self, manifest: Manifest, starts: np.ndarray) -> None:
        columns = manifest.columns["observations"]
        std = np.array(columns.std)
        self._mean, self._scale = np.array(columns.mean), np.where(std > 0, std, 1.0)
        # no two weights alike, and none near 0: changes of several elements do not cancel, of one do not vanish
        generator = np.random.default_rng(0)
        self._weights = generator.uniform(1, 2, len(std)) * generator.choice([-1, 1], len(std))
        self._starts = starts
        self._gaps = np.zeros(int(starts[-1]), np.float32)

    def add(self, columns: Columns) -> None:
        """Take the next rows."""
        places = self._starts[columns["episode"]] + columns["step"]
        self._gaps[places] += self._project(columns["observations"])
        has_next = places + 1 < self._starts[columns["episode"] + 1]
        self._gaps[places[has_next] + 1] -= self._project(columns["next_observations"][has_next])

    def _project(self, observations: np.ndarray) -> np.ndarray:
        return ((observations - self._mean) / self._scale * self._weights).sum(axis=1).astype(np.float32)

    def result(self) -> Links:
        """Of all rows."""
        is_first = np.zeros(len(self._gaps), bool)
        is_first[self._starts[:-1][np.diff(self._starts) > 0]] = True
        gaps = np.where(is_first, 0, np.abs(self._gaps))
        broken = np.flatnonzero(gaps > TOLERANCE)
        rows = broken[:MAX_EXAMPLES] - 1
        episodes = np.searchsorted(self._starts, rows, side="right") - 1
        return Links(
            num_pairs=int(len(gaps) - is_first.sum()),
            num_broken=len(broken),
            typical_gap=float(np.median(gaps[broken])) if len(broken) else 0.0,
            examples=tuple(zip(episodes.tolist(), (rows - self._starts[episodes]).tolist(), strict=True)),
        )
