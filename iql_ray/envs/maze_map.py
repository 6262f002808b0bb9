"""The maps of the toy maze and their exact models: cells, moves, noise, rewards, what is observed of a state.

A state is the index of a free cell, row by row from the top left. Everything that steps a maze, the environment and
the makers of its datasets alike, draws from `MazeDynamics`, and that from the same `TabularModel` that is solved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from iql_ray.envs.tabular import TabularModel

Cell = tuple[int, int]
"""Row from the top, column from the left."""

Observation = Literal["one-hot", "coordinates"]

ACTIONS = ("up", "right", "down", "left")
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""What each action adds to (row, column)."""

DISCOUNT = 0.9
NOISE = 0.25
MAX_EPISODE_STEPS = 200

READING_TOLERANCE = 1e-3
"""An observation further from every state's, in any element, is no observation of this maze."""


@dataclass(frozen=True, kw_only=True)
class MazeMap:
    """A U of corridors: two arms down the sides of a square and a bottom between them; the rest is wall."""

    name: str
    size: int
    """Rows, and columns."""
    corridor_width: int
    start: Cell
    goal: Cell
    goal_reward: float = 10.0
    """For entering the goal, which ends the episode; every other move gives 0."""
    noise: float = NOISE
    """Probability that a move is a uniformly random one of the four, which may be the chosen one."""
    lucky_cell: Cell | None = None
    """Where a wind may take the agent, whatever it does, to the goal for `wind_reward` instead of `goal_reward`."""
    wind_probability: float = 0.0
    wind_reward: float = 0.0

    def __post_init__(self) -> None:
        if self.corridor_width < 1 or self.size < 2 * self.corridor_width + 1:
            raise ValueError(
                f"a maze of size {self.size} has no room for two arms {self.corridor_width} wide and a wall between"
                f" them; expected a size of at least {2 * self.corridor_width + 1}"
            )
        if not 0 <= self.noise <= 1:
            raise ValueError(f"noise is {self.noise}, expected a probability")

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The free cells in the order of their states."""
        arm, far = self.corridor_width, self.size - self.corridor_width
        every = [(row, column) for row in range(self.size) for column in range(self.size)]
        return tuple((row, column) for row, column in every if column < arm or column >= far or row >= far)

    @cached_property
    def state_of(self) -> dict[Cell, int]:
        """Each free cell's state."""
        return {cell: state for state, cell in enumerate(self.cells)}

    @property
    def num_states(self) -> int:
        return len(self.cells)

    @property
    def start_state(self) -> int:
        return self.state_of[self.start]

    @property
    def goal_state(self) -> int:
        return self.state_of[self.goal]

    @property
    def middle_states(self) -> tuple[int, ...]:
        """The bottom's cells halfway between the arms, where a way from start to goal is cut in two."""
        far = self.size - self.corridor_width
        return tuple(self.state_of[row, self.size // 2] for row in range(far, self.size))

    def after(self, cell: Cell, action: int) -> Cell:
        """Where a move leads without noise; into a wall it leads nowhere."""
        row, column = cell[0] + MOVES[action][0], cell[1] + MOVES[action][1]
        return (row, column) if (row, column) in self.state_of else cell


PAPER = MazeMap(name="paper", size=9, corridor_width=2, start=(0, 0), goal=(0, 8))
"""46 free cells, 22 moves from start to goal at least; V* of the start is 0.572."""

STITCHING = replace(PAPER, name="stitching")
"""The same U; what differs is the data: no trajectory goes all the way."""

NARROW = replace(PAPER, name="narrow")
"""The same U; what differs is the data: nothing but the optimal policy, one action in every cell."""

LUCKY = MazeMap(
    name="lucky",
    size=3,
    corridor_width=1,
    start=(2, 1),
    goal=(0, 2),
    lucky_cell=(0, 0),
    wind_probability=0.05,
    wind_reward=20.0,
)
"""Seven cells; right leads to the goal, left to a cell with a rare and rich wind that no action brings about.

Exact values of left and right in the start under uniformly random data, and the return of the most likely action of
the advantage-weighted policy (inverse temperature 10; single-Q's advantages are against the mean of Q over the data's
actions). V* of the start is 7.372, and right is the best action.

expectile   IQL: left   right   return    single-Q: left   right   return
0.5              1.82    2.74    7.289              1.82    2.74    7.289
0.9              5.03    6.53    7.372             10.21    8.47    4.397
0.95             5.52    6.97    7.372             12.38   10.65    4.397
0.99             5.92    7.29    7.372             14.21   13.55    4.372

IQL takes its expectile over actions only, and the wind blows whichever is taken: going left is never worth more than
waiting for it really is. Single-Q takes the expectile over next states too, counts the wind as if it were chosen,
and gives up 40 percent of the return for it.
"""

MAPS = {maze.name: maze for maze in (PAPER, STITCHING, NARROW, LUCKY)}


def maze_map(name: str, *, size: int | None = None, noise: float | None = None) -> MazeMap:
    """A map by name, in another size or with another noise where given.

    Raises:
        ValueError: no such map, or a size without room for its corridors.
    """
    if name not in MAPS:
        raise ValueError(f"maze '{name}' is unknown; expected one of {', '.join(MAPS)}")
    maze = MAPS[name]
    if size is not None and size != maze.size:
        right = size - 1
        start = maze.start if maze.lucky_cell is None else (right, size // 2)
        maze = replace(maze, size=size, start=start, goal=(0, right))
    return maze if noise is None else replace(maze, noise=noise)


def tabular_model(maze: MazeMap) -> TabularModel:
    """The maze as a Markov decision process over its free cells."""
    shape = (maze.num_states, len(ACTIONS), maze.num_states)
    intended = np.zeros(shape)
    for state, cell in enumerate(maze.cells):
        for action in range(len(ACTIONS)):
            intended[state, action, maze.state_of[maze.after(cell, action)]] = 1.0
    transitions = (1 - maze.noise) * intended + maze.noise * intended.mean(axis=1, keepdims=True)
    rewards = np.zeros(shape)
    rewards[:, :, maze.goal_state] = maze.goal_reward
    if maze.lucky_cell is not None:
        lucky = maze.state_of[maze.lucky_cell]
        transitions[lucky] *= 1 - maze.wind_probability
        transitions[lucky, :, maze.goal_state] += maze.wind_probability
        rewards[lucky, :, maze.goal_state] = maze.wind_reward
    is_terminal = np.arange(maze.num_states) == maze.goal_state
    return TabularModel(transitions=transitions, rewards=rewards, is_terminal=is_terminal, discount=DISCOUNT)


class MazeDynamics:
    """A maze that can be stepped: one draw from the rows of its model."""

    def __init__(self, maze: MazeMap) -> None:
        self.model = tabular_model(maze)
        cumulative = self.model.transitions.cumsum(axis=-1)
        self._cumulative = cumulative / cumulative[..., -1:]

    def step(self, state: int, action: int, generator: np.random.Generator) -> tuple[int, float, bool]:
        """Next state, reward, and whether that state is terminal."""
        row = self._cumulative[state, action]
        next_state = int(np.searchsorted(row, generator.random(), side="right"))
        reward = float(self.model.rewards[state, action, next_state])
        return next_state, reward, bool(self.model.is_terminal[next_state])


def check_observation(observation: str) -> None:
    """Refuse a kind of observation that there is not.

    Raises:
        ValueError: names the kinds.
    """
    if observation not in get_args(Observation):
        raise ValueError(f"observation is '{observation}', expected {' or '.join(get_args(Observation))}")


def state_observations(maze: MazeMap, observation: Observation = "one-hot") -> np.ndarray:
    """(states, dim) float32: what is observed of every state.

    Args:
        observation: "one-hot" has a dimension per state; "coordinates" is (x, y), each from -1 to 1, with x growing to
            the right and y upwards.

    Raises:
        ValueError: another kind of observation.
    """
    check_observation(observation)
    if observation == "one-hot":
        return np.eye(maze.num_states, dtype=np.float32)
    rows, columns = np.array(maze.cells).T
    half = (maze.size - 1) / 2
    return np.stack([columns / half - 1, 1 - rows / half], axis=1).astype(np.float32)


def states_of(maze: MazeMap, observations: np.ndarray) -> np.ndarray:
    """(rows,) the states that (rows, dim) observations of either kind show; their width tells the kind.

    Raises:
        ValueError: a width that neither kind has, or an observation that no state has.
    """
    widths = {maze.num_states: "one-hot", 2: "coordinates"}
    width = observations.shape[-1]
    if observations.ndim != 2 or width not in widths:
        raise ValueError(
            f"observations have shape {observations.shape}, expected (rows, {maze.num_states}) one-hot or (rows, 2)"
            f" coordinates of the maze '{maze.name}' of size {maze.size}"
        )
    table = state_observations(maze, widths[width])  # pyright: ignore[reportArgumentType]
    # |o - t|^2 without |o|^2, which is the same for all t
    states = np.argmax(observations @ table.T - 0.5 * np.square(table).sum(axis=1), axis=1)
    distances = np.abs(observations - table[states]).max(axis=1)
    if (distances > READING_TOLERANCE).any():
        row = int(np.argmax(distances > READING_TOLERANCE))
        raise ValueError(f"observation {observations[row]} in row {row} shows no cell of the maze '{maze.name}'")
    return states
