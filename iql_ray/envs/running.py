"""One environment in endless use: episode after episode, each with a seed of its own, renewed after a failure.

It keeps no experience and knows no policy; `collecting.py` steps many of these side by side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from math import isfinite
from time import monotonic
from typing import Any

import gymnasium
import numpy as np

from iql_ray.envs.acting import success_after
from iql_ray.envs.action_limits import EXECUTED_ACTION
from iql_ray.envs.catalog import name_of
from iql_ray.experience import EnvironmentFailure, EpisodeResult, Stand
from iql_ray.seeding import child_seed, child_seed_32


def episode_seed(seed: int, number: int, episode: int) -> int:
    """What that episode of that environment is reset with, in a run of that seed."""
    return child_seed_32(seed, "environment", number, "episode", episode)


def naming(name: str, number: int, episode: int, seed: int, step: int) -> str:
    """The beginning of every message about a failure."""
    return f"environment '{name}', number {number}, episode {episode} with seed {seed}, step {step}"


class RunningEnvironment:
    """The environment with this number among all of a run, and the noise with which it is explored.

    Args:
        make: makes the environment, and a new one after each failure.
        number: counted from 0 over all workers; seeds and noise depend on it and the run's seed alone.
        seed: of the run.
        max_failures: so many, and it is quarantined: never stepped again.
    """

    def __init__(self, make: Callable[[], gymnasium.Env], number: int, *, seed: int, max_failures: int) -> None:
        self.number = number
        self.generator = self._new_generator(seed)
        self.episode = self.step_number = 0
        self.observation: Any = None
        """Of the episode's beginning, later what whoever steps it leaves here; None before the first."""
        self._make, self._seed, self._max_failures = make, seed, max_failures
        self.since: float | None = None
        """Since when the environment has been busy with one step or reset, by this process's monotonic clock."""
        self._environment: gymnasium.Env | None = None
        self._name = "?"
        self._return = 0.0
        self._is_success: bool | None = None
        self._num_failures = 0
        self._failures: list[EnvironmentFailure] = []

    @property
    def is_quarantined(self) -> bool:
        return self._num_failures >= self._max_failures

    @property
    def episode_seed(self) -> int:
        return episode_seed(self._seed, self.number, self.episode)

    def _new_generator(self, seed: int) -> np.random.Generator:
        return np.random.default_rng(child_seed(seed, "environment", self.number, "exploration"))

    def stand(self) -> Stand:
        """Where it stands, without the actions of the unfinished episode."""
        state = dict(self.generator.bit_generator.state)
        return Stand(environment=self.number, episode=self.episode, noise_state=state, num_failures=self._num_failures)

    def restore(self, stand: Stand, *, is_replayed: bool) -> None:
        """Go where another one stood: through the same episode, or on to the next one.

        An environment that fails in a replay has failed. One that ends it early is no simulator that can be
        replayed: that is reported too, but does not count towards quarantine.
        """
        self._num_failures = stand.num_failures
        self.generator = self._new_generator(self._seed)
        is_begun = stand.noise_state is not None
        if stand.noise_state is not None:
            self.generator.bit_generator.state = stand.noise_state
        self.begin(stand.episode + 1 if is_begun and not is_replayed else stand.episode)
        if is_replayed and stand.actions is not None and self.episode == stand.episode:
            self._replay(stand.actions)

    def _replay(self, actions: np.ndarray) -> None:
        try:
            for action in actions:
                observation, _, is_terminated, is_truncated, _ = self.step(self._as_taken(action))
                self.check(observation)
                self.observation = observation
                if is_terminated or is_truncated:
                    self._report(f"the episode ended in a replay of its {len(actions)} actions; a new one begins")
                    return self.begin(self.episode + 1)
        except Exception as error:
            self.fail(error)

    def _as_taken(self, action: np.ndarray) -> Any:
        """A recorded action as the environment takes it: a discrete one is recorded as its index in one column."""
        assert self._environment is not None
        is_discrete = isinstance(self._environment.action_space, gymnasium.spaces.Discrete)
        return np.int64(action[0]) if is_discrete else action

    def begin(self, episode: int) -> None:
        """Reset to the first observation of that episode, or of the next one that begins without a failure."""
        self._open(episode)
        while not self.is_quarantined and not self._has_reset():
            self._open(self.episode + 1)

    def _open(self, episode: int) -> None:
        self.episode, self.step_number, self._return, self._is_success = episode, 0, 0.0, None

    def _has_reset(self) -> bool:
        self.since = monotonic()
        try:
            if self._environment is None:
                self._environment = self._make()
                self._name = name_of(self._environment)
            self.observation, _ = self._environment.reset(seed=self.episode_seed)
            self.check(self.observation)
        except Exception as error:
            self._count(error)
            return False
        finally:
            self.since = None
        return True

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Any]:
        """What the environment gives, and the action that it executed, where that was another one, or None.

        Raises:
            ValueError: the reward is not finite; besides whatever the environment raises.
        """
        assert self._environment is not None
        self.step_number += 1
        self.since = monotonic()
        observation, reward, is_terminated, is_truncated, info = self._environment.step(action)
        self.since = None
        if not isfinite(reward):
            raise ValueError(f"the reward is not finite: {reward}")
        self._return += float(reward)
        if not info:
            return observation, reward, is_terminated, is_truncated, None
        self._is_success = success_after(self._is_success, info)
        return observation, reward, is_terminated, is_truncated, info.get(EXECUTED_ACTION)

    @staticmethod
    def check(observation: Any) -> None:
        """Raise ValueError where a number is not finite; `step` does not look at observations, to be fast."""
        if not np.isfinite(observation).all():
            raise ValueError(f"the observation is not finite: {observation}")

    def result(self) -> EpisodeResult:
        """Of the episode that has just ended."""
        return EpisodeResult(
            seed=self.episode_seed,
            episode_return=self._return,
            length=self.step_number,
            is_success=self._is_success,
        )

    def fail(self, cause: Exception) -> None:
        """Report the failure, throw the environment away and begin the next episode in a new one, if it still may."""
        self._count(cause)
        self.begin(self.episode + 1)

    def _count(self, cause: Exception) -> None:
        self._num_failures += 1
        self._report(f"{type(cause).__name__}: {cause}")
        self.close()

    def _report(self, cause: str) -> None:
        named = naming(self._name, self.number, self.episode, self.episode_seed, self.step_number)
        self._failures.append(
            EnvironmentFailure(
                environment=self.number, episode=self.episode, step=self.step_number, message=f"{named}: {cause}"
            )
        )

    def take_failures(self) -> list[EnvironmentFailure]:
        """Those not taken yet."""
        failures, self._failures = self._failures, []
        return failures

    def close(self) -> None:
        if self._environment is not None:
            self.since = monotonic()
            # One that failed may fail again here, and has been reported.
            with contextlib.suppress(Exception):
                self._environment.close()
            self._environment = self.since = None
