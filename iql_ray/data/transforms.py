"""Between the environment's units and the agent's: fitted once to a dataset, saved with the run, used everywhere.

The stored data stays raw. Numpy only; the shipped policy carries its own copy of the fitted numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from iql_ray.data.prepared import Manifest
from iql_ray.policy import ACTION_LIMIT

RETURN_RANGE = 1000.0
"""The authors scale locomotion rewards so that the best and the worst episode of the data differ by this."""

SMALLEST_STD = 1e-3
"""A nearly constant observation is not blown up by more than a thousand."""


@dataclass(frozen=True, kw_only=True)
class TransformConfig:
    """Which transforms to fit: r' = scale * r + shift, and observations to zero mean and unit deviation."""

    reward_scale: Literal["return-range"] | float = 1.0
    """A positive factor, or `return-range`: 1000 / (largest - smallest episode return of the data)."""
    reward_shift: float = 0.0
    """Added after scaling; the paper's antmaze has -1."""
    normalize_observations: bool = False
    """Subtract the data's mean and divide by its standard deviation; the paper does not."""

    def __post_init__(self) -> None:
        scale = self.reward_scale
        if scale != "return-range" and not (isinstance(scale, float | int) and math.isfinite(scale) and scale > 0):
            raise ValueError(f"reward_scale is {scale!r}, expected a positive number or 'return-range'")
        if not math.isfinite(self.reward_shift):
            raise ValueError(f"reward_shift is {self.reward_shift}, expected a finite number")


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """Fitted numbers, plain enough for JSON. Bounds are the environment's, empty where actions are discrete."""

    reward_scale: float = 1.0
    reward_shift: float = 0.0
    observation_mean: tuple[float, ...] | None = None
    observation_std: tuple[float, ...] | None = None
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()

    @classmethod
    def fit(cls, config: TransformConfig, manifest: Manifest) -> Transforms:
        """Fit to a prepared dataset.

        Raises:
            ValueError: `return-range` where all episodes have the same return.
        """
        observations = manifest.columns["observations"]
        is_normalized = config.normalize_observations
        return cls(
            reward_scale=_reward_scale(config, manifest),
            reward_shift=config.reward_shift,
            observation_mean=observations.mean if is_normalized else None,
            observation_std=tuple(max(std, SMALLEST_STD) for std in observations.std) if is_normalized else None,
            action_low=manifest.spaces.action_low,
            action_high=manifest.spaces.action_high,
        )

    def rewards(self, rewards: np.ndarray) -> np.ndarray:
        """Raw rewards of any shape as the agent learns from them, float32."""
        return np.asarray(rewards, np.float32) * np.float32(self.reward_scale) + np.float32(self.reward_shift)

    def observations(self, observations: np.ndarray) -> np.ndarray:
        """Raw observations (..., observation_dim) as the networks take them, float32."""
        observations = np.asarray(observations, np.float32)
        if self.observation_mean is None or self.observation_std is None:
            return observations
        return (observations - _array(self.observation_mean)) / _array(self.observation_std)

    def agent_actions(self, actions: np.ndarray) -> np.ndarray:
        """The environment's actions (..., action_dim) in the agent's open box, where the authors clip the data's.

        The way back is the policy's: `Policy.act`.
        """
        actions = np.asarray(actions, np.float32)
        if not self.action_low:
            return actions
        low, high = _array(self.action_low), _array(self.action_high)
        return np.clip(2 * (actions - low) / (high - low) - 1, -ACTION_LIMIT, ACTION_LIMIT).astype(np.float32)


def _array(values: tuple[float, ...]) -> np.ndarray:
    return np.asarray(values, np.float32)


def _reward_scale(config: TransformConfig, manifest: Manifest) -> float:
    if config.reward_scale != "return-range":
        return float(config.reward_scale)
    returns = manifest.episode_returns
    if returns.max <= returns.min:
        raise ValueError(
            f"reward_scale 'return-range' needs episodes of different returns, but all {manifest.num_episodes} return"
            f" {returns.min:g}; give a number instead"
        )
    return RETURN_RANGE / (returns.max - returns.min)
