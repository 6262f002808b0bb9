"""Environments that count, or fail on purpose, and policies for them."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from iql_ray.envs.running import episode_seed
from iql_ray.experience import Collected, Experience

HANGING_SEED = 5


class CountingEnv(gymnasium.Env):
    """Observes (episode, step); the reward is the step; an episode has so many steps and ends in one of two ways."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space: gymnasium.Space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, length: int = 3, is_truncated: bool = False) -> None:
        self._length, self._is_truncated = length, is_truncated
        self._episode, self._step = -1, 0
        self.is_closed = False
        self.seeds: list[int | None] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.seeds.append(seed)
        self._episode, self._step = self._episode + 1, 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step += 1
        is_over = self._step == self._length
        return (
            self._observation(),
            float(self._step),
            is_over and not self._is_truncated,
            is_over and self._is_truncated,
            self._info(action),
        )

    def _observation(self) -> Any:
        return np.array([self._episode, self._step], np.float32)

    def _info(self, action: Any) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.is_closed = True


class LimitedEnv(CountingEnv):
    """Executes half of what it is asked for, and says so; a success in the second step."""

    def _info(self, action: Any) -> dict[str, Any]:
        return {"executed_action": action / 2, "is_success": self._step == 2}


class ChoiceEnv(CountingEnv):
    """Takes one of four choices; the reward is the choice."""

    action_space = Discrete(4)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, _, is_terminated, is_truncated, info = super().step(action)
        return observation, float(action), is_terminated, is_truncated, info


class ChaoticEnv(gymnasium.Env):
    """5 to 15 steps round a circle, pushed by the action: a difference is three times as large a step later."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    step_seconds = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._state, self._step = float(self.np_random.uniform(0.1, 0.9)), 0
        self._length = int(self.np_random.integers(5, 16))
        return np.array([self._state, 0.0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(self.step_seconds)
        self._step += 1
        self._state = (3.0 * self._state + 0.1 * float(action[0])) % 1.0
        is_over = self._step == self._length
        return np.array([self._state, self._step / 10], np.float32), self._state, False, is_over, {}


class SlowChaoticEnv(ChaoticEnv):
    """The same, taking its time."""

    step_seconds = 0.003


class HangingEnv(ChaoticEnv):
    """The same, but in a run with seed HANGING_SEED one episode of environment 1 never gets beyond its first step."""

    hanging_seed = episode_seed(HANGING_SEED, 1, 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._is_hanging = seed == self.hanging_seed
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._is_hanging:
            self._hang()
        return super().step(action)

    def _hang(self) -> None:
        time.sleep(3600)


class LockedEnv(HangingEnv):
    """The same, holding Python's lock, so that its process says nothing any more."""

    def _hang(self) -> None:
        ctypes.PyDLL(None).sleep(3600)


class FailingEnv(CountingEnv):
    """Fails in its second step: it raises, or its "reward" or "observation" is not finite."""

    def __init__(self, how: str = "raise", length: int = 3) -> None:
        super().__init__(length)
        self._how = how

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, is_terminated, is_truncated, info = super().step(action)
        if self._step == 2:
            if self._how == "raise":
                raise OSError("the gripper is stuck")
            reward = np.nan if self._how == "reward" else reward
            observation[1] = np.inf if self._how == "observation" else observation[1]
        return observation, reward, is_terminated, is_truncated, info


def made_in_turn(*environments: Callable[[], gymnasium.Env]) -> Callable[[], gymnasium.Env]:
    """A `make` that takes each of these once, then the last one again and again."""
    waiting = list(environments)
    return lambda: (waiting.pop(0) if len(waiting) > 1 else waiting[0])()


def assert_same(one: Collected, other: Collected) -> None:
    """To the last bit, the exploration noise to come included."""
    assert_same_experience(one.experience, other.experience)
    assert one.finished == other.finished
    assert one.stands == other.stands
    assert one.failures == other.failures
    assert one.quarantined == other.quarantined


def assert_same_experience(one: Experience, other: Experience) -> None:
    for field in fields(Experience):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)
        assert getattr(one, field.name).dtype == getattr(other, field.name).dtype
