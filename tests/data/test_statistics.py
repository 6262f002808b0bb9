"""Statistics in pieces are those of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from iql_ray.data.statistics import RunningStatistics, summarize


def test_pieces_give_the_statistics_of_the_whole() -> None:
    statistics = RunningStatistics()
    for piece in ([[1, 10]], [[2, 10], [3, 10]]):
        statistics.add(np.array(piece, np.float32))
    result = statistics.result()
    assert result.mean == (2, 10)
    assert result.std == pytest.approx(((2 / 3) ** 0.5, 0))
    assert (result.min, result.max) == ((1, 10), (3, 10))


def test_merged_statistics_are_those_of_one_that_saw_all() -> None:
    pieces = [np.array(piece, np.float32) for piece in ([[1, 10]], [[2, 10], [3, 10]], [[7, -5]])]
    one, merged = RunningStatistics(), RunningStatistics()
    for piece in pieces:
        other = RunningStatistics()
        other.add(piece)
        merged.merge(other)
        one.add(piece)
    assert merged.result() == one.result()


def test_a_large_mean_does_not_swallow_a_small_spread() -> None:
    statistics = RunningStatistics()
    values = 2.0**20 + np.tile(np.array([0, 0.125], np.float32), 1000)
    for piece in np.split(values, 10):
        statistics.add(piece)
    assert statistics.result().std == (0.0625,)


def test_episodes_are_summarised_with_quantiles() -> None:
    summary = summarize(np.arange(101.0))
    assert (summary.mean, summary.min, summary.max) == (50, 0, 100)
    assert summary.quantiles == (5, 25, 50, 75, 95)
