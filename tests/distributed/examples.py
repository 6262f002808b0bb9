"""What the tests of training share: a tiny prepared dataset made without Ray, its packed rows, runs over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from iql_ray import checkpoint
from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.data.packing import pack
from iql_ray.data.prepared import read_manifest, shard_paths
from iql_ray.data.transforms import Transforms
from iql_ray.distributed.learner import Learner, RunPlan
from iql_ray.distributed.train_config import TrainConfig
from tests.data.examples import prepare_here, write_npz

ENVIRONMENT = "tests.evaluation.toys:CountingEnv"
"""Two observations, one action in [-1, 1], three to six steps an episode."""

STEPS_PER_EPISODE = 10


def tiny_columns(num_rows: int = 120, seed: int = 0) -> dict[str, np.ndarray]:
    """Random transitions in `ENVIRONMENT`'s spaces; episodes of ten steps terminate and are cut in turn."""
    generator = np.random.default_rng(seed)
    steps = np.arange(num_rows)
    is_last = (steps % STEPS_PER_EPISODE == STEPS_PER_EPISODE - 1) | (steps == num_rows - 1)
    is_even = steps // STEPS_PER_EPISODE % 2 == 0
    observations = generator.normal(size=(num_rows + 1, 2)).astype(np.float32)
    return {
        "observations": observations[:-1],
        "actions": generator.uniform(-1, 1, (num_rows, 1)).astype(np.float32),
        "rewards": generator.normal(size=num_rows).astype(np.float32),
        "next_observations": observations[1:],
        "terminations": is_last & is_even,
        "truncations": is_last & ~is_even,
    }


def tiny_dataset(folder: Path, num_rows: int = 120, seed: int = 0, rows_per_shard: int = 50) -> Path:
    """Prepared in several shards under `folder/tiny-SEED`."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = write_npz(folder / f"tiny-{seed}.npz", tiny_columns(num_rows, seed))
    dataset = folder / f"tiny-{seed}"
    prepare_here(spec, dataset, rows_per_shard=rows_per_shard)
    return dataset


def train_config(dataset: Path, **changes: Any) -> TrainConfig:
    """Twenty updates of eight by eight units, a checkpoint at ten, no environment."""
    settings: dict[str, Any] = {
        "dataset": str(dataset),
        "agent": IQLConfig(hidden_sizes=(8, 8), learning_rate=1e-2),
        "num_updates": 20,
        "batch_size": 16,
        "log_interval_updates": 4,
        "checkpoint_interval_updates": 10,
        "eval_interval_updates": 10,
        "device": "cpu",
    }
    return TrainConfig(**{**settings, **changes})


def plan_of(config: TrainConfig, run: Path) -> RunPlan:
    manifest = read_manifest(config.dataset)
    return RunPlan(
        config=config,
        run_folder=run,
        spaces=manifest.spaces,
        transforms=Transforms.fit(config.transforms, manifest),
        dataset_digest=manifest.digest,
        device="cpu",
    )


def all_rows(dataset: Path, transforms: Transforms) -> np.ndarray:
    """The dataset's packed rows in order, read in this process."""
    return pack(pa.concat_tables([pq.read_table(path) for path in shard_paths(dataset)]), transforms)


def learner_of(plan: RunPlan, rank: int = 0) -> Learner:
    """A learner that holds all rows and averages with nobody."""
    rows = torch.from_numpy(all_rows(Path(plan.config.dataset), plan.transforms))
    return Learner(plan, rows, rank, None)


class Notes:
    """A recorder that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.points: dict[int, dict[str, float]] = {}

    def record(self, update_count: int, metrics: dict[str, float]) -> None:
        self.events.append(("point", update_count))
        self.points[update_count] = metrics

    def checkpoint_saved(self, update_count: int) -> None:
        self.events.append(("checkpoint", update_count))

    def updates(self, kind: str) -> list[int]:
        return [update for name, update in self.events if name == kind]


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}


def different(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    """Names of tensors that are not equal to the last bit."""
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def final_tensors(run: Path, update_count: int) -> dict[str, Tensor]:
    return checkpoint.load(run, update_count).tensors
