"""What the tests of training share: a tiny prepared dataset made without Ray, its packed rows, runs over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from iql_ray import checkpoint
from iql_ray.algorithm.fqe_config import FQEConfig
from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.data.memory import GIB
from iql_ray.data.packing import pack
from iql_ray.data.prepared import read_manifest, shard_paths
from iql_ray.data.streaming import StreamedRows
from iql_ray.data.transforms import Transforms
from iql_ray.distributed.data_memory import groups_per_window
from iql_ray.distributed.learner import Learner, RunPlan
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.train_config import TrainConfig
from tests.data.examples import prepare_here, write_npz

ENVIRONMENT = "tests.evaluation.toys:CountingEnv"
"""Two observations, one action in [-1, 1], three to six steps an episode."""

STEPS_PER_EPISODE = 10

TINY_BUDGET = FQEConfig(fqe_members=2, fqe_updates=20, fqe_hidden_sizes=(8,), fqe_batch_size=16)
"""Of fitted Q evaluation: too little to learn anything by."""

NUM_STREAMED_ROWS = 3000
SMALL_LIMIT = 35_000 / GIB
"""Less than the shares of two learners of so many rows; windows are then of a few shards of fifty rows each."""


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
    """Twenty updates of eight by eight units, a checkpoint at ten, no environment, next to nothing spent on FQE."""
    settings: dict[str, Any] = {
        "dataset": str(dataset),
        "agent": IQLConfig(hidden_sizes=(8, 8), learning_rate=1e-2),
        "num_updates": 20,
        "batch_size": 16,
        "log_interval_updates": 4,
        "checkpoint_interval_updates": 10,
        "eval_interval_updates": 10,
        "device": "cpu",
        "fqe": TINY_BUDGET,
    }
    return TrainConfig(**{**settings, **changes})


def search_config(dataset: Path, storage: Path, **changes: Any) -> SearchConfig:
    """Two seeds, two expectiles, two inverse temperatures: two trials of four members."""
    base = {field: getattr(train_config(dataset), field) for field in TrainConfig.__dataclass_fields__}
    settings = {
        "storage": str(storage),
        "env": ENVIRONMENT,
        "seeds": (0, 1),
        "expectiles": (0.6, 0.9),
        "inverse_temperatures": (1.0, 5.0),
        "members_per_trial": 4,
        "num_eval_episodes": 2,
        "num_final_episodes": 4,
    }
    return SearchConfig(**{**base, **settings, **changes})


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


def shards_of(plan: RunPlan) -> Sequence[Tensor | StreamedRows]:
    """What each learner of the run has, by rank, as on Ray: equal parts of the rows, or a stream."""
    config = plan.config
    if config.memory_limit is not None:
        return [streamed_rows(plan)] * config.num_learners
    rows = all_rows(Path(config.dataset), plan.transforms)
    bounds = [len(rows) * shard // config.num_learners for shard in range(1, config.num_learners)]
    return [torch.from_numpy(shard) for shard in np.split(rows, bounds)]


def streamed_rows(plan: RunPlan) -> StreamedRows:
    """The stream that the run's memory limit asks for."""
    config, manifest = plan.config, read_manifest(plan.config.dataset)
    assert config.memory_limit is not None
    groups = groups_per_window(config, manifest, manifest.num_rows, config.memory_limit)
    assert groups is not None, "the dataset fits"
    return StreamedRows.of(
        Path(config.dataset), manifest, plan.transforms, groups_per_window=groups, num_learners=config.num_learners
    )


def learner_of(plan: RunPlan, rank: int = 0) -> Learner:
    """A learner that averages with nobody and holds all rows, or streams its share where the memory is limited."""
    if plan.config.memory_limit is not None:
        return Learner(plan, streamed_rows(plan), rank, None)
    rows = torch.from_numpy(all_rows(Path(plan.config.dataset), plan.transforms))
    return Learner(plan, rows, rank, None)


class Notes:
    """A recorder that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.points: dict[int, dict[str, float]] = {}

    def record(self, step: int, metrics: dict[str, float]) -> None:
        self.events.append(("point", step))
        self.points[step] = metrics

    def checkpoint_saved(self, update_count: int, step: int) -> None:
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
