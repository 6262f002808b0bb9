"""Toy environments and policies: their episodes can be worked out by hand, or magnify any difference in a last bit."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from iql_ray.policy import Policy, PolicyDescription


class CountingEnv(gymnasium.Env):
    """One reward per step, 3 + seed % 4 steps; an even seed succeeds at step 2 alone. Observes (step, seed)."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, success_key: str | None = None, bad_step: int | None = None, bad_reward: float = np.nan) -> None:
        self._success_key = success_key
        self._bad_step = bad_step
        self._bad_reward = bad_reward
        self.num_resets = self.num_steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._seed, self._step = int(seed or 0), 0
        self.num_resets += 1
        return np.array([0, self._seed], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step += 1
        self.num_steps += 1
        is_success = self._seed % 2 == 0 and self._step == 2
        info = {self._success_key: is_success} if self._success_key else {}
        reward = self._bad_reward if self._step == self._bad_step else 1.0
        is_last = self._step == 3 + self._seed % 4
        return np.array([self._step, self._seed], np.float32), reward, is_last, False, info


class BrokenEnv(CountingEnv):
    """Fails in its second step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._step == 1:
            raise RuntimeError("broken on purpose")
        return super().step(action)


class ChaoticEnv(CountingEnv):
    """60 to 90 steps round a circle, pushed by the action: a difference is three times as large a step later."""

    step_seconds = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._state = float(self.np_random.uniform(0.1, 0.9))
        self._length = int(self.np_random.integers(60, 90))
        return np.array([self._state, 0.0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(self.step_seconds)
        self._step += 1
        self._state = (3.0 * self._state + 0.1 * float(action[0])) % 1.0
        is_last = self._step == self._length
        return np.array([self._state, self._step / 100], np.float32), self._state, False, is_last, {}


class SlowChaoticEnv(ChaoticEnv):
    """The same, taking its time."""

    step_seconds = 0.002


class UnluckyEnv(CountingEnv):
    """Raises in the second step of every episode."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._step == 1:
            raise OSError("the gripper is stuck")
        return super().step(action)


def not_an_environment() -> str:
    return "hello"


def random_policy(observation_dim: int = 2, action_dim: int = 1, bound: float = 1.0, seed: int = 0) -> Policy:
    """Two hidden layers of 32 with random weights."""
    generator = np.random.default_rng(seed)
    sizes = [observation_dim, 32, 32, action_dim]
    names = ["hidden.0", "hidden.1", "mean"]
    weights = {}
    for name, inputs, outputs in zip(names, sizes, sizes[1:], strict=False):
        weights[f"{name}.weight"] = generator.normal(scale=inputs**-0.5, size=(inputs, outputs)).astype(np.float32)
        weights[f"{name}.bias"] = generator.normal(scale=0.1, size=outputs).astype(np.float32)
    weights["log_std"] = np.full(action_dim, -1.0, np.float32)
    return Policy(weights, _description(observation_dim, action_dim, bound))


def zero_policy(observation_dim: int = 2, action_dim: int = 1, bound: float = 1.0) -> Policy:
    """All weights are zero, so the action is the middle of the box."""
    policy = random_policy(observation_dim, action_dim, bound)
    return Policy({name: np.zeros_like(value) for name, value in policy.weights.items()}, policy.description)


def balancing_policy(push: float = 100.0) -> Policy:
    """CartPole by hand: push (1 is right) to where the pole falls, and a little against the way the cart drifts.

    Observed are the cart's position and velocity, the pole's angle and angular velocity. `push` is the logit per
    radian: the larger, the closer is a sampled action to the most likely one.
    """
    leaning = np.array([0.05, 0.1, 1.0, 0.5], np.float32)
    weights = {
        "logits.weight": push * np.stack([-leaning / 2, leaning / 2], axis=1),
        "logits.bias": np.zeros(2, np.float32),
    }
    description = PolicyDescription(kind="categorical", observation_dim=4, num_hidden_layers=0, num_actions=2)
    return Policy(weights, description)


def _description(observation_dim: int, action_dim: int, bound: float) -> PolicyDescription:
    return PolicyDescription(
        observation_dim=observation_dim,
        num_hidden_layers=2,
        action_low=(-bound,) * action_dim,
        action_high=(bound,) * action_dim,
        log_std_min=-5.0,
        log_std_max=2.0,
    )
