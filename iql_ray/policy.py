"""The policy as its users hold it: raw observations in, actions as the environment takes them out.

This one file is shipped inside every registered model, so it imports numpy and safetensors and nothing else:
no torch, no ray, nothing of this package. Evaluation, finetuning and the registered model all act through it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

WEIGHTS_FILE = "weights.safetensors"
DESCRIPTION_FILE = "policy.json"
SUMS_FILE = "SHA256SUMS"
"""What a policy that travels says of its own files; `sha256sum --check SHA256SUMS` reads it too."""
FORMAT_VERSION = 1
MAX_ROWS = 65_536
"""A larger batch is acted on piece by piece, so that what its layers hold stays small."""
ACTION_LIMIT = 1.0 - 1e-5
"""Sampled and mean actions stay inside the open box of the agent, as the data's did in training."""
KIND_FIELDS = {
    "gaussian": ("action_low", "action_high", "log_std_min", "log_std_max"),
    "categorical": ("num_actions",),
}
"""What a description says of one kind of policy alone: given for that kind, left out for every other."""

Array = np.ndarray[Any, np.dtype[np.float32]]
Weights = dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class PolicyDescription:
    """Everything about a policy that is not a weight.

    The network is `num_hidden_layers` times (matrix product, bias, ReLU), then one layer more: `mean` and tanh where
    the policy is Gaussian over a box of actions, `logits` where it is categorical over `num_actions` choices.
    """

    observation_dim: int
    num_hidden_layers: int
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    log_std_min: float | None = None
    log_std_max: float | None = None
    num_actions: int | None = None
    observation_mean: tuple[float, ...] | None = None
    observation_std: tuple[float, ...] | None = None
    observation_parts: tuple[dict[str, Any], ...] = ()
    """What a nested observation is made of, in the vector's order: `keys`, the way to each part, its `shape`, and
    its `choices`, the [first, number] of each discrete entry."""
    kind: str = "gaussian"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.kind not in KIND_FIELDS or self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"the policy is of kind '{self.kind}', format {self.format_version}; this version acts with the kinds "
                f"{', '.join(KIND_FIELDS)}, format {FORMAT_VERSION}"
            )
        for kind, names in KIND_FIELDS.items():
            for name in names:
                if _is_given(getattr(self, name)) != (kind == self.kind):
                    verb = "needs" if kind == self.kind else "has no"
                    raise ValueError(f"a {self.kind} policy {verb} {name}, got {name} = {getattr(self, name)}")
        self._check_sizes()

    def _check_sizes(self) -> None:
        if len(self.action_low) != len(self.action_high):
            raise ValueError(f"action bounds differ in length: {self.action_low} and {self.action_high}")
        if self.num_actions is not None and self.num_actions < 1:
            raise ValueError(f"num_actions is {self.num_actions}, expected at least 1")
        for name in ("observation_mean", "observation_std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.observation_dim:
                raise ValueError(f"{name} has {len(values)} numbers, expected observation_dim = {self.observation_dim}")


def _is_given(value: Any) -> bool:
    return value is not None and value != ()


class _GaussianHead:
    """Normal around tanh of the last layer in the agent's (-1, 1), scaled to the environment's box."""

    def __init__(self, weights: Weights, description: PolicyDescription) -> None:
        self._weight, self._bias = weights["mean.weight"], weights["mean.bias"]
        limits = description.log_std_min, description.log_std_max
        self._standard_deviation = np.exp(np.clip(weights["log_std"], *limits))
        self._low = np.asarray(description.action_low, np.float32)
        self._high = np.asarray(description.action_high, np.float32)

    @staticmethod
    def shapes(description: PolicyDescription, width: int) -> dict[str, tuple[int, ...]]:
        action_dim = len(description.action_low)
        return {"mean.weight": (width, action_dim), "mean.bias": (action_dim,), "log_std": (action_dim,)}

    def act(self, features: Array, temperature: float, generator: np.random.Generator | None) -> Array:
        units = np.tanh(features @ self._weight + self._bias)
        if temperature > 0.0:
            noise = (generator or np.random.default_rng()).standard_normal(units.shape, np.float32)
            units = units + np.float32(temperature) * self._standard_deviation * noise
        units = np.clip(units, -ACTION_LIMIT, ACTION_LIMIT)
        actions = self._low + (units + 1) / 2 * (self._high - self._low)
        return np.clip(actions, self._low, self._high).astype(np.float32)


class _CategoricalHead:
    """Softmax of the last layer over the temperature: towards 0 the most likely action, the first of equals."""

    def __init__(self, weights: Weights, description: PolicyDescription) -> None:
        self._weight, self._bias = weights["logits.weight"], weights["logits.bias"]

    @staticmethod
    def shapes(description: PolicyDescription, width: int) -> dict[str, tuple[int, ...]]:
        assert description.num_actions is not None
        return {"logits.weight": (width, description.num_actions), "logits.bias": (description.num_actions,)}

    def act(self, features: Array, temperature: float, generator: np.random.Generator | None) -> Any:
        logits = self._logits(features)
        if temperature == 0.0:
            return logits.argmax(-1)
        cumulative = _exponentials(logits, temperature).cumsum(-1)
        # One uniform number per row, below 1: its place among the cumulative weights is the action.
        uniform = (generator or np.random.default_rng()).random((*logits.shape[:-1], 1))
        return (cumulative <= uniform * cumulative[..., -1:]).sum(-1)

    def probabilities(self, features: Array, temperature: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        logits = self._logits(features)
        if temperature == 0.0:
            return np.eye(logits.shape[-1])[logits.argmax(-1)]
        weights = _exponentials(logits, temperature)
        return weights / weights.sum(-1, keepdims=True)

    def _logits(self, features: Array) -> Array:
        logits = features @ self._weight + self._bias
        if not np.isfinite(logits).all():  # argmax would call the first nan the most likely action
            raise ValueError(f"the policy's logits are not finite: {logits}; its weights or the observations are not")
        return logits


def _exponentials(logits: Array, temperature: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """exp(logits / temperature) up to a factor per row: the largest is 1, so that nothing overflows."""
    exact = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # a tiny temperature takes all but the largest to -inf, and from there to 0
        return np.exp((exact - exact.max(-1, keepdims=True)) / temperature)


_HEADS = {"gaussian": _GaussianHead, "categorical": _CategoricalHead}


class Policy:
    """A policy over a box of actions (Gaussian) or over a number of choices (categorical).

    Args:
        weights: float32; `hidden.K.weight` (in, out) and `hidden.K.bias` (out,) for each hidden layer, then
            `mean.weight`, `mean.bias`, `log_std` (Gaussian) or `logits.weight`, `logits.bias` (categorical).
        description: kind, sizes, bounds and the observation normaliser.

    Raises:
        ValueError: the weights are not those that the description promises.
    """

    def __init__(self, weights: Weights, description: PolicyDescription) -> None:
        _check_weights(weights, description)
        self.weights = weights
        self.description = description
        self._hidden = [
            (weights[f"hidden.{layer}.weight"], weights[f"hidden.{layer}.bias"])
            for layer in range(description.num_hidden_layers)
        ]
        self._head = _HEADS[description.kind](weights, description)
        self._mean = np.asarray(description.observation_mean or 0.0, np.float32)
        self._std = np.asarray(description.observation_std or 1.0, np.float32)

    def act(self, observations: Any, *, temperature: float = 0.0, generator: np.random.Generator | None = None) -> Any:
        """Actions for raw observations.

        Args:
            observations: (observation_dim,) or (batch, observation_dim), any real dtype, a batch of any size.
            temperature: 0 acts at the Gaussian's mean, as the paper evaluates, or takes the most likely action (the
                first of equals). Above 0 it scales the Gaussian's standard deviation, or samples from
                softmax(logits / temperature).
            generator: the source of noise where temperature is above 0.

        Returns:
            Gaussian: (action_dim,) or (batch, action_dim), float32, within the environment's bounds.
            Categorical: one numpy int64 or (batch,), int64, each in 0 .. num_actions - 1.

        Raises:
            ValueError: observations of another shape, a temperature below 0, or logits that are not finite.
        """
        temperature = _checked_temperature(temperature)
        inputs = self.inputs(observations)
        if inputs.ndim == 1 or len(inputs) <= MAX_ROWS:
            return self._head.act(self._features(inputs), temperature, generator)
        generator = generator or np.random.default_rng()
        pieces = (inputs[start : start + MAX_ROWS] for start in range(0, len(inputs), MAX_ROWS))
        return np.concatenate([self._head.act(self._features(piece), temperature, generator) for piece in pieces])

    def probabilities(self, observations: Any, temperature: float = 1.0) -> np.ndarray[Any, np.dtype[np.float64]]:
        """How likely a categorical policy takes each action at this temperature.

        Args:
            observations: (observation_dim,) or (batch, observation_dim), any real dtype.
            temperature: 0 gives all to the most likely action.

        Returns:
            (num_actions,) or (batch, num_actions), float64, summing to 1.

        Raises:
            ValueError: the policy is Gaussian, or as `act`.
        """
        if not isinstance(self._head, _CategoricalHead):
            raise ValueError(f"only a categorical policy has probabilities, this one is {self.description.kind}")
        features = self._features(self.inputs(observations))
        return self._head.probabilities(features, _checked_temperature(temperature))

    def inputs(self, observations: Any) -> Array:
        """Raw observations as this policy's vectors: (observation_dim,) or (batch, observation_dim), float32.

        Raises:
            ValueError: observations of another shape, or without a part that the policy needs.
        """
        parts = self.description.observation_parts
        is_nested = bool(parts) and isinstance(observations, tuple if isinstance(parts[0]["keys"][0], int) else dict)
        inputs = _flattened(parts, observations) if is_nested else np.asarray(observations, np.float32)
        if inputs.ndim not in (1, 2) or inputs.shape[-1] != self.description.observation_dim:
            expected = self.description.observation_dim
            raise ValueError(f"observations have shape {inputs.shape}, expected ({expected},) or (batch, {expected})")
        return inputs

    def _features(self, inputs: Array) -> Array:
        """What the last hidden layer says of raw observations."""
        features = (inputs - self._mean) / self._std
        for weight, bias in self._hidden:
            features = np.maximum(features @ weight + bias, 0)
        return features

    def save(self, folder: str | Path) -> None:
        """Write weights and description into `folder`, which must exist."""
        save_file(
            {name: np.ascontiguousarray(value) for name, value in self.weights.items()}, Path(folder) / WEIGHTS_FILE
        )
        unsaid = {name for kind, names in KIND_FIELDS.items() if kind != self.description.kind for name in names}
        if not self.description.observation_parts:
            unsaid.add("observation_parts")
        values = {name: value for name, value in asdict(self.description).items() if name not in unsaid}
        (Path(folder) / DESCRIPTION_FILE).write_text(json.dumps(values, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Policy:
        """Read what `save` wrote, checked against the sums where the folder has any.

        Raises:
            ValueError: the files are damaged or changed, of another format, or do not belong together.
        """
        try:
            check_sums(folder)
            values = dict(json.loads((Path(folder) / DESCRIPTION_FILE).read_text()))
            lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
            return cls(load_file(Path(folder) / WEIGHTS_FILE), PolicyDescription(**{**values, **lists}))
        except (ValueError, TypeError, SafetensorError) as error:
            raise ValueError(f"{folder} holds no policy that this version can act with: {error}") from error


def _flattened(parts: tuple[dict[str, Any], ...], nested: Any) -> Array:
    """One vector of a nested observation, or one of each row of a batch, as `gymnasium.spaces.flatten` makes it."""
    try:
        pieces = [_flat_part(nested, **part) for part in parts]
        return np.concatenate(pieces, axis=-1, dtype=np.float32)
    except (LookupError, TypeError, ValueError) as error:
        names = ", ".join("/".join(map(str, part["keys"])) for part in parts)
        raise ValueError(f"the observation does not have the parts {names} of the policy: {error}") from error


def _flat_part(nested: Any, keys: list[Any], shape: list[int], choices: list[list[int]]) -> Any:
    for key in keys:
        nested = nested[key]
    values = np.asarray(nested)
    rows = values.shape[: max(0, values.ndim - len(shape))]
    if len(rows) > 1 or values.shape != (*rows, *shape):
        raise ValueError(
            f"'{'/'.join(map(str, keys))}' has shape {values.shape}, expected {(*shape,)} or a batch of it"
        )
    values = values.reshape(*rows, -1)
    if not choices:
        return values
    hot = [values[..., i, None] == np.arange(first, first + number) for i, (first, number) in enumerate(choices)]
    if not all(each.any(-1).all() for each in hot):
        raise ValueError(f"'{'/'.join(map(str, keys))}' holds an index that is no choice of {choices}")
    return np.concatenate(hot, axis=-1)


def check_sums(folder: str | Path) -> None:
    """Refuse a folder whose files are not those that its sums were taken of; a folder without sums passes.

    Raises:
        ValueError: a file is missing or was changed, weights and description first of all.
    """
    sums = Path(folder) / SUMS_FILE
    if not sums.is_file():
        return
    recorded = {name: digest for digest, _, name in (line.partition("  ") for line in sums.read_text().splitlines())}
    for name in (WEIGHTS_FILE, DESCRIPTION_FILE, *recorded):
        path = Path(folder) / name
        if not path.is_file() or _sha256(path) != recorded.get(name):
            raise ValueError(f"{name} is missing or was changed since its sha256 was recorded in {SUMS_FILE}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked_temperature(temperature: float) -> float:
    if not 0.0 <= temperature < math.inf:
        raise ValueError(f"temperature is {temperature}, expected 0 or more, and finite")
    return temperature


def _check_weights(weights: Weights, description: PolicyDescription) -> None:
    """Refuse weights of another network than the one described, before a matrix product does."""
    expected = _expected_shapes(weights, description)
    if missing := expected.keys() - weights.keys():
        raise ValueError(f"a {description.kind} policy needs the weights {sorted(missing)}, got {sorted(weights)}")
    if unknown := weights.keys() - expected.keys():
        raise ValueError(f"unknown weights {sorted(unknown)}; this {description.kind} policy has {sorted(expected)}")
    for name, shape in expected.items():
        if weights[name].shape != shape or weights[name].dtype != np.float32:
            got = f"{weights[name].dtype} of shape {weights[name].shape}"
            raise ValueError(f"the policy's weight '{name}' is {got}, expected float32 of shape {shape}")


def _expected_shapes(weights: Weights, description: PolicyDescription) -> dict[str, tuple[int, ...]]:
    """Shape of every weight by name; a hidden layer is as wide as its bias is long."""
    shapes: dict[str, tuple[int, ...]] = {}
    width = description.observation_dim
    for layer in range(description.num_hidden_layers):
        inputs, width = width, np.size(weights.get(f"hidden.{layer}.bias", ()))
        shapes |= {f"hidden.{layer}.weight": (inputs, width), f"hidden.{layer}.bias": (width,)}
    return {**shapes, **_HEADS[description.kind].shapes(description, width)}
