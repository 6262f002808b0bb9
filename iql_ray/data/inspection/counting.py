"""Counts of rows that pass by in any order: histograms, and the places of the first few that are wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_BINS = 60
MAX_EXAMPLES = 5

Columns = dict[str, np.ndarray]
"""The transition schema's columns of some rows by name, (rows,) or (rows, dim)."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts between edges; what lies outside the edges is counted apart."""

    edges: np.ndarray
    counts: np.ndarray
    num_outside: int


class RunningHistogram:
    """Counts values that pass by."""

    def __init__(self, low: float, high: float, num_bins: int = NUM_BINS) -> None:
        if not low < high:
            low, high = low - 0.5, high + 0.5
        self._edges = np.linspace(low, high, num_bins + 1)
        self._counts = np.zeros(num_bins, np.int64)
        self._num_values = 0

    def add(self, values: np.ndarray) -> None:
        """Take (rows,)."""
        self._counts += np.histogram(values, self._edges)[0]
        self._num_values += len(values)

    def result(self) -> Histogram:
        return Histogram(edges=self._edges, counts=self._counts, num_outside=self._num_values - int(self._counts.sum()))


def places(columns: Columns, is_wanted: np.ndarray, count: int = MAX_EXAMPLES) -> tuple[tuple[int, int], ...]:
    """(episode, step) of the first `count` rows that are wanted."""
    rows = np.flatnonzero(is_wanted)[: max(count, 0)]
    return tuple(zip(columns["episode"][rows].tolist(), columns["step"][rows].tolist(), strict=True))
