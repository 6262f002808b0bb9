"""What the tracking tests share: a small policy, a storage whose store is not built anew, a curve as MLflow has it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from iql_ray.policy import Policy, PolicyDescription
from iql_ray.tracking.runs import Pace, RunLogger
from iql_ray.tracking.store import default_tracking_uri, open_client

QUICK = Pace(ship_seconds=0.05, sample_seconds=None, start_wait_seconds=0.2)


def new_storage(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty storage with its SQLite store: a copy of one made once, because MLflow takes seconds to make it."""
    template = tmp_path_factory.getbasetemp() / "template.db"
    if not template.exists():
        open_client(f"sqlite:///{template}")
    storage = tmp_path / "runs"
    storage.mkdir()
    shutil.copy(template, storage / "mlflow.db")
    return storage


def start(storage: Path, tracking_uri: str | None = None) -> RunLogger:
    return RunLogger.start(storage=storage, experiment="tests", tracking_uri=tracking_uri, pace=QUICK)


def client_of(storage: Path):
    return open_client(default_tracking_uri(storage))


def history(client, run_id: str, name: str) -> list[tuple[int, float]]:
    """The curve as MLflow has it: (step, value) by step."""
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))


def small_policy(seed: int = 0) -> Policy:
    """Three observations, two actions in [-2, 2] and [-1, 3], four hidden units."""
    generator = np.random.default_rng(seed)
    shapes = {
        "hidden.0.weight": (3, 4),
        "hidden.0.bias": (4,),
        "mean.weight": (4, 2),
        "mean.bias": (2,),
        "log_std": (2,),
    }
    description = PolicyDescription(
        observation_dim=3,
        num_hidden_layers=1,
        action_low=(-2.0, -1.0),
        action_high=(2.0, 3.0),
        log_std_min=-5.0,
        log_std_max=2.0,
        observation_mean=(0.5, 0.0, -0.5),
        observation_std=(2.0, 1.0, 0.5),
    )
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return Policy(weights, description)


def save_small_policy(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    small_policy(seed).save(folder)
    return folder
