"""The policy as its users hold it: raw observations in, actions in the environment's own bounds out.

This one file is shipped inside every registered model, so it imports numpy and safetensors and nothing else:
no torch, no ray, nothing of this package. Evaluation, finetuning and the registered model all act through it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHTS_FILE = "weights.safetensors"
DESCRIPTION_FILE = "policy.json"
ACTION_LIMIT = 1.0 - 1e-5
"""Sampled and mean actions stay inside the open box of the agent, as the data's did in training."""

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True)
class PolicyDescription:
    """Everything about a Gaussian policy that is not a weight.

    The network is `num_hidden_layers` times (matrix product, bias, ReLU), then `mean`, then tanh.
    """

    observation_dim: int
    num_hidden_layers: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    log_std_min: float
    log_std_max: float
    observation_mean: tuple[float, ...] | None = None
    observation_std: tuple[float, ...] | None = None
    kind: str = "gaussian"
    format_version: int = 1


class Policy:
    """A Gaussian policy over a box of actions.

    Args:
        weights: `hidden.K.weight` (in, out), `hidden.K.bias` (out,), `mean.weight`, `mean.bias`, `log_std`; float32.
        description: sizes, bounds and the observation normaliser.
    """

    def __init__(self, weights: dict[str, Array], description: PolicyDescription) -> None:
        if description.kind != "gaussian" or description.format_version != 1:
            raise ValueError(f"this version acts with kind 'gaussian', format 1; the policy says {description}")
        self.weights = weights
        self.description = description
        self._hidden = [
            (weights[f"hidden.{layer}.weight"], weights[f"hidden.{layer}.bias"])
            for layer in range(description.num_hidden_layers)
        ]
        self._standard_deviation = np.exp(np.clip(weights["log_std"], description.log_std_min, description.log_std_max))
        self._low = np.asarray(description.action_low, np.float32)
        self._high = np.asarray(description.action_high, np.float32)
        self._mean = np.asarray(description.observation_mean or 0.0, np.float32)
        self._std = np.asarray(description.observation_std or 1.0, np.float32)

    def act(
        self, observations: Any, *, temperature: float = 0.0, generator: np.random.Generator | None = None
    ) -> Array:
        """Actions for raw observations.

        Args:
            observations: (observation_dim,) or (batch, observation_dim), any real dtype.
            temperature: scales the policy's standard deviation; 0 acts at the mean, as the paper evaluates.
            generator: the source of noise where temperature is above 0.

        Returns:
            (action_dim,) or (batch, action_dim), float32, within the environment's bounds.
        """
        inputs = np.asarray(observations, np.float32)
        if inputs.ndim not in (1, 2) or inputs.shape[-1] != self.description.observation_dim:
            expected = self.description.observation_dim
            raise ValueError(f"observations have shape {inputs.shape}, expected ({expected},) or (batch, {expected})")
        units = self._unit_means(inputs)
        if temperature > 0.0:
            noise = (generator or np.random.default_rng()).standard_normal(units.shape, np.float32)
            units = units + np.float32(temperature) * self._standard_deviation * noise
        units = np.clip(units, -ACTION_LIMIT, ACTION_LIMIT)
        actions = self._low + (units + 1) / 2 * (self._high - self._low)
        return np.clip(actions, self._low, self._high).astype(np.float32)

    def _unit_means(self, observations: Array) -> Array:
        """The policy's mean in (-1, 1), before it is scaled to the environment's bounds."""
        features = (observations - self._mean) / self._std
        for weight, bias in self._hidden:
            features = np.maximum(features @ weight + bias, 0)
        return np.tanh(features @ self.weights["mean.weight"] + self.weights["mean.bias"])

    def save(self, folder: str | Path) -> None:
        """Write weights and description into `folder`, which must exist."""
        save_file(
            {name: np.ascontiguousarray(value) for name, value in self.weights.items()}, Path(folder) / WEIGHTS_FILE
        )
        (Path(folder) / DESCRIPTION_FILE).write_text(json.dumps(asdict(self.description), indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Policy:
        """Read what `save` wrote."""
        values = json.loads((Path(folder) / DESCRIPTION_FILE).read_text())
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(load_file(Path(folder) / WEIGHTS_FILE), PolicyDescription(**{**values, **lists}))
