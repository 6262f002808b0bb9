"""Limits on what may be executed: bounds narrower than the environment's, and how fast an action may change.

They stand between a policy and a system that can break. Nothing is learned or recorded here: the wrapper says what it
executed in `info["executed_action"]`, and whoever collects records that as the action.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from iql_ray.envs.catalog import make_env, name_of, spaces_of
from iql_ray.experience import Spaces

EXECUTED_ACTION = "executed_action"
"""The key in a step's info."""


@dataclass(frozen=True, kw_only=True)
class ActionLimits:
    """Limits in the environment's own units; a single number holds for every dimension, none is no limit.

    Raises:
        ValueError: numbers that are not finite, a lower limit above an upper one, a change that is not above 0.
    """

    low: tuple[float, ...] = ()
    """No action below; within the environment's bounds. Equal to `high`, it holds a dimension still."""
    high: tuple[float, ...] = ()
    """No action above; within the environment's bounds."""
    max_change: tuple[float, ...] = ()
    """An action is at most this far from the one executed before it in its episode."""
    rest_action: tuple[float, ...] = ()
    """What counts as executed before an episode's first action. Without it, `low` and `high` alone limit that one: a
    reset has left no action to start from."""

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if not all(map(math.isfinite, values)):
                raise ValueError(f"action limits: {name} is {values}, expected finite numbers")
        if any(change <= 0 for change in self.max_change):
            raise ValueError(f"action limits: max_change is {self.max_change}, expected numbers above 0")
        if self.rest_action and not self.max_change:
            raise ValueError("action limits: rest_action only has a meaning together with max_change, which is empty")

    def __bool__(self) -> bool:
        return any(vars(self).values())


NO_LIMITS = ActionLimits()


class Limiter:
    """Limits of one environment, ready to apply to actions of any batch shape.

    Args:
        limits: what to keep to.
        spaces: of the environment.
        what: the environment's name, for errors.

    Raises:
        ValueError: discrete actions, limits of another length than the actions, or outside the environment's bounds.
    """

    def __init__(self, limits: ActionLimits, spaces: Spaces, what: str = "the environment") -> None:
        if spaces.is_discrete:
            raise ValueError(f"action limits are for continuous actions; {what} has {spaces.num_actions} choices")
        own_low, own_high = np.array([spaces.action_low, spaces.action_high], np.float32)
        self.low = _per_dimension("low", limits.low, spaces, what, own_low)
        self.high = _per_dimension("high", limits.high, spaces, what, own_high)
        self.max_change = _per_dimension("max_change", limits.max_change, spaces, what, np.full_like(own_low, np.inf))
        rest = _per_dimension("rest_action", limits.rest_action, spaces, what, np.full_like(own_low, np.nan))
        self.rest_action = rest if limits.rest_action else None
        self._check_order(own_low, own_high, what)

    def _check_order(self, own_low: np.ndarray, own_high: np.ndarray, what: str) -> None:
        _check("low is above high", self.low > self.high, self.low, self.high, what)
        hint = "; limits can only narrow the environment's bounds"
        _check("low is below the environment's", self.low < own_low, self.low, own_low, what, hint)
        _check("high is above the environment's", self.high > own_high, self.high, own_high, what, hint)
        if self.rest_action is not None:
            nearest = np.clip(self.rest_action, self.low, self.high)
            _check("rest_action is outside the bounds", self.rest_action != nearest, self.rest_action, nearest, what)

    def within_bounds(self, actions: np.ndarray) -> np.ndarray:
        """The actions clipped to low and high, (..., action_dim) float32."""
        return np.clip(np.asarray(actions, np.float32), self.low, self.high)

    def executed(self, actions: np.ndarray, previous: np.ndarray | None) -> np.ndarray:
        """What may be executed: within the bounds, and within `max_change` of the previous, to float32's rounding.

        Args:
            actions: (..., action_dim), finite.
            previous: (..., action_dim), executed before these; None in an episode's beginning. From one outside the
                bounds by more than the change, the way back is not limited: bounds come first.

        Returns:
            (..., action_dim) float32.
        """
        previous = self.rest_action if previous is None else previous
        if previous is None:
            return self.within_bounds(actions)
        low = np.maximum(self.low, previous - self.max_change)
        return np.clip(np.asarray(actions, np.float32), low, np.minimum(self.high, previous + self.max_change))


def _per_dimension(name: str, values: tuple[float, ...], spaces: Spaces, what: str, default: np.ndarray) -> np.ndarray:
    if len(values) not in (0, 1, spaces.action_dim):
        raise ValueError(
            f"action limits: {name} has {len(values)} numbers, but {what} has {spaces.action_dim} action dimensions; "
            "give one number for all of them, or one for each"
        )
    return np.broadcast_to(np.asarray(values, np.float32), default.shape).copy() if values else default


def _check(problem: str, is_wrong: np.ndarray, got: np.ndarray, bound: np.ndarray, what: str, hint: str = "") -> None:
    for dimension in np.flatnonzero(is_wrong):
        numbers = f"{got[dimension]:g} and {bound[dimension]:g}"
        raise ValueError(f"action limits of {what}: {problem} in dimension {dimension}: {numbers}{hint}")


class LimitedActions(gymnasium.Wrapper):
    """Executes nothing outside the limits.

    Its action space is still the environment's, so that a policy fits it as before. `info["executed_action"]` of every
    step is what was executed, float32; where the environment within says that itself, its word counts, also as what
    the next action may differ from.

    Raises:
        ValueError: as `Limiter`; in `step`, an action that is not finite, which is not executed.
    """

    def __init__(self, env: gymnasium.Env, limits: ActionLimits) -> None:
        super().__init__(env)
        self._limiter = Limiter(limits, spaces_of(env), f"environment '{name_of(env)}'")
        self._previous: np.ndarray | None = None

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._previous = None
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        wanted = np.asarray(action, np.float32)
        if wanted.shape != self._limiter.low.shape or not np.isfinite(wanted).all():
            expected = f"{len(self._limiter.low)} finite numbers"
            raise ValueError(f"environment '{name_of(self.env)}' was to execute {action}, expected {expected}")
        executed = self._limiter.executed(wanted, self._previous)
        observation, reward, is_terminated, is_truncated, info = self.env.step(executed)
        self._previous = np.asarray(info.get(EXECUTED_ACTION, executed), np.float32)
        return observation, reward, is_terminated, is_truncated, {**info, EXECUTED_ACTION: self._previous.copy()}


def limited_env(environment_id: str, limits: ActionLimits, **kwargs: Any) -> gymnasium.Env:
    """`make_env` within limits; `functools.partial(limited_env, environment_id, limits)` is a maker that pickles."""
    environment = make_env(environment_id, **kwargs)
    try:
        return LimitedActions(environment, limits)
    except ValueError:
        environment.close()
        raise


def maker_of(environment_id: str, limits: ActionLimits, **kwargs: Any) -> Callable[[], gymnasium.Env]:
    """Makes the environment, as `make_env` with these arguments, within limits where there are any; pickles."""
    if limits:
        return partial(limited_env, environment_id, limits, **kwargs)
    return partial(make_env, environment_id, **kwargs)
