"""The toy maze of the IQL paper as a gymnasium environment, and the ids under which it is made.

Importing this module registers the ids. Maps and their exact models are `maze_map.py`, datasets `umaze_data.py`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from iql_ray.envs.maze_map import (
    ACTIONS,
    MAX_EPISODE_STEPS,
    Cell,
    MazeDynamics,
    MazeMap,
    Observation,
    maze_map,
    state_observations,
)

ENVIRONMENT_IDS: dict[tuple[str, Observation], str] = {
    ("paper", "one-hot"): "iql_ray/UMaze-v0",
    ("stitching", "one-hot"): "iql_ray/UMazeStitching-v0",
    ("narrow", "one-hot"): "iql_ray/UMazeNarrow-v0",
    ("lucky", "one-hot"): "iql_ray/UMazeLucky-v0",
    ("paper", "coordinates"): "iql_ray/UMazeCoordinates-v0",
    ("stitching", "coordinates"): "iql_ray/UMazeStitchingCoordinates-v0",
    ("narrow", "coordinates"): "iql_ray/UMazeNarrowCoordinates-v0",
    ("lucky", "coordinates"): "iql_ray/UMazeLuckyCoordinates-v0",
}
"""Name of the map and kind of observation to the id; of an id alone, neither has to be said again."""

CELL_PIXELS = 32
WALL, FREE, START, GOAL, LUCKY, AGENT = (
    (52, 58, 64),
    (248, 249, 250),
    (165, 216, 255),
    (140, 233, 154),
    (255, 224, 102),
    (224, 49, 49),
)
"""Red, green, blue."""


class MazeEnv(gymnasium.Env):
    """A U-shaped grid: from one place to another by up, right, down and left, under noise.

    Observations are flat float32 (see `state_observations`), actions are `Discrete(4)` in the order of `ACTIONS`.
    Entering the goal is rewarded and ends the episode. `info` holds the state and, as `is_success`, whether the goal
    was reached.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012 - as gymnasium declares it

    def __init__(
        self,
        map_name: str = "paper",
        *,
        size: int | None = None,
        noise: float | None = None,
        observation: Observation = "one-hot",
        render_mode: str | None = None,
    ) -> None:
        """Make the maze `map_name`.

        Args:
            size: rows and columns; the map's own by default.
            noise: probability of a random move; the map's own by default.
            render_mode: None or "rgb_array".

        Raises:
            ValueError: no such map, size, observation or render mode.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is '{render_mode}', expected 'rgb_array' or none")
        self.map: MazeMap = maze_map(map_name, size=size, noise=noise)
        self.render_mode = render_mode
        self._observations = state_observations(self.map, observation)
        lowest = float(self._observations.min())
        self.observation_space = Box(lowest, 1.0, (self._observations.shape[1],), np.float32)
        self.action_space = Discrete(len(ACTIONS))
        self._dynamics = MazeDynamics(self.map)
        self._state = self.map.start_state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """To the start; the seed is of the noise."""
        super().reset(seed=seed, options=options)
        self._state = self.map.start_state
        return self._observed(), {"state": self._state, "is_success": False}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One draw from the maze's model."""
        self._state, reward, terminated = self._dynamics.step(self._state, int(action), self.np_random)
        return self._observed(), reward, terminated, False, {"state": self._state, "is_success": terminated}

    def _observed(self) -> np.ndarray:
        return self._observations[self._state].copy()

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(32 size, 32 size, 3) uint8, row 0 on top; None without a render mode."""
        return None if self.render_mode is None else draw(self.map, self.map.cells[self._state])


def draw(maze: MazeMap, agent: Cell) -> np.ndarray:
    """The maze from above: dark walls, a blue start, a green goal, a yellow lucky cell, a red disc for the agent."""
    grid = np.full((maze.size, maze.size, 3), WALL, np.uint8)
    for cell in maze.cells:
        grid[cell] = FREE
    grid[maze.start], grid[maze.goal] = START, GOAL
    if maze.lucky_cell is not None:
        grid[maze.lucky_cell] = LUCKY
    picture = grid.repeat(CELL_PIXELS, axis=0).repeat(CELL_PIXELS, axis=1)
    _draw_seams(picture, maze)
    row, column = (CELL_PIXELS * index for index in agent)
    square = picture[row : row + CELL_PIXELS, column : column + CELL_PIXELS]
    offsets = np.arange(CELL_PIXELS) - (CELL_PIXELS - 1) / 2
    square[np.hypot(offsets[:, None], offsets) <= 0.32 * CELL_PIXELS] = AGENT
    return picture


def _draw_seams(picture: np.ndarray, maze: MazeMap) -> None:
    """A one-pixel edge on top and left of each free cell, so that moves can be counted."""
    for row, column in maze.cells:
        top, left = row * CELL_PIXELS, column * CELL_PIXELS
        picture[top, left : left + CELL_PIXELS] = picture[top : top + CELL_PIXELS, left] = WALL


def _register() -> None:
    for (map_name, observation), environment_id in ENVIRONMENT_IDS.items():
        gymnasium.register(
            environment_id,
            entry_point="iql_ray.envs.umaze:MazeEnv",
            kwargs={"map_name": map_name, "observation": observation},
            max_episode_steps=MAX_EPISODE_STEPS,
        )


_register()
