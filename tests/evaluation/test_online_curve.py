"""The statistics of a fine-tuning curve, each checked on a curve that can be worked out by hand."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iql_ray.evaluation.online_curve import (
    OnlineCurve,
    curve_over_seeds,
    online_curve,
    summarize_online,
    summarize_over_seeds,
)
from iql_ray.evaluation.statistics import interquartile_mean, summarize
from iql_ray.experience import EpisodeResult


def curve(*scores: float, every: int = 1000) -> OnlineCurve:
    """Evaluated every 1,000 steps, each interval one to both sides."""
    return OnlineCurve(
        num_env_steps=tuple(every * index for index in range(len(scores))),
        scores=scores,
        lower=tuple(score - 1 for score in scores),
        upper=tuple(score + 1 for score in scores),
    )


def test_a_drop_is_measured_from_the_offline_score_to_the_lowest_before_it_is_back():
    summary = summarize_online(curve(100, 80, 60, 70, 100, 120, 110))
    assert (summary.offline, summary.final, summary.gain) == (100, 110, 10)
    assert (summary.best, summary.best_after) == (120, 5000)
    assert (summary.drop, summary.drop_after, summary.recovered_after) == (40, 2000, 4000)
    assert summary.num_env_steps == 6000


def test_a_score_that_is_never_below_has_no_drop():
    summary = summarize_online(curve(100, 100, 130))
    assert (summary.drop, summary.drop_after, summary.recovered_after) == (0, None, 0)


def test_a_score_that_never_comes_back_has_not_recovered():
    summary = summarize_online(curve(100, 90, 70, 99))
    assert (summary.drop, summary.drop_after, summary.recovered_after) == (30, 2000, None)


def test_only_the_first_stretch_below_is_the_drop():
    summary = summarize_online(curve(100, 105, 95, 101, 20, 150))
    assert (summary.drop, summary.drop_after, summary.recovered_after) == (5, 2000, 3000)


def test_regret_is_the_area_under_the_best_by_trapezoids():
    # Below 100: 100 -> 0 is 50 on average, 0 -> 100 as well, and nothing in the last third.
    assert summarize_online(curve(0, 0, 100, 100)).regret == pytest.approx((100 + 50 + 0) / 3)
    # Evaluations that stand apart weigh by the steps between: 50 over 1,000 steps, then 0 over 3,000.
    uneven = OnlineCurve(num_env_steps=(0, 1000, 4000), scores=(0, 100, 100), lower=(0,) * 3, upper=(100,) * 3)
    assert summarize_online(uneven).regret == pytest.approx(50 / 4)


def test_the_offline_policy_alone_regrets_nothing():
    summary = summarize_online(curve(7))
    assert (summary.gain, summary.regret, summary.drop, summary.num_env_steps) == (0, 0, 0, 0)


def test_normalized_regret_is_the_distance_from_an_expert():
    half = OnlineCurve(
        num_env_steps=(0, 10), scores=(1, 2), lower=(1, 2), upper=(1, 2), normalized_scores=(50.0, 100.0)
    )
    assert summarize_online(half).normalized_regret == pytest.approx(0.25)
    assert summarize_online(curve(1, 2)).normalized_regret is None


def evaluation(num_env_steps: int, *returns: float, environment_id: str = "Hopper-v5") -> dict:
    results = [EpisodeResult(seed=0, episode_return=value, length=1) for value in returns]
    return {"num_env_steps": num_env_steps, "num_updates": 5, **summarize(results, environment_id)}


def test_a_curve_is_read_from_evaluations_in_any_order_the_later_one_counts():
    lines = [evaluation(2000, 30.0), evaluation(0, 10.0, 20.0), evaluation(1000, 1.0), evaluation(1000, 2.0)]
    found = online_curve(lines)
    assert found.num_env_steps == (0, 1000, 2000)
    assert found.scores == (15.0, 2.0, 30.0)
    assert (found.lower[0], found.upper[0]) == (10.0, 20.0)
    assert found.normalized_scores == tuple(lines[index]["normalized_score"] for index in (1, 3, 0))
    assert online_curve([evaluation(0, 1.0, environment_id="Pendulum-v1")]).normalized_scores == ()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "got no evaluation"),
        ([evaluation(1000, 1.0)], "offline policy's evaluation at 0 environment steps, got 1000"),
        ([{"num_updates": 3, "return_mean": 1.0}], "lacks num_env_steps"),
    ],
)
def test_evaluations_that_make_no_curve_are_refused(lines, message):
    with pytest.raises(ValueError, match=message):
        online_curve(lines)


@pytest.mark.parametrize("steps", [(0, 5, 5), (0, 6, 5)])
def test_steps_that_do_not_ascend_are_refused(steps):
    with pytest.raises(ValueError, match="must ascend"):
        OnlineCurve(num_env_steps=steps, scores=(1,) * 3, lower=(1,) * 3, upper=(1,) * 3)


def test_several_seeds_are_one_curve_of_interquartile_means():
    # Of four, the middle two: (20 + 30) / 2.
    together = curve_over_seeds([curve(0, value) for value in (0, 20, 30, 1000)])
    assert together.scores == (0.0, 25.0)
    assert together.lower[1] <= 25 <= together.upper[1]
    assert (together.lower[0], together.upper[0]) == (0.0, 0.0)


def test_seeds_evaluated_at_other_steps_meet_on_straight_lines():
    together = curve_over_seeds([curve(0, 10, 20), curve(0, 40, every=2000), curve(0, 5, 10, 99)])
    assert together.num_env_steps == (0, 1000, 2000)
    # Three values: none is cut. (10 + 20 + 5) / 3, then (20 + 40 + 10) / 3.
    assert together.scores == pytest.approx((0, 35 / 3, 70 / 3))


def test_normalized_scores_of_seeds_are_joined_too():
    both = [online_curve([evaluation(0, value), evaluation(10, 2 * value)]) for value in (100.0, 300.0)]
    together = curve_over_seeds(both)
    expected = online_curve([evaluation(0, 200.0), evaluation(10, 400.0)])
    assert together.normalized_scores == pytest.approx(expected.normalized_scores)
    assert curve_over_seeds([both[0], curve(1, 2)]).normalized_scores == ()


def test_drops_at_different_times_do_not_cancel_over_seeds():
    early, late = curve(100, 50, 150, 150), curve(100, 150, 50, 150)
    found = summarize_over_seeds([early, late])
    assert found["drop"]["iqm"] == 50
    assert found["recovered_after"] == 3000
    assert summarize_online(curve_over_seeds([early, late])).drop == 0
    json.dumps(found, allow_nan=False)


def test_the_median_seed_may_never_come_back():
    back, lost = curve(10, 5, 10), curve(10, 5, 6)
    assert summarize_over_seeds([back, back, lost])["recovered_after"] == 2000
    found = summarize_over_seeds([back, lost, lost])
    assert (found["num_recovered"], found["recovered_after"]) == (1, None)
    # Of an even number the later of the middle two: half of them is not most of them.
    assert summarize_over_seeds([back, lost])["recovered_after"] is None


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=12))
def test_statistics_agree_with_each_other_on_any_curve(scores):
    summary = summarize_online(curve(*scores))
    assert summary.drop >= 0
    assert (summary.drop == 0) == (min(scores) == scores[0]) == (summary.drop_after is None)
    assert -1e-9 <= summary.regret <= summary.best - min(scores) + 1e-9
    if summary.drop_after is not None and summary.recovered_after is not None:
        assert scores[summary.recovered_after // 1000] >= summary.offline
        assert summary.drop_after < summary.recovered_after
    # Moving every score by the same amount moves no difference.
    moved = asdict(summarize_online(curve(*(score + 64 for score in scores))))
    assert moved["regret"] == pytest.approx(summary.regret, abs=1e-6)
    assert moved["drop"] == pytest.approx(summary.drop, abs=1e-6)


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), min_size=1, max_size=6))
def test_seeds_of_equal_steps_are_averaged_as_they_are(rows):
    together = curve_over_seeds([curve(*row) for row in rows])
    np.testing.assert_allclose(together.scores, interquartile_mean(np.array(rows), axis=0), atol=1e-9)


@pytest.mark.parametrize("function", [curve_over_seeds, summarize_over_seeds])
def test_no_seed_is_refused(function):
    with pytest.raises(ValueError, match="at least one fine-tuning curve"):
        function([])
