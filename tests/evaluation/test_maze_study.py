"""The measures of the maze's comparison, on learning so perfect, or so wrong, that each of them is known beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from iql_ray.algorithm.iql_config import Member
from iql_ray.envs.maze_map import ACTIONS
from iql_ray.envs.umaze_data import maze_data
from iql_ray.evaluation.maze_study import Estimate, Learned, MazeStudy
from tests.evaluation.maze_examples import grid, learned_exactly

UP, RIGHT, DOWN, LEFT = range(4)
PAPER, STITCHING, NARROW = (MazeStudy(data=maze_data(name)) for name in ("paper", "stitching", "narrow"))


def taking(study: MazeStudy, action: int) -> np.ndarray:
    """(S, A) the policy that always takes one action."""
    return np.tile(np.eye(len(ACTIONS))[action], (study.data.maze.num_states, 1))


def saying(study: MazeStudy, probabilities: list[np.ndarray], quality: np.ndarray | None = None) -> Learned:
    """One critic and policy per seed; values are 0 unless the critics say otherwise."""
    quality = np.zeros((len(probabilities), *study.behaviour.shape)) if quality is None else quality
    members = [Member(seed, 0.9, 10.0, "td") for seed in range(len(probabilities))]
    return Learned(
        members=members, values=quality.max(axis=-1), action_values=quality, probabilities=np.stack(probabilities)
    )


def test_an_estimate_of_equal_seeds_has_no_spread_and_of_different_ones_holds_the_mean():
    assert Estimate.over_seeds([0.25, 0.25]) == (0.25, 0.25, 0.25)
    mean, low, high = Estimate.over_seeds([0.0, 1.0, 0.0, 1.0])
    assert mean == 0.5
    assert 0 <= low < mean < high <= 1


def test_what_perfect_learning_earns_is_the_exact_policys_return_and_its_error_is_none():
    learned = learned_exactly(PAPER, grid([("implicit", 0.5), ("implicit", 0.95)]))
    outcome = PAPER.outcome(learned, Member(0, 0.95, 10.0))
    assert outcome.earned == pytest.approx((PAPER.earned(PAPER.exact_policy(0.95, 10.0)),) * 3)
    assert outcome.earned.mean == pytest.approx(PAPER.best, rel=0.01)
    assert 0 < outcome.sampled.mean < outcome.earned.mean
    np.testing.assert_allclose(outcome.values, PAPER.exact_values(0.95))
    assert PAPER.value_error(learned, 0.95) == (0, 0, 0)
    assert PAPER.outcome(learned, Member(0, 0.5, 10.0)).earned.mean < 0.05 * PAPER.best


def test_inverse_temperature_0_earns_what_the_behaviour_does():
    learned = learned_exactly(PAPER, grid([("implicit", 0.9)]))
    sampled = PAPER.outcome(learned, Member(0, 0.9, 0.0)).sampled.mean
    assert sampled == pytest.approx(PAPER.behaviour_values[PAPER.start])


def test_the_value_error_is_a_share_of_the_highest_value_and_leaves_out_what_no_data_visit():
    exact = learned_exactly(PAPER, grid([("implicit", 0.9)]))
    off = exact.values + 0.1 * PAPER.optimal_values.max()
    off[:, PAPER.data.maze.goal_state] = 1000.0
    assert PAPER.value_error(replace(exact, values=off), 0.9) == pytest.approx((0.1, 0.1, 0.1))


def test_the_arrows_are_those_of_most_seeds_and_there_is_none_at_the_goal():
    learned = saying(PAPER, [taking(PAPER, action) for action in (LEFT, RIGHT, LEFT)])
    actions = PAPER.outcome(learned, learned.members[0]).actions
    goal = PAPER.data.maze.goal_state
    assert actions[goal] == -1
    assert (np.delete(actions, goal) == LEFT).all()


def test_a_greedy_policy_takes_the_critics_best_action_and_its_value_is_what_that_promises():
    quality = np.stack([3.0 * taking(NARROW, RIGHT)] * 2)
    outcome = NARROW.greedy_outcome(saying(NARROW, [taking(NARROW, DOWN)] * 2, quality))
    assert outcome.earned.mean == pytest.approx(NARROW.earned(taking(NARROW, RIGHT)))
    assert (outcome.values == 3.0).all()
    assert np.unique(outcome.actions).tolist() == [-1, RIGHT]


def test_an_overestimate_is_what_is_promised_beyond_the_best_and_nothing_below_counts():
    quality = np.tile(NARROW.optimal_values[:, None], (2, 1, 4)) + np.where(NARROW.is_shown, -1.0, 3.0)
    learned = saying(NARROW, [taking(NARROW, UP)] * 2, quality)
    outside = NARROW.overestimate(learned, "td", outside_data=True)
    everywhere = NARROW.overestimate(learned, "td", outside_data=False)
    assert outside is not None
    assert everywhere is not None
    assert (outside.num_actions, everywhere.num_actions) == (135, 180)
    assert (outside.mean.mean, outside.highest.mean) == (pytest.approx(3.0), pytest.approx(3.0))
    assert (everywhere.mean.mean, everywhere.highest.mean) == (pytest.approx(3.0 * 135 / 180), pytest.approx(3.0))


def test_where_the_data_show_every_action_nothing_lies_outside_them():
    learned = saying(PAPER, [taking(PAPER, UP)])
    assert PAPER.overestimate(learned, "td", outside_data=True) is None


def test_the_best_data_are_those_that_begin_at_the_start():
    assert PAPER.best_data == pytest.approx(10 * 0.9**37)
    assert STITCHING.best_data == 0


def test_a_choice_is_the_probability_of_an_action_in_the_start():
    half = (taking(PAPER, LEFT) + taking(PAPER, RIGHT)) / 2
    learned = saying(PAPER, [half, half])
    assert PAPER.choice(learned, learned.members[0], LEFT) == (0.5, 0.5, 0.5)
    assert PAPER.choice(learned, learned.members[0], UP).mean == 0


def test_policies_share_their_critics_and_are_found_by_what_they_are():
    learned = learned_exactly(NARROW, grid([("implicit", 0.5), ("td", 0.9)]))
    policies = learned.policies_of(Member(0, 0.9, 10.0, "td"))
    assert policies.tolist() == [3, 7]
    assert learned.critics_of(policies).tolist() == [1, 3]


def test_members_without_policies_are_refused():
    learned = learned_exactly(NARROW, grid([("implicit", 0.5)]))
    with pytest.raises(ValueError, match="got 3 members, 4 policies, V of 2 and Q of 2 critics"):
        replace(learned, members=learned.members[:3])
