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
        values = np.ascontiguousarray(piece).reshape(len(piece), -1).T.astype(np.float64, order="C")
        of_piece = RunningStatistics()
        of_piece.num_rows, of_piece._mean = len(piece), values.mean(axis=1)
        of_piece._min, of_piece._max = values.min(axis=1), values.max(axis=1)
        values -= of_piece._mean[:, None]
        of_piece._squares = np.einsum("ij,ij->i", values, values)
        self.merge(of_piece)

    def merge(self, later: RunningStatistics) -> None:
        """Take what another saw of the rows that come after."""
        if self.num_rows == 0:
            self._mean, self._squares, self._min, self._max = later._mean, later._squares, later._min, later._max
        else:
            total, shift = self.num_rows + later.num_rows, later._mean - self._mean
            self._mean = self._mean + shift * (later.num_rows / total)
            self._squares = self._squares + later._squares + shift**2 * (self.num_rows * later.num_rows / total)
            self._min, self._max = np.minimum(self._min, later._min), np.maximum(self._max, later._max)
        self.num_rows += later.num_rows

    def result(self) -> ColumnStatistics:
        """The statistics of everything so far, at least one row."""
        return ColumnStatistics(
            mean=tuple(self._mean.tolist()),
            std=tuple(np.sqrt(self._squares / self.num_rows).tolist()),
            min=tuple(self._min.tolist()),
            max=tuple(self._max.tolist()),
        )
