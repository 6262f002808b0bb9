"""Statistics of episodes: by hand where a hand suffices, by coverage where chance decides."""

from __future__ import annotations

import json

import numpy as np
import pytest

from iql_ray.evaluation.statistics import (
    bootstrap_interval,
    hierarchical_interval,
    improvement,
    interquartile_mean,
    summarize,
)
from iql_ray.experience import EpisodeResult


def episodes(*returns: float, successes: tuple[bool | None, ...] = ()) -> list[EpisodeResult]:
    successes = successes or (None,) * len(returns)
    return [
        EpisodeResult(seed=seed, episode_return=value, length=10 * (seed + 1), is_success=is_success)
        for seed, (value, is_success) in enumerate(zip(returns, successes, strict=True))
    ]


def test_the_interquartile_mean_of_eight_values_is_the_mean_of_the_middle_four():
    assert interquartile_mean([1000, 3, 4, 1, 5, 6, 2, -1000]) == pytest.approx((2 + 3 + 4 + 5) / 4)


def test_the_interquartile_mean_of_rows_and_columns_is_of_all_values():
    assert interquartile_mean([[1, 2, 3, 4], [5, 6, 7, 100]]) == pytest.approx((3 + 4 + 5 + 6) / 4)
    np.testing.assert_allclose(interquartile_mean([[1, 2, 3, 4], [5, 6, 7, 100]], axis=1), [2.5, 6.5])


def test_the_interval_contains_the_mean_and_shrinks_with_more_values():
    values = np.random.default_rng(0).normal(5.0, 2.0, size=400)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    few_low, few_high = bootstrap_interval(values[:25])
    assert few_high - few_low > 2 * (high - low)


def test_the_interval_of_equal_values_is_a_point():
    assert bootstrap_interval([3.0, 3.0, 3.0]) == (3.0, 3.0)


def test_ninety_five_percent_of_intervals_cover_the_true_mean():
    generator = np.random.default_rng(0)
    intervals = [bootstrap_interval(generator.normal(size=50), num_resamples=500) for _ in range(400)]
    assert 0.91 < np.mean([low < 0 < high for low, high in intervals]) < 0.98


def test_a_wider_confidence_is_a_wider_interval():
    values = np.arange(30.0)
    low, high = bootstrap_interval(values, confidence=0.5)
    wide_low, wide_high = bootstrap_interval(values, confidence=0.99)
    assert wide_low < low < high < wide_high


def test_strata_are_resampled_by_themselves():
    # Two seeds, each certain of its own value: nothing is left to chance, though the pooled values vary.
    assert bootstrap_interval([[0.0, 0.0, 0.0], [10.0, 10.0, 10.0]]) == (5.0, 5.0)
    low, high = bootstrap_interval([0.0, 0.0, 0.0, 10.0, 10.0, 10.0])
    assert low < 5.0 < high


def test_the_interval_takes_other_statistics():
    values = np.arange(100.0)
    low, high = bootstrap_interval(values, interquartile_mean)
    assert low < interquartile_mean(values) < high


def test_one_seed_gives_one_interval():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_groups_are_drawn_as_well_as_what_is_in_them():
    # Each seed is certain of its own value, yet a third seed may be like either.
    assert hierarchical_interval([[0.0, 0.0, 0.0], [10.0, 10.0]]) == (0.0, 10.0)
    low, high = hierarchical_interval([[0.0, 10.0] * 50, [0.0, 10.0] * 50])
    assert 0.0 < low < 5.0 < high < 10.0


def test_one_value_for_each_group_is_the_plain_bootstrap():
    values = np.random.default_rng(0).normal(size=40)
    np.testing.assert_allclose(hierarchical_interval(list(values)), bootstrap_interval(values), atol=0.05)


def test_ninety_five_percent_of_hierarchical_intervals_cover_the_mean_of_all_seeds():
    generator = np.random.default_rng(0)
    seeds = generator.normal(size=(200, 30, 1)) + generator.normal(size=(200, 30, 5))
    intervals = [hierarchical_interval(list(groups), num_resamples=300) for groups in seeds]
    assert 0.91 < np.mean([low < 0 < high for low, high in intervals]) <= 0.995


def test_improvement_counts_pairs_and_halves_ties():
    # Pairs: 3 > 1, 3 > 2, 3 = 3, 2 > 1, 2 = 2, 2 < 3: three won and two tied of six.
    found = improvement([3.0, 2.0], [1.0, 2.0, 3.0])
    assert found.probability == pytest.approx((3 + 2 / 2) / 6)
    assert 0.0 <= found.low < found.probability < found.high <= 1.0


@pytest.mark.parametrize(("num_values", "p_value"), [(1, 1 / 2), (2, 1 / 6), (3, 1 / 20), (4, 1 / 70)])
def test_the_rank_test_counts_the_orders_that_would_look_as_good(num_values, p_value):
    worse = np.arange(float(num_values))
    found = improvement(worse + 100, worse)
    assert found[:3] == (1.0, 1.0, 1.0)
    assert found.p_value == pytest.approx(p_value)


def test_equal_sides_are_no_improvement():
    assert improvement([1.0, 1.0], [1.0, 1.0]) == (0.5, 0.5, 0.5, 1.0)


def test_nothing_cannot_be_compared():
    for first, second in (([], [1.0]), ([1.0], [])):
        with pytest.raises(ValueError, match="at least one value"):
            improvement(first, second)
    with pytest.raises(ValueError, match="at least one value"):
        hierarchical_interval([])


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "at least one value"), ([1.0, float("nan")], "got 1 that are not"), ([float("inf")], "finite values")],
)
def test_empty_and_infinite_values_are_refused(values, message):
    for statistic in (interquartile_mean, bootstrap_interval):
        with pytest.raises(ValueError, match=message):
            statistic(values)
    with pytest.raises(ValueError, match=message):
        summarize(episodes(*values), "Pendulum-v1")


def test_a_confidence_of_one_is_refused():
    with pytest.raises(ValueError, match=r"confidence is 1\.0"):
        bootstrap_interval([1.0], confidence=1.0)


def test_a_summary_by_hand():
    summary = summarize(episodes(-1.0, 0.0, 2.0, 7.0), "Pendulum-v1")
    low, high = summary.pop("return_ci")
    assert -1.0 <= low < 2.0 < high <= 7.0
    assert summary == {
        "return_mean": 2.0,
        "return_std": pytest.approx(np.sqrt((9 + 4 + 0 + 25) / 4)),
        "return_iqm": 1.0,
        "episode_length_mean": 25.0,
        "num_episodes": 4,
    }


def test_a_summary_is_plain_json():
    summary = summarize(episodes(1.0, 2.0, successes=(True, False)), "Hopper-v5")
    assert json.loads(json.dumps(summary)) == summary


def test_the_expert_return_scores_one_hundred():
    assert summarize(episodes(3234.3, 3234.3), "Hopper-v5")["normalized_score"] == pytest.approx(100.0)


def test_success_is_counted_out_of_all_episodes_once_any_reports_it():
    assert summarize(episodes(0, 0, 0, 0, successes=(True, False, None, None)), "E")["success_rate"] == 0.25
    assert "success_rate" not in summarize(episodes(0, 0), "E")
