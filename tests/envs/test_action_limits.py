"""Nothing outside the limits is executed, and what was executed is said."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from iql_ray.envs.action_limits import ActionLimits, LimitedActions, Limiter, limited_env
from iql_ray.experience import Spaces

TWO = Spaces(observation_dim=1, action_dim=2, action_low=(-1.0, -2.0), action_high=(1.0, 2.0))
CHOICES = Spaces(observation_dim=1, action_dim=1, num_actions=3)


class RecordingEnv(gymnasium.Env):
    """Keeps the actions it was given; two dimensions, -1 to 1 and -2 to 2."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(np.array([-1, -2], np.float32), np.array([1, 2], np.float32))

    def __init__(self) -> None:
        self.actions: list[list[float]] = []

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self.actions = []
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action.dtype == np.float32
        self.actions.append(action.tolist())
        return np.zeros(1, np.float32), 0.0, False, False, {"success": True}


class SlippingEnv(RecordingEnv):
    """Executes half of what it is told, and says so."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, is_terminated, is_truncated, info = super().step(action)
        return observation, reward, is_terminated, is_truncated, {**info, "executed_action": action / 2}


def executed(limits: ActionLimits, *actions: list[float]) -> list[list[float]]:
    """What the environment got; the same as what the infos say."""
    inner = RecordingEnv()
    environment = LimitedActions(inner, limits)
    environment.reset(seed=0)
    infos = [environment.step(np.array(action, np.float32))[-1] for action in actions]
    assert [info["executed_action"].tolist() for info in infos] == inner.actions
    assert all(info["success"] for info in infos)
    return inner.actions


def test_actions_beyond_the_bounds_are_clipped_to_them():
    limits = ActionLimits(low=(-0.5,), high=(0.25, 1.5))
    assert executed(limits, [-1, -1], [1, 1], [1, 2], [0, 0]) == [[-0.5, -0.5], [0.25, 1], [0.25, 1.5], [0, 0]]


def test_an_action_is_at_most_the_change_away_from_what_was_executed_before():
    #   asked       1       1        1      -1
    #   executed    1 (first)  1     1      0.75, then on from there
    assert executed(ActionLimits(max_change=(0.25,)), [1, 0], [-1, 0], [-1, 0.125], [1, 2]) == [
        [1, 0],
        [0.75, 0],
        [0.5, 0.125],
        [0.75, 0.375],
    ]


def test_each_dimension_may_have_a_change_of_its_own():
    assert executed(ActionLimits(max_change=(0.5, 0.25)), [0, 0], [1, 1]) == [[0, 0], [0.5, 0.25]]


def test_an_episodes_first_action_is_free_within_the_bounds_or_starts_from_rest():
    assert executed(ActionLimits(max_change=(0.25,), high=(0.75,)), [1, 1]) == [[0.75, 0.75]]
    assert executed(ActionLimits(max_change=(0.25,), rest_action=(0.0, 1.0)), [1, 1.5]) == [[0.25, 1.25]]


def test_a_reset_forgets_what_was_executed():
    inner = RecordingEnv()
    environment = LimitedActions(inner, ActionLimits(max_change=(0.25,)))
    for action in ([1.0, 1.0], [-1.0, -1.0]):
        environment.reset(seed=0)
        environment.step(np.array(action, np.float32))
        assert inner.actions == [action]


def test_what_the_environment_says_it_executed_counts():
    environment = LimitedActions(SlippingEnv(), ActionLimits(max_change=(0.25,)))
    environment.reset(seed=0)
    assert environment.step(np.array([1, 1], np.float32))[-1]["executed_action"].tolist() == [0.5, 0.5]
    # Asked for 1, allowed 0.5 + 0.25, of which it executes half.
    assert environment.step(np.array([1, 1], np.float32))[-1]["executed_action"].tolist() == [0.375, 0.375]


def test_equal_limits_hold_a_dimension_still():
    assert executed(ActionLimits(low=(-1, 0.5), high=(1, 0.5)), [1, 1], [-1, -1]) == [[1, 0.5], [-1, 0.5]]


@given(
    st.lists(hnp.arrays(np.float32, 2, elements=st.floats(-10, 10, width=32)), min_size=1, max_size=20),
    st.floats(0.01, 3),
    st.floats(-1, 0),
    st.floats(0, 1),
)
def test_whatever_is_asked_the_limits_hold(actions, max_change, low, high):
    limiter = Limiter(ActionLimits(low=(low,), high=(high,), max_change=(max_change,)), TWO)
    previous = None
    for action in actions:
        now = limiter.executed(action, previous)
        assert (np.float32(low) <= now).all()
        assert (now <= np.float32(high)).all()
        if previous is not None:
            assert (np.abs(now - previous) <= max_change + 1e-6).all()
            reachable = np.clip(limiter.within_bounds(action), previous - max_change, previous + max_change)
            np.testing.assert_allclose(now, reachable, atol=1e-6)
        previous = now


def test_without_limits_actions_pass_through_within_the_environments_bounds():
    assert not ActionLimits()
    assert ActionLimits(high=(0.0,))
    assert executed(ActionLimits(), [1, -2], [3, 0]) == [[1, -2], [1, 0]]


@pytest.mark.parametrize("action", [[np.nan, 0], [0, np.inf], [0, 0, 0], 0.5])
def test_an_action_that_is_none_is_not_executed(action):
    inner = RecordingEnv()
    environment = LimitedActions(inner, ActionLimits(high=(0.5,)))
    environment.reset(seed=0)
    with pytest.raises(ValueError, match=r"'RecordingEnv' was to execute .*, expected 2 finite numbers"):
        environment.step(np.array(action, np.float32))
    assert inner.actions == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": (np.inf,)}, r"low is \(inf,\), expected finite"),
        ({"max_change": (0.1, 0.0)}, r"max_change is \(0.1, 0.0\), expected numbers above 0"),
        ({"rest_action": (0.0,)}, "together with max_change"),
    ],
)
def test_limits_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ActionLimits(**values)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ActionLimits(low=(-1.0, -1.0, -1.0)), "low has 3 numbers, but the arm has 2 action dimensions"),
        (ActionLimits(low=(0.5,), high=(0.25, 1.0)), "low is above high in dimension 0: 0.5 and 0.25"),
        (ActionLimits(low=(-1.5,)), "low is below the environment's in dimension 0: -1.5 and -1; limits can only"),
        (ActionLimits(high=(1.0, 2.5)), "high is above the environment's in dimension 1: 2.5 and 2"),
        (ActionLimits(high=(0.5,), max_change=(1.0,), rest_action=(0.75,)), "rest_action is outside .* 0.75 and 0.5"),
    ],
)
def test_limits_that_do_not_fit_the_environment_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        Limiter(limits, TWO, "the arm")


def test_choices_have_no_limits():
    with pytest.raises(ValueError, match="for continuous actions; the switch has 3 choices"):
        Limiter(ActionLimits(high=(1.0,)), CHOICES, "the switch")


def test_a_limit_equal_to_a_bound_in_float32_fits():
    rounded = float(np.float32(0.7))  # below 0.7
    spaces = Spaces(observation_dim=1, action_dim=1, action_low=(-rounded,), action_high=(rounded,))
    assert Limiter(ActionLimits(low=(-0.7,), high=(0.7,)), spaces).high == np.float32(0.7)


def test_a_maker_of_limited_environments_can_be_sent_to_a_worker():
    maker = functools.partial(limited_env, "Pendulum-v1", ActionLimits(high=(0.5,)), g=9.0)
    environment = pickle.loads(pickle.dumps(maker))()
    environment.reset(seed=0)
    assert environment.step(np.array([2.0], np.float32))[-1]["executed_action"].tolist() == [0.5]
    assert environment.unwrapped.g == 9.0
