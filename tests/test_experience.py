"""The shared words refuse what cannot be: bounds that do not fit, discrete actions with a box."""

from __future__ import annotations

import dataclasses

import pytest

from iql_ray.experience import EpisodeResult, Spaces


def test_box_spaces_are_continuous():
    spaces = Spaces(observation_dim=3, action_dim=2, action_low=(-1.0, -2.0), action_high=(1.0, 2.0))
    assert not spaces.is_discrete


def test_a_number_of_actions_makes_spaces_discrete():
    assert Spaces(observation_dim=4, action_dim=1, num_actions=2).is_discrete


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ((-1.0,), (1.0,), "need 2 numbers each"),
        ((-1.0, -1.0), (1.0,), "need 2 numbers each"),
        ((), (), "need 2 numbers each"),
        ((-1.0, 1.0), (1.0, 1.0), "below its upper bound"),
        ((-1.0, float("nan")), (1.0, 1.0), "below its upper bound"),
    ],
)
def test_bounds_that_do_not_fit_two_actions_are_refused(low, high, message):
    with pytest.raises(ValueError, match=message):
        Spaces(observation_dim=3, action_dim=2, action_low=low, action_high=high)


@pytest.mark.parametrize("changes", [{"action_dim": 2}, {"action_low": (0.0,), "action_high": (1.0,)}])
def test_discrete_actions_are_one_index_without_bounds(changes):
    with pytest.raises(ValueError, match="one index without bounds"):
        Spaces(**{"observation_dim": 4, "action_dim": 1, "num_actions": 2, **changes})


def test_an_environment_that_reports_no_success_leaves_it_unknown():
    assert EpisodeResult(seed=0, episode_return=1.5, length=10).is_success is None


def test_results_cannot_be_changed_after_the_fact():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EpisodeResult(seed=0, episode_return=1.5, length=10).episode_return = 2.0  # pyright: ignore
