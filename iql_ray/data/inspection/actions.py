"""How logged actions lie in their box, or which choices were taken; counted over rows in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iql_ray.data.inspection.counting import MAX_EXAMPLES, Columns, Histogram, RunningHistogram, places
from iql_ray.data.prepared import Manifest

NEAR_BOUND = 0.01
"""Share of the box's width within which an action counts as at its bound."""


@dataclass(frozen=True, kw_only=True)
class ActionFacts:
    """How the actions lie in their box, or how often each choice was taken."""

    histograms: tuple[Histogram, ...]
    """Of each dimension; empty where actions are discrete."""
    at_low: np.ndarray
    at_high: np.ndarray
    """(action_dim,) shares of the rows at or within 1% of the bound."""
    num_outside: int
    """Rows with an action beyond a bound."""
    outside_examples: tuple[tuple[int, int], ...]
    choice_counts: np.ndarray
    """(num_actions,) how often each choice was taken; empty in a box."""


class ActionCount:
    """Takes rows in any order."""

    def __init__(self, manifest: Manifest) -> None:
        spaces, self._num_rows = manifest.spaces, 0
        self._low, self._high = np.array(spaces.action_low), np.array(spaces.action_high)
        self._histograms = [RunningHistogram(*box) for box in zip(spaces.action_low, spaces.action_high, strict=True)]
        self._at_low, self._at_high = np.zeros((2, len(self._low)))
        self._choices = np.zeros(spaces.num_actions or 0, np.int64)
        self._num_outside = 0
        self._examples: list[tuple[int, int]] = []

    def add(self, columns: Columns) -> None:
        actions = columns["actions"]
        self._num_rows += len(actions)
        if len(self._choices):
            index = actions[:, 0].astype(np.int64)
            is_choice = (index >= 0) & (index < len(self._choices))
            self._choices += np.bincount(index[is_choice], minlength=len(self._choices))
            self._count_outside(~is_choice, columns)
            return
        margin = NEAR_BOUND * (self._high - self._low)
        self._at_low += (actions <= self._low + margin).sum(axis=0)
        self._at_high += (actions >= self._high - margin).sum(axis=0)
        noise = 1e-4 * margin  # bounds such as 0.1 are float64, the actions float32
        is_outside = (actions < self._low - noise) | (actions > self._high + noise)
        self._count_outside(np.any(is_outside, axis=1), columns)
        for histogram, values in zip(self._histograms, actions.T, strict=True):
            histogram.add(values)

    def _count_outside(self, is_outside: np.ndarray, columns: Columns) -> None:
        self._num_outside += int(is_outside.sum())
        self._examples += places(columns, is_outside, MAX_EXAMPLES - len(self._examples))

    def result(self) -> ActionFacts:
        return ActionFacts(
            histograms=tuple(each.result() for each in self._histograms),
            at_low=self._at_low / self._num_rows,
            at_high=self._at_high / self._num_rows,
            num_outside=self._num_outside,
            outside_examples=tuple(self._examples),
            choice_counts=self._choices,
        )
