"""Columns that are oddly like another one, and numbers that are oddly unlike their column; rows in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iql_ray.data.inspection.counting import MAX_EXAMPLES, Columns, places
from iql_ray.data.prepared import Manifest

OUTLIER_STDS = 50.0
"""A number this far from its column's mean is a glitch, a placeholder or another unit, hardly a measurement."""
FEW_VALUES = 16
"""A column of no more values than this has no outliers: a rare event may be as rare as it likes."""


@dataclass(frozen=True, kw_only=True)
class Outliers:
    """Numbers of one column further than `OUTLIER_STDS` standard deviations from its mean."""

    column: str
    num_rows: int
    low: float
    high: float
    """The least and the largest of them."""
    examples: tuple[tuple[int, int], ...]


class OutlierCount:
    """Of one column; takes rows in any order."""

    def __init__(self, column: tuple[str, int], mean: float, std: float) -> None:
        self._column, self._mean, self._std = column, mean, std
        self._num_rows, self._low, self._high = 0, np.inf, -np.inf
        self._examples: tuple[tuple[int, int], ...] = ()
        self._values: set[float] = set()

    def add(self, columns: Columns) -> None:
        values = _values(columns, self._column)
        if len(self._values) <= FEW_VALUES:
            self._values.update(np.unique(values)[: FEW_VALUES + 1].tolist())
        is_outlier = np.abs(values - self._mean) > OUTLIER_STDS * self._std
        if is_outlier.any():
            self._num_rows += int(is_outlier.sum())
            self._low = min(self._low, float(values[is_outlier].min()))
            self._high = max(self._high, float(values[is_outlier].max()))
            self._examples += places(columns, is_outlier, MAX_EXAMPLES - len(self._examples))

    def result(self) -> Outliers | None:
        """None where there are none, or where the column has so few values that a rare one is an event."""
        if self._num_rows == 0 or len(self._values) <= FEW_VALUES:
            return None
        return Outliers(
            column=column_name(*self._column),
            num_rows=self._num_rows,
            low=self._low,
            high=self._high,
            examples=self._examples,
        )


def outlier_counts(manifest: Manifest) -> list[OutlierCount]:
    """For the observations and rewards whose range allows for outliers at all."""
    counts: list[OutlierCount] = []
    for name in ("observations", "rewards"):
        facts = manifest.columns[name]
        for index, (mean, std, low, high) in enumerate(zip(facts.mean, facts.std, facts.min, facts.max, strict=True)):
            if std > 0 and max(high - mean, mean - low) > OUTLIER_STDS * std:
                counts.append(OutlierCount((name, index), mean, std))
    return counts


class TwinCheck:
    """Which columns are equal in every row; takes rows in any order."""

    def __init__(self, manifest: Manifest) -> None:
        varying = [
            (name, index)
            for name in ("observations", "actions", "rewards")
            for index, (low, high) in enumerate(
                zip(manifest.columns[name].min, manifest.columns[name].max, strict=True)
            )
            if low < high
        ]
        self._groups: list[list[tuple[str, int]]] = [varying]

    def add(self, columns: Columns) -> None:
        """Take the next rows: what differs in them parts."""
        parted: list[list[tuple[str, int]]] = []
        for group in self._groups:
            by_content: dict[int, list[tuple[str, int]]] = {}
            for column in group:
                by_content.setdefault(hash(_values(columns, column).tobytes()), []).append(column)
            parted += [part for part in by_content.values() if len(part) > 1]
        self._groups = parted

    def result(self) -> tuple[tuple[str, ...], ...]:
        """Groups of equal columns by name."""
        return tuple(tuple(column_name(*column) for column in group) for group in self._groups)


def column_name(name: str, index: int) -> str:
    """`observations[3]`, `rewards`."""
    return name if name == "rewards" else f"{name}[{index}]"


def _values(columns: Columns, column: tuple[str, int]) -> np.ndarray:
    """(rows,) of one column; every column of the schema's numbers is float32."""
    name, index = column
    return columns[name].reshape(len(columns[name]), -1)[:, index]


class EpisodeTwinCheck:
    """Which episodes are the same as an earlier one, by a checksum of their observations and actions; 8 bytes each."""

    def __init__(self, manifest: Manifest) -> None:
        generator = np.random.default_rng(0)
        self._weights = {
            name: generator.uniform(1, 2, len(manifest.columns[name].std)) / _at_least(manifest.columns[name].std)
            for name in ("observations", "actions")
        }
        self._checksums = np.zeros(manifest.num_episodes)

    def add(self, columns: Columns) -> None:
        """Take the next rows; a row counts by its place in the episode, so that an order is part of the sum."""
        place_weights = 1 + np.mod(columns["step"] * 0.6180339887498949, 1)
        values = sum(columns[name] @ weights for name, weights in self._weights.items())
        self._checksums += np.bincount(columns["episode"], values * place_weights, len(self._checksums))

    def result(self, lengths: np.ndarray) -> tuple[tuple[int, int], ...]:
        """Pairs of an episode and an earlier one that it repeats, of at least 2 rows."""
        order = np.lexsort((self._checksums, lengths))
        lengths, sums = lengths[order], self._checksums[order]
        # the same rows add up in another order
        is_same = np.isclose(sums[1:], sums[:-1], rtol=1e-10, atol=1e-9) & (lengths[1:] == lengths[:-1])
        pairs = [sorted((order[index], order[index + 1])) for index in np.flatnonzero(is_same & (lengths[1:] > 1))]
        return tuple((int(later), int(earlier)) for earlier, later in pairs)


def _at_least(stds: tuple[float, ...]) -> np.ndarray:
    """Standard deviations to divide by; a column that does not vary counts as it is."""
    std = np.array(stds)
    return np.where(std > 0, std, 1.0)
