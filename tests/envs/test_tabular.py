"""Exact solutions: chains that a reader solves by hand, and what must hold of every expectile."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from iql_ray.envs.maze_map import maze_map, tabular_model
from iql_ray.envs.tabular import (
    TabularModel,
    action_values,
    advantage_weighted_policy,
    behaviour_probabilities,
    behaviour_values,
    empirical_model,
    expectile_of,
    expectile_values,
    greedy_policy,
    most_likely_policy,
    optimal_values,
    policy_values,
    single_q_values,
)
from iql_ray.envs.umaze_data import maze_data

EXPECTILES = (0.3, 0.5, 0.7, 0.9, 0.95, 0.99)


def chain() -> TabularModel:
    """0 -> 1 -> end by action 0, action 1 waits; 1 for entering the end, discount 0.5."""
    transitions = np.zeros((3, 2, 3))
    transitions[0, 0, 1] = transitions[1, 0, 2] = transitions[0, 1, 0] = transitions[1, 1, 1] = 1.0
    rewards = np.zeros((3, 2, 3))
    rewards[:, :, 2] = 1.0
    return TabularModel(
        transitions=transitions, rewards=rewards, is_terminal=np.array([False, False, True]), discount=0.5
    )


def gamble() -> TabularModel:
    """Action 0 wins 10 once in ten times, action 1 gives 2; both end (in state 1 with the gain, 2 without)."""
    transitions, rewards = np.zeros((2, 3, 2, 3))
    transitions[0, 0] = [0, 0.1, 0.9]
    transitions[0, 1] = [0, 1.0, 0]
    rewards[0, :, 1] = [10.0, 2.0]
    return TabularModel(
        transitions=transitions, rewards=rewards, is_terminal=np.array([False, True, True]), discount=0.9
    )


EVEN = np.full((3, 2), 0.5)


@pytest.mark.parametrize("expectile", [0.1, 0.5, 0.9])
def test_the_expectile_of_two_points_is_tau(expectile):
    assert expectile_of(np.array([1.0, 0.0]), np.ones(2), expectile) == pytest.approx(expectile)


def test_weights_count_and_need_not_sum_to_one():
    assert expectile_of(np.array([0.0, 1.0]), np.array([3.0, 1.0]), 0.75) == pytest.approx(0.5)
    assert expectile_of(np.array([0.0, 1.0, 100.0]), np.array([1.0, 1.0, 0.0]), 0.9) == pytest.approx(0.9)
    assert expectile_of(np.array([5.0, 7.0]), np.zeros(2), 0.9) == 0.0


@pytest.mark.parametrize("expectile", EXPECTILES)
def test_the_expectile_balances_what_is_above_and_below(expectile):
    generator = np.random.default_rng(0)
    values, weights = generator.normal(size=(50, 9)), generator.random((50, 9))
    excess = values - expectile_of(values, weights, expectile)[:, None]
    above = (weights * np.maximum(excess, 0)).sum(axis=1)
    below = (weights * np.maximum(-excess, 0)).sum(axis=1)
    np.testing.assert_allclose(expectile * above, (1 - expectile) * below, atol=1e-12)


@pytest.mark.parametrize("expectile", [0.0, 1.0])
def test_an_expectile_at_the_ends_is_refused(expectile):
    with pytest.raises(ValueError, match=rf"expectile is {expectile}, expected a number between 0 and 1"):
        expectile_of(np.zeros(1), np.ones(1), expectile)


def test_values_on_the_chain():
    np.testing.assert_allclose(optimal_values(chain()), [0.5, 1, 0])
    np.testing.assert_allclose(behaviour_values(chain(), EVEN), [2 / 9, 2 / 3, 0])  # V = (1 + V / 2) / 2, ...
    expected = [0.8 * 0.5 * (8 / 9) / 0.9, 8 / 9, 0]  # V = 0.8 * 1 + 0.2 * V / 2, ...
    np.testing.assert_allclose(expectile_values(chain(), EVEN, 0.8), expected)
    np.testing.assert_allclose(single_q_values(chain(), EVEN, 0.5)[1], [1, 1 / 3])


def test_actions_that_the_data_lack_count_for_nothing():
    only_waits = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(optimal_values(chain(), only_waits > 0), [0, 0, 0])
    np.testing.assert_allclose(expectile_values(chain(), only_waits, 0.9), [0, 0, 0])
    no_data_in_1 = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(optimal_values(chain(), no_data_in_1 > 0), [0, 0, 0])
    np.testing.assert_allclose(single_q_values(chain(), no_data_in_1, 0.9)[:2, 0], [0, 1])


def test_single_q_takes_luck_for_skill_and_the_expectile_over_actions_does_not():
    q_values = single_q_values(gamble(), EVEN, 0.9)
    np.testing.assert_allclose(q_values[0], [5, 2])  # 0.9 * 0.1 against 0.1 * 0.9: half of 10
    values = expectile_values(gamble(), EVEN, 0.9)
    np.testing.assert_allclose(action_values(gamble(), values)[0], [1, 2])
    np.testing.assert_allclose(values[0], 0.9 * 2 + 0.1 * 1)


def test_the_empirical_model_counts():
    states, actions, next_states = np.array([0, 0, 0, 1]), np.array([0, 0, 0, 1]), np.array([0, 1, 1, 2])
    rewards, terminations = np.array([0.0, 1.0, 3.0, 5.0]), np.array([False, False, False, True])
    model = empirical_model(
        states, actions, rewards, next_states, terminations, num_states=3, num_actions=2, discount=0.9
    )
    np.testing.assert_allclose(model.transitions[0, 0], [1 / 3, 2 / 3, 0])
    np.testing.assert_allclose(model.expected_rewards, [[4 / 3, 0], [0, 5], [0, 0]])
    assert model.is_terminal.tolist() == [False, False, True]
    behaviour = behaviour_probabilities(states, actions, num_states=3, num_actions=2)
    assert behaviour.tolist() == [[1, 0], [0, 1], [0, 0]]
    with pytest.raises(ValueError, match="state 1 ends one episode and is left in another"):
        empirical_model(
            states, actions, rewards, next_states, next_states == 1, num_states=3, num_actions=2, discount=0.9
        )


def test_the_advantage_weighted_policy():
    values, q_values = np.zeros(3), np.array([[np.log(3.0), 0.0], [1e3, 0.0], [0.0, 0.0]])
    behaviour = np.array([[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]])
    policy = advantage_weighted_policy(values, q_values, behaviour, 1.0)
    np.testing.assert_allclose(policy, [[3 / 4, 1 / 4], [100 / 101, 1 / 101], [0.5, 0.5]])
    cloned = advantage_weighted_policy(values, q_values, np.array([[0.9, 0.1]] * 3), 0.0)
    np.testing.assert_allclose(cloned, [[0.9, 0.1]] * 3)


def test_greedy_and_most_likely_policies():
    q_values = np.array([[1.0, 2.0], [3.0, 3.0], [1.0, 2.0]])
    assert greedy_policy(q_values).tolist() == [[0, 1], [0.5, 0.5], [0, 1]]
    allowed = np.array([[True, False], [True, True], [False, False]])
    assert greedy_policy(q_values, allowed).tolist() == [[1, 0], [0.5, 0.5], [0.5, 0.5]]
    assert most_likely_policy(np.array([[0.6, 0.4], [0.5, 0.5]])).tolist() == [[1, 0], [0.5, 0.5]]


def test_a_policy_is_worth_what_its_long_run_is():
    model = tabular_model(maze_map("paper"))
    best = optimal_values(model)
    np.testing.assert_allclose(policy_values(model, greedy_policy(action_values(model, best))), best, atol=1e-10)


@pytest.mark.parametrize("name", ["paper", "stitching", "lucky"])
@pytest.mark.parametrize("is_empirical", [False, True])
def test_expectile_values_rise_from_the_behaviour_s_to_at_most_the_best_in_the_data(name, is_empirical):
    data = maze_data(name)
    model = data.empirical_model if is_empirical else tabular_model(data.maze)
    values = [expectile_values(model, data.behaviour, expectile) for expectile in EXPECTILES]
    np.testing.assert_allclose(values[1], behaviour_values(model, data.behaviour), atol=1e-6)
    for lower, higher in pairwise([*values, optimal_values(model, data.behaviour > 0)]):
        assert (lower <= higher + 1e-9).all()


def test_without_noise_the_expectile_reaches_the_best_in_the_data():
    model = tabular_model(maze_map("paper", noise=0.0))
    behaviour = maze_data("paper").behaviour
    best = optimal_values(model, behaviour > 0)
    shares = [expectile_values(model, behaviour, tau)[0] / best[0] for tau in (0.99, 0.999, 0.9999)]
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] >= 0.99
    assert (expectile_values(model, behaviour, 0.9999) >= 0.99 * best - 1e-12).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.zeros((3, 2))}, r"shapes \(3, 2, 3\) and \(3, 2\), expected \(S, A, S\) with S = 3"),
        ({"discount": 1.0}, "discount is 1.0"),
    ],
)
def test_a_model_that_fits_together_badly_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TabularModel(**{**vars(chain()), **changes})
