"""The maze: its map, its model, its environment, and that the last two are one."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from iql_ray.envs.catalog import environment_spaces, make_env
from iql_ray.envs.maze_map import (
    ACTIONS,
    MAPS,
    MazeMap,
    maze_map,
    state_observations,
    states_of,
    tabular_model,
)
from iql_ray.envs.tabular import (
    action_values,
    advantage_weighted_policy,
    expectile_values,
    most_likely_policy,
    optimal_values,
    policy_values,
    single_q_values,
)
from iql_ray.envs.umaze import AGENT, CELL_PIXELS, ENVIRONMENT_IDS, GOAL, LUCKY, START, WALL, MazeEnv
from iql_ray.experience import Spaces

UP, RIGHT, DOWN, LEFT = range(4)
SMALL = maze_map("paper", size=5, noise=0.0)


def test_the_default_has_46_cells_and_the_prototype_s_value():
    maze = maze_map("paper")
    assert (maze.num_states, maze.start, maze.goal) == (46, (0, 0), (0, 8))
    assert optimal_values(tabular_model(maze))[maze.start_state] == pytest.approx(0.572, abs=5e-4)
    assert [maze.cells[state] for state in maze.middle_states] == [(7, 4), (8, 4)]


def test_size_is_a_parameter():
    assert SMALL.num_states == 5 * 4 + 2  # four columns of arms, two cells between them
    assert (maze_map("lucky", size=5).start, maze_map("lucky", size=5).goal) == ((4, 2), (0, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: maze_map("papers"), "maze 'papers' is unknown; expected one of paper, stitching, narrow, lucky"),
        (lambda: maze_map("paper", size=4), "size 4 has no room .* at least 5"),
        (lambda: maze_map("paper", noise=1.5), "noise is 1.5"),
        (lambda: MazeEnv(observation="pixels"), "observation is 'pixels', expected one-hot or coordinates"),  # pyright: ignore
        (lambda: MazeEnv(render_mode="human"), "render_mode is 'human'"),
    ],
)
def test_a_maze_that_there_is_not_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_walls_stop_and_noise_is_uniform():
    model, maze = tabular_model(maze_map("paper")), maze_map("paper")
    start, below, beside = maze.start_state, maze.state_of[1, 0], maze.state_of[0, 1]
    assert model.transitions[start, UP, [start, below, beside]] == pytest.approx([0.875, 0.0625, 0.0625])
    assert model.transitions[start, DOWN, [start, below, beside]] == pytest.approx([0.125, 0.8125, 0.0625])
    np.testing.assert_allclose(model.transitions.sum(axis=-1), 1.0)
    assert maze.after((0, 1), RIGHT) == (0, 1)


def test_the_wind_blows_whatever_is_done():
    maze = maze_map("lucky")
    model, lucky = tabular_model(maze), maze.state_of[0, 0]
    assert model.transitions[lucky, :, maze.goal_state] == pytest.approx([0.05] * 4)
    assert model.expected_rewards[lucky] == pytest.approx([1.0] * 4)
    np.testing.assert_allclose(model.transitions.sum(axis=-1), 1.0)


LUCKY_TABLE = [
    (0.5, (1.82, 2.74), 7.289, (1.82, 2.74), 7.289),
    (0.9, (5.03, 6.53), 7.372, (10.21, 8.47), 4.397),
    (0.95, (5.52, 6.97), 7.372, (12.38, 10.65), 4.397),
    (0.99, (5.92, 7.29), 7.372, (14.21, 13.55), 4.372),
]


@pytest.mark.parametrize(("expectile", "implicit", "implicit_return", "single", "single_return"), LUCKY_TABLE)
def test_on_the_lucky_map_single_q_prefers_luck(expectile, implicit, implicit_return, single, single_return):
    maze = maze_map("lucky")
    model, start = tabular_model(maze), maze.start_state
    behaviour = np.full((7, 4), 0.25)
    values = expectile_values(model, behaviour, expectile)
    q_values, single_q = action_values(model, values), single_q_values(model, behaviour, expectile)
    assert q_values[start, [LEFT, RIGHT]] == pytest.approx(implicit, abs=0.006)
    assert single_q[start, [LEFT, RIGHT]] == pytest.approx(single, abs=0.006)
    policies = [
        advantage_weighted_policy(values, q_values, behaviour, 10.0),
        advantage_weighted_policy(single_q.mean(axis=1), single_q, behaviour, 10.0),
    ]
    returns = [policy_values(model, most_likely_policy(policy))[start] for policy in policies]
    assert returns == pytest.approx([implicit_return, single_return], abs=6e-4)


@pytest.mark.parametrize("environment_id", ENVIRONMENT_IDS.values())
def test_every_id_is_made_by_the_catalog_and_passes_gymnasium_s_checks(environment_id):
    environment = make_env(environment_id, render_mode="rgb_array")
    check_env(environment.unwrapped, skip_render_check=False)


def test_spaces_of_the_ids():
    assert environment_spaces("iql_ray/UMaze-v0") == Spaces(observation_dim=46, action_dim=1, num_actions=4)
    assert environment_spaces("iql_ray/UMazeLuckyCoordinates-v0").observation_dim == 2


def test_an_unknown_id_of_ours_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"'iql_ray/UMace-v0' is unknown: .*iql_ray/UMaze-v0"):
        make_env("iql_ray/UMace-v0")


def test_an_episode_ends_at_the_goal_with_its_reward():
    environment = MazeEnv(size=5, noise=0.0)
    environment.reset(seed=0)
    moves = [DOWN, DOWN, DOWN, RIGHT, RIGHT, RIGHT, RIGHT, UP, UP, UP]
    results = [environment.step(move) for move in moves]
    assert [reward for _, reward, *_ in results] == [0.0] * 9 + [10.0]
    assert [terminated for _, _, terminated, *_ in results] == [False] * 9 + [True]
    assert results[-1][4] == {"state": SMALL.goal_state, "is_success": True}
    assert not any(truncated for _, _, _, truncated, _ in results)


def test_an_episode_is_cut_after_200_steps():
    environment = make_env("iql_ray/UMaze-v0")
    environment.reset(seed=0)
    results = [environment.step(LEFT) for _ in range(200)]
    assert [truncated for *_, truncated, _ in results] == [False] * 199 + [True]


def test_the_seed_decides_the_noise():
    walks = []
    for seed in (0, 0, 1):
        environment = make_env("iql_ray/UMaze-v0")
        environment.reset(seed=seed)
        walks.append([environment.step(DOWN)[4]["state"] for _ in range(20)])
    assert walks[0] == walks[1] != walks[2]


@pytest.mark.parametrize("name", ["paper", "lucky"])
def test_the_environment_steps_as_its_model_says(name):
    environment = MazeEnv(name)
    environment.reset(seed=0)
    model, num_steps = tabular_model(environment.map), 30_000
    counts = np.zeros_like(model.transitions)
    generator = np.random.default_rng(0)
    state = environment.map.start_state
    for action in generator.integers(len(ACTIONS), size=num_steps):
        _, reward, terminated, _, info = environment.step(action)
        counts[state, action, info["state"]] += 1
        assert reward == model.rewards[state, action, info["state"]]
        state = environment.reset()[1]["state"] if terminated else info["state"]
    totals = counts.sum(axis=-1, keepdims=True)
    assert not counts[model.transitions == 0].any()
    spread = np.sqrt(totals * model.transitions * (1 - model.transitions))
    assert (np.abs(counts - totals * model.transitions) <= 5 * spread + 5).all()


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("observation", ["one-hot", "coordinates"])
def test_observations_show_their_states(name, observation):
    maze = maze_map(name)
    table = state_observations(maze, observation)
    assert table.dtype == np.float32
    assert states_of(maze, table[::-1]).tolist() == list(range(maze.num_states))[::-1]


def test_coordinates_grow_to_the_right_and_upwards():
    table = state_observations(SMALL, "coordinates")
    assert table[SMALL.state_of[0, 0]].tolist() == [-1, 1]
    assert table[SMALL.state_of[4, 2]].tolist() == [0, -1]
    assert table[SMALL.goal_state].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("observations", "message"),
    [
        (np.zeros((1, 3)), r"shape \(1, 3\), expected \(rows, 22\) one-hot or \(rows, 2\)"),
        (np.zeros(22), r"shape \(22,\)"),
        (np.array([[-1.0, 1.0], [0.0, 1.0]]), "in row 1 shows no cell of the maze 'paper'"),
        (np.full((1, 22), 0.5), "in row 0 shows no cell"),
    ],
)
def test_observations_of_no_state_are_refused(observations, message):
    with pytest.raises(ValueError, match=message):
        states_of(SMALL, observations)


def center(maze: MazeMap, picture: np.ndarray, row: int, column: int) -> tuple[int, ...]:
    assert picture.shape == (maze.size * CELL_PIXELS, maze.size * CELL_PIXELS, 3)
    half = CELL_PIXELS // 2
    return tuple(picture[row * CELL_PIXELS + half, column * CELL_PIXELS + half].tolist())


def test_the_picture_shows_walls_start_goal_luck_and_agent():
    environment = gymnasium.make("iql_ray/UMazeLucky-v0", render_mode="rgb_array", noise=0.0)
    environment.reset(seed=0)
    environment.step(RIGHT)
    picture, maze = np.asarray(environment.render()), maze_map("lucky")
    cells = [(0, 0), (0, 1), (0, 2), (2, 1), (2, 2)]
    assert [center(maze, picture, *cell) for cell in cells] == [LUCKY, WALL, GOAL, START, AGENT]
    assert MazeEnv().render() is None
