"""The effect of each setting alone: means over the others that a reader can add up."""

from __future__ import annotations

import pytest

from iql_ray.evaluation.setting_effects import effects
from tests.evaluation.search_scores import configuration, evaluated, fitted, grid


def test_a_value_has_the_mean_over_all_others_and_the_best_of_them():
    # 100 expectile - inverse temperature + seed, seeds 0 and 1.
    found = effects(grid((0.5, 0.9), (1, 3), num_seeds=2))
    low, high = found["expectile"]
    assert (low.value, low.mean, low.best) == (0.5, pytest.approx(48.5), pytest.approx(49.5))
    assert (high.value, high.mean, high.best) == (0.9, pytest.approx(88.5), pytest.approx(89.5))
    one, three = found["inverse_temperature"]
    assert (one.mean, three.mean) == (pytest.approx(69.5), pytest.approx(67.5))
    assert (one.num_configurations, one.num_seeds) == (2, 2)


def test_the_interval_is_over_seeds_where_there_are_several():
    # Means of the seeds at expectile 0.5 are 48 and 49; the settings differ by more and do not widen it.
    (low, _) = effects(grid((0.5, 0.9), (1, 3), num_seeds=2))["expectile"]
    assert low.interval == (pytest.approx(48.0), pytest.approx(49.0))
    assert low.interval_over == "seeds"


def test_the_interval_is_over_the_other_settings_else():
    (low, _) = effects(grid((0.5, 0.9), (1, 3)))["expectile"]
    assert low.interval == (pytest.approx(47.0), pytest.approx(49.0))
    assert low.interval_over == "configurations"


def test_a_single_score_has_the_interval_of_its_evaluation():
    (only,) = effects([evaluated(configuration(), [1.0, 3.0])])["expectile"]
    assert (only.interval, only.interval_over) == ((1.0, 3.0), "episodes")


def test_what_was_stopped_does_not_count():
    scores = [*fitted(configuration(0.5), 1), *fitted(configuration(0.9), 99, is_stopped=True)]
    assert [effect.value for effect in effects(scores)["expectile"]] == [0.5]
    assert effects(scores[1:]) == {"expectile": (), "inverse_temperature": ()}


def test_other_settings_have_an_effect_where_they_vary():
    scores = [score for sizes in ((64, 64), (8, 8)) for score in grid((0.7,), (1,), hidden_sizes=sizes, discount=0.9)]
    found = effects(scores)
    assert list(found) == ["expectile", "inverse_temperature", "agent.hidden_sizes"]
    assert [effect.value for effect in found["agent.hidden_sizes"]] == [(8, 8), (64, 64)]
