"""The maze's datasets: who walks where, whole episodes, and the story's exact numbers."""

from __future__ import annotations

import numpy as np
import pytest

from iql_ray.envs.maze_map import MAPS, MAX_EPISODE_STEPS, states_of, tabular_model
from iql_ray.envs.tabular import (
    action_values,
    advantage_weighted_policy,
    behaviour_probabilities,
    expectile_values,
    most_likely_policy,
    optimal_values,
    policy_values,
)
from iql_ray.envs.umaze_data import PUBLISHED_SEED, MazeData, maze_data, parse_location


def firsts(data: MazeData) -> np.ndarray:
    return np.searchsorted(data.episodes, np.arange(data.num_episodes))


def lasts(data: MazeData) -> np.ndarray:
    return np.append(firsts(data)[1:], len(data.episodes)) - 1


@pytest.mark.parametrize("name", MAPS)
def test_episodes_are_whole(name):
    data = maze_data(name)
    ends = data.terminations | data.truncations
    assert np.flatnonzero(ends).tolist() == lasts(data).tolist()
    assert not (data.terminations & data.truncations).any()
    assert (data.next_states[:-1] == data.states[1:])[~ends[:-1]].all()
    assert np.bincount(data.episodes).max() <= MAX_EPISODE_STEPS
    assert (data.terminations == (data.next_states == data.maze.goal_state)).all()


def test_rows_are_the_published_ones():
    sizes = {name: (maze_data(name).num_episodes, len(maze_data(name).states)) for name in MAPS}
    assert sizes == {"paper": (100, 19_492), "stitching": (100, 16_290), "narrow": (100, 2_917), "lucky": (300, 9_787)}


def test_equal_seeds_give_equal_rows():
    one, same, other = (maze_data("stitching", seed=seed) for seed in (1, 1, 2))
    assert one.actions.tolist() == same.actions.tolist()
    assert one.actions.tolist() != other.actions.tolist()


def test_the_paper_s_data_have_one_good_trajectory():
    data = maze_data("paper")
    assert (data.states[firsts(data)] == data.maze.start_state).all()
    returns = data.returns(0.9)
    assert (returns.argmax(), returns.max()) == (0, pytest.approx(10 * 0.9**37))
    assert returns.max() == pytest.approx(0.203, abs=5e-4)
    assert np.sort(returns)[-2] < 0.01
    assert np.bincount(data.actions[data.episodes > 0]) / (data.episodes > 0).sum() == pytest.approx(0.25, abs=0.015)


def test_no_trajectory_of_the_stitching_data_goes_all_the_way():
    data = maze_data("stitching")
    starts, ends = data.states[firsts(data)], data.next_states[lasts(data)]
    middle = data.maze.middle_states
    assert (starts[:10] == data.maze.start_state).all()
    assert np.isin(ends[:10], middle).all()
    assert starts[10:20].tolist() == ends[:10].tolist()
    assert (ends[10:20] == data.maze.goal_state).all()
    assert (starts[20:] == data.maze.start_state).all()
    assert data.returns().tolist() == [0.0] * 10 + [10.0] * 10 + [0.0] * 80
    assert data.truncations[lasts(data)].tolist() == [True] * 10 + [False] * 10 + [True] * 80


def test_the_narrow_data_show_the_best_action_of_every_cell_and_no_other():
    data = maze_data("narrow")
    model, shown = tabular_model(data.maze), data.behaviour > 0
    assert shown.sum(axis=1).tolist() == [int(state != data.maze.goal_state) for state in range(46)]
    np.testing.assert_allclose(optimal_values(model, shown), optimal_values(model))
    assert data.returns().tolist() == [10.0] * 100


@pytest.mark.parametrize(("name", "num_shown"), [("paper", 180), ("stitching", 171), ("narrow", 45), ("lucky", 24)])
def test_how_many_actions_the_data_show(name, num_shown):
    assert (maze_data(name).behaviour > 0).sum() == num_shown


def test_the_wind_of_the_lucky_data_is_rare():
    data = maze_data("lucky")
    assert ((data.rewards == 20).sum(), (data.rewards == 10).sum()) == (86, 214)
    is_lucky_cell = data.states == data.maze.state_of[0, 0]
    assert (data.rewards[is_lucky_cell] == 20).mean() == pytest.approx(0.05, abs=0.01)


def story(data: MazeData, expectile: float) -> tuple[float, float]:
    """V of the start on the true model, and the exact return of the weighted policy's most likely action."""
    model, start = tabular_model(data.maze), data.maze.start_state
    values = expectile_values(model, data.behaviour, expectile)
    policy = advantage_weighted_policy(values, action_values(model, values), data.behaviour, 10.0)
    return values[start], policy_values(model, most_likely_policy(policy))[start]


@pytest.mark.parametrize(
    ("name", "expectile", "value", "policy_return"),
    [
        ("paper", 0.5, 0.000, 0.005),
        ("paper", 0.7, 0.007, 0.130),
        ("paper", 0.9, 0.196, 0.572),
        ("paper", 0.95, 0.347, 0.572),
        ("paper", 0.99, 0.520, 0.572),
        ("stitching", 0.5, 0.000, 0.000),
        ("stitching", 0.7, 0.014, 0.201),
        ("stitching", 0.9, 0.230, 0.572),
        ("stitching", 0.95, 0.375, 0.572),
        ("stitching", 0.99, 0.528, 0.568),
    ],
)
def test_the_story_in_exact_numbers(name, expectile, value, policy_return):
    assert story(maze_data(name), expectile) == pytest.approx((value, policy_return), abs=6e-4)


@pytest.mark.parametrize(("name", "policy_return"), [("paper", 0.004), ("stitching", 0.010)])
def test_cloning_the_best_tenth_of_the_episodes_fails(name, policy_return):
    data = maze_data(name)
    best = np.argsort(-data.returns(0.9), kind="stable")[:10]
    rows = np.isin(data.episodes, best)
    behaviour = behaviour_probabilities(data.states[rows], data.actions[rows], num_states=46, num_actions=4)
    model = tabular_model(data.maze)
    cloned = policy_values(model, most_likely_policy(behaviour))[data.maze.start_state]
    assert cloned == pytest.approx(policy_return, abs=6e-4)


@pytest.mark.parametrize("name", ["paper", "stitching"])
def test_the_data_s_own_frequencies_support_95_percent_of_the_best(name):
    data = maze_data(name)
    model, empirical, start = tabular_model(data.maze), data.empirical_model, data.maze.start_state
    values = expectile_values(empirical, data.behaviour, 0.95)
    policy = advantage_weighted_policy(values, action_values(empirical, values), data.behaviour, 10.0)
    assert policy_values(model, most_likely_policy(policy))[start] >= 0.95 * optimal_values(model)[start]


@pytest.mark.parametrize("observation", ["one-hot", "coordinates"])
def test_columns_are_the_rows_as_they_are_observed(observation):
    data = maze_data("lucky")
    columns = data.columns(observation)
    assert states_of(data.maze, columns["observations"]).tolist() == data.states.tolist()
    assert states_of(data.maze, columns["next_observations"]).tolist() == data.next_states.tolist()


def test_datasets_exist_in_other_sizes():
    data = maze_data("stitching", size=7)
    assert (data.maze.size, data.num_episodes) == (7, 100)


@pytest.mark.parametrize(
    ("location", "parsed"),
    [
        ("paper", ("paper", "one-hot", PUBLISHED_SEED)),
        ("lucky:coordinates", ("lucky", "coordinates", PUBLISHED_SEED)),
        ("paper:3", ("paper", "one-hot", 3)),
        ("paper:coordinates:3", ("paper", "coordinates", 3)),
    ],
)
def test_locations(location, parsed):
    assert parse_location(location) == parsed


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "maze dataset '' is unknown; expected NAME"),
        ("papers", "with a name of paper, stitching, narrow, lucky"),
        ("paper:pixels", "observation is 'pixels', expected one-hot or coordinates"),
        ("paper:3:coordinates", "'paper:3:coordinates' is unknown"),
    ],
)
def test_locations_of_nothing_are_refused(location, message):
    with pytest.raises(ValueError, match=message):
        parse_location(location)
