"""The check of actions counts what the wrapper would do, and sends nothing anywhere."""

from __future__ import annotations

import json
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st

from iql_ray.envs.action_limits import ActionLimits, LimitedActions
from iql_ray.evaluation.action_check import QUANTILES, action_table, check_actions
from iql_ray.policy import Policy, PolicyDescription
from tests.evaluation.toys import balancing_policy, random_policy


def echoing_policy(log_std: float = -5.0) -> Policy:
    """Acts tanh(observation) in two dimensions, each from -1 to 1: a test says which actions by atanh."""
    description = PolicyDescription(
        observation_dim=2,
        num_hidden_layers=0,
        action_low=(-1.0, -1.0),
        action_high=(1.0, 1.0),
        log_std_min=-5.0,
        log_std_max=2.0,
    )
    weights = {
        "mean.weight": np.eye(2, dtype=np.float32),
        "mean.bias": np.zeros(2, np.float32),
        "log_std": np.full(2, log_std, np.float32),
    }
    return Policy(weights, description)


def asking(*actions: list[float]) -> np.ndarray:
    """Observations on which the policy above takes these actions."""
    return np.arctanh(np.array(actions))


def mean_dimensions(limits: ActionLimits | None, *episodes: np.ndarray) -> list[dict[str, Any]]:
    return check_actions(echoing_policy(), episodes, limits)["mean"]["dimensions"]


def test_actions_outside_the_limits_are_counted_in_each_dimension():
    first, second = mean_dimensions(ActionLimits(high=(0.5,)), asking([0.75, 0.25], [0.9, 0.75], [0.25, 0], [0, 0]))
    assert (first["bounds_clipped_share"], second["bounds_clipped_share"]) == (0.5, 0.25)
    assert first["bounds_most"] == pytest.approx(0.4, abs=1e-6)
    assert second["bounds_most"] == pytest.approx(0.25, abs=1e-6)
    assert (first["rate_clipped_share"], first["rate_most"]) == (0, 0)


def test_too_fast_is_measured_from_what_was_executed():
    # asked     0    0.5    0.5    0     0.25 is allowed a step
    # executed  0    0.25   0.5    0.25  two of four are held back, by a quarter each
    first, second = mean_dimensions(ActionLimits(max_change=(0.25,)), asking([0, 0], [0.5, 0], [0.5, 0], [0, 0]))
    assert first["rate_clipped_share"] == 0.5
    assert first["rate_most"] == pytest.approx(0.25, abs=1e-6)
    assert first["largest_change"] == pytest.approx(0.5, abs=1e-6)
    assert (second["rate_clipped_share"], second["largest_change"]) == (0, 0)


def test_an_episode_begins_anew():
    limits = ActionLimits(max_change=(0.25,))
    first, _ = mean_dimensions(limits, asking([0.75, 0]), asking([-0.75, 0], [-0.5, 0]), np.empty((0, 2)))
    assert first["rate_clipped_share"] == 0
    assert first["largest_change"] == pytest.approx(0.25, abs=1e-6)


def test_quantiles_are_of_the_actions_asked_for():
    first, _ = mean_dimensions(ActionLimits(high=(0.125,)), asking(*([value / 10, 0] for value in range(-9, 10))))
    expected = np.quantile(np.arange(-9, 10) / 10, QUANTILES)
    np.testing.assert_allclose(first["quantiles"], expected, atol=1e-6)


def test_without_limits_it_says_how_often_the_policy_is_at_the_environments_bounds():
    first, second = mean_dimensions(None, np.array([[9.0, 0.0], [-9.0, 0.0], [0.0, 1.0], [1.0, 2.0]]))
    assert (first["saturated_share"], second["saturated_share"]) == (0.5, 0)
    assert first["bounds_clipped_share"] == first["rate_clipped_share"] == 0


def test_exploration_is_more_than_the_mean_and_follows_from_the_seed():
    policy, episode = echoing_policy(log_std=-1.0), asking(*[[0.0, 0.0]] * 200)
    limits = ActionLimits(low=(-0.5,), high=(0.5,))
    found = check_actions(policy, [episode], limits, seed=3)
    assert found["mean"]["clipped_share"] == 0
    # Outside of +-0.5 at a standard deviation of 0.368 in either of two dimensions: 1 - (1 - 0.174)^2.
    assert found["exploring"]["clipped_share"] == pytest.approx(0.318, abs=0.1)
    assert check_actions(policy, [episode], limits, seed=3) == found
    assert check_actions(policy, [episode], limits, seed=4) != found
    assert check_actions(policy, [episode], limits, temperature=0.0)["exploring"] == found["mean"]


class FollowingEnv(gymnasium.Env):
    """Shows logged observations, whatever is done."""

    observation_space = Box(-np.inf, np.inf, (2,))
    action_space = Box(-1, 1, (2,))

    def __init__(self, log: np.ndarray) -> None:
        self._log = log

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._step = 0
        return self._log[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step += 1
        return self._log[self._step % len(self._log)], 0.0, False, False, {}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 99), st.floats(0.02, 1), st.floats(0, 1))
def test_it_counts_what_the_wrapper_does(lengths, seed, max_change, high):
    generator, policy = np.random.default_rng(seed), echoing_policy()
    episodes = [generator.normal(size=(length, 2)).astype(np.float32) for length in lengths]
    limits = ActionLimits(high=(high,), max_change=(max_change,))
    num_changed = 0
    for episode in episodes:
        environment = LimitedActions(FollowingEnv(episode), limits)
        environment.reset()
        for action in policy.act(episode):
            info = environment.step(action)[-1]
            num_changed += int((info["executed_action"] != action).any())
    found = check_actions(policy, episodes, limits)
    assert found["mean"]["clipped_share"] == pytest.approx(num_changed / sum(lengths))
    json.dumps(found, allow_nan=False)


def test_the_table_is_short_and_says_the_same():
    limits = ActionLimits(high=(0.5,), max_change=(0.25,))
    check = check_actions(echoing_policy(), [asking([0, 0], [0.75, 0], [0.75, 0], [0.75, 0])], limits)
    head, titles, first, second, everything, *exploring = action_table(check).splitlines()
    assert head == "4 actions on logged observations of 1 episodes; nothing was sent to an environment"
    assert titles.split()[:4] == ["dim", "lowest", "middle", "highest"]
    assert " ".join(first.split()) == "mean 0 0 0.75 0.75 0.0% 75.0% by 0.25 25.0% by 0.25 0.75"
    assert " ".join(second.split()) == "mean 1 0 0 0 0.0% none none 0"
    assert " ".join(everything.split()) == "mean all 75.0% of the actions would be changed"
    assert len(exploring) == 3
    assert max(map(len, (head, titles, first))) <= 110


def test_of_many_dimensions_the_table_shows_those_that_are_changed_most():
    policy = random_policy(observation_dim=3, action_dim=28)
    limits = ActionLimits(low=(-1.0,) * 28, high=(1.0,) * 5 + (-0.9,) + (1.0,) * 22)
    table = action_table(check_actions(policy, [np.zeros((4, 3))], limits))
    assert len(table.splitlines()) == 2 + 2 * (8 + 2)
    assert "mean         5 " in table
    assert "and 20 dimensions that limits change less" in table


@pytest.mark.parametrize(
    ("policy", "episodes", "limits", "message"),
    [
        (balancing_policy(), [np.zeros((3, 4))], ActionLimits(), "for continuous actions"),
        (echoing_policy(), [], ActionLimits(), "needs logged observations, got none"),
        (echoing_policy(), [np.empty((0, 2))], ActionLimits(), "needs logged observations, got none"),
        (echoing_policy(), [np.zeros((3, 2))], ActionLimits(high=(2.0,)), "of the policy: high is above"),
        (echoing_policy(), [np.zeros((3, 5))], ActionLimits(), "observations have shape"),
    ],
)
def test_what_cannot_be_checked_is_refused(policy, episodes, limits, message):
    with pytest.raises(ValueError, match=message):
        check_actions(policy, episodes, limits)
