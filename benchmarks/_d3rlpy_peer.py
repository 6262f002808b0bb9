"""d3rlpy's fitted Q evaluation of the policies of one case: a peer to measure against, nothing else.

    python benchmarks/_d3rlpy_peer.py FOLDER NUM_UPDATES

Needs d3rlpy, which the project does not. FOLDER is what `fqe.py` writes: data.npz and one npz per policy. Everything is
d3rlpy's default but the number of updates, the discount and standardised observations. One thread. Each line of stdout
is the JSON of one policy.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import d3rlpy  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from d3rlpy.logging import NoopAdapterFactory  # pyright: ignore[reportMissingImports]

NUM_STEPS_PER_EPOCH = 500


class PolicyModule:
    """What d3rlpy asks of an algorithm's implementation: actions for (already scaled) observations."""

    def __init__(self, arrays: dict[str, np.ndarray], mean: np.ndarray, std: np.ndarray) -> None:
        self.tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        self.mean, self.std = torch.from_numpy(mean), torch.from_numpy(std)
        self.num_hidden_layers = sum(name.startswith("hidden.") for name in arrays) // 2
        self.is_discrete = "logits.weight" in arrays

    def outputs(self, scaled: torch.Tensor) -> torch.Tensor:
        features = scaled * self.std + self.mean
        if "observation_mean" in self.tensors:
            features = (features - self.tensors["observation_mean"]) / self.tensors["observation_std"]
        for layer in range(self.num_hidden_layers):
            weight, bias = self.tensors[f"hidden.{layer}.weight"], self.tensors[f"hidden.{layer}.bias"]
            features = torch.relu(features @ weight + bias)
        name = "logits" if self.is_discrete else "mean"
        return features @ self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def predict_best_action(self, scaled: torch.Tensor) -> torch.Tensor:
        """In [-1, 1]; a discrete policy draws from its probabilities, since d3rlpy takes one action per state."""
        with torch.no_grad():
            outputs = self.outputs(scaled)
            return torch.distributions.Categorical(logits=outputs).sample() if self.is_discrete else outputs.tanh()


def scaled_dataset(data: dict[str, np.ndarray]) -> tuple[Any, np.ndarray, np.ndarray]:
    """d3rlpy's dataset of standardised observations, and the statistics."""
    mean, std = data["observations"].mean(0), np.maximum(data["observations"].std(0), 1e-3)
    is_discrete = bool(data["is_discrete"])
    actions = data["actions"].astype(np.int64) if is_discrete else data["actions"]
    dataset = d3rlpy.dataset.MDPDataset(
        observations=((data["observations"] - mean) / std).astype(np.float32),
        actions=actions,
        rewards=data["rewards"],
        terminals=data["terminations"].astype(np.float32),
        timeouts=data["truncations"].astype(np.float32),
        action_space=d3rlpy.ActionSpace.DISCRETE if is_discrete else d3rlpy.ActionSpace.CONTINUOUS,
    )
    return dataset, mean, std


def estimate(module: PolicyModule, dataset: Any, data: dict[str, np.ndarray], num_updates: int) -> float:
    """Mean value of the held-out first observations."""
    config = d3rlpy.ope.FQEConfig(gamma=float(data["discount"]))
    algorithm: Any = SimpleNamespace(impl=module)
    evaluation = (d3rlpy.ope.DiscreteFQE if module.is_discrete else d3rlpy.ope.FQE)(algorithm, config)
    evaluation.fit(
        dataset,
        n_steps=num_updates,
        n_steps_per_epoch=min(NUM_STEPS_PER_EPOCH, num_updates),
        show_progress=False,
        logger_adapter=NoopAdapterFactory(),
    )
    first = ((data["initial_observations"] - module.mean.numpy()) / module.std.numpy()).astype(np.float32)
    if not module.is_discrete:
        actions = module.predict_best_action(torch.from_numpy(first)).numpy()
        return float(evaluation.predict_value(first, actions).mean())
    probabilities = torch.softmax(module.outputs(torch.from_numpy(first)), -1).numpy()
    values = [evaluation.predict_value(first, np.full(len(first), action)) for action in range(probabilities.shape[1])]
    return float((probabilities * np.stack(values, 1)).sum(1).mean())


def main() -> int:
    folder, num_updates = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    d3rlpy.seed(0)
    data = dict(np.load(folder / "data.npz"))
    dataset, mean, std = scaled_dataset(data)
    for path in sorted((folder / "policies").glob("*.npz")):
        started = time.perf_counter()
        value = estimate(PolicyModule(dict(np.load(path)), mean, std), dataset, data, num_updates)
        print(
            json.dumps({"index": int(path.stem), "value": value, "seconds": time.perf_counter() - started}), flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
