"""Means, spreads and ranges of columns that pass by in pieces, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, kw_only=True)
class ColumnStatistics:
    """Per element of a column, over all transitions; the standard deviation divides by the number of rows."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One number per episode, summarised."""

    mean: float
    std: float
    min: float
    max: float
    quantiles: tuple[float, ...]
    """At 5, 25, 50, 75 and 95 percent."""


def summarize(values: np.ndarray) -> Summary:
    """Summarise (episodes,) numbers."""
    return Summary(
        mean=float(values.mean()),
        std=float(values.std()),
        min=float(values.min()),
        max=float(values.max()),
        quantiles=tuple(float(value) for value in np.quantile(values, QUANTILES)),
    )


class RunningStatistics:
    """Pieces of one column, merged by the parallel variance formula of Chan, Golub and LeVeque (1979)."""

    def __init__(self) -> None:
        self.num_rows = 0

    def add(self, piece: np.ndarray) -> None:
        """Take (rows,) or (rows, dim)."""
        values = piece.reshape(len(piece), -1).astype(np.float64)
        mean, low, high = values.mean(axis=0), values.min(axis=0), values.max(axis=0)
        squares = np.square(values - mean).sum(axis=0)
        if self.num_rows == 0:
            self._mean, self._squares, self._min, self._max = mean, squares, low, high
        else:
            total, shift = self.num_rows + len(piece), mean - self._mean
            self._mean = self._mean + shift * (len(piece) / total)
            self._squares = self._squares + squares + shift**2 * (self.num_rows * len(piece) / total)
            self._min, self._max = np.minimum(self._min, low), np.maximum(self._max, high)
        self.num_rows += len(piece)

    def result(self) -> ColumnStatistics:
        """The statistics of everything so far, at least one row."""
        return ColumnStatistics(
            mean=tuple(self._mean.tolist()),
            std=tuple(np.sqrt(self._squares / self.num_rows).tolist()),
            min=tuple(self._min.tolist()),
            max=tuple(self._max.tolist()),
        )
