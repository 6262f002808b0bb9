"""What all tests share: a clean environment, one Ray session for the whole run, the markers that follow from use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from pipelines import ray_session as sessions

FOREIGN = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID")


def pytest_configure() -> None:
    """Before any test module is imported: no test joins a developer's cluster, writes to their store, calls home."""
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", MLFLOW_DISABLE_TELEMETRY="true", MPLBACKEND="Agg")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for the Ray session is a `ray` test, before `-m` selects; `gpu` without CUDA is skipped."""
    for item in items:
        if "ray_session" in getattr(item, "fixturenames", ()):
            item.add_marker("ray")
        if item.get_closest_marker("gpu") and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> Iterator[None]:
    """A test that leaves them counted as zero fails, instead of one that comes later in its process."""
    yield
    assert sys.float_info.min / 2 > 0, "this test has left the process counting subnormal numbers as zero"


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray, started once: starting costs seconds. Four logical CPUs, however many cores there are."""
    with sessions.ray_session(num_cpus=4):
        yield
