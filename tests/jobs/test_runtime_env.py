"""What we ship for `ray job submit`: Ray takes it, and sends what a job needs and nothing that a run has written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ray._private.runtime_env.packaging import _get_excludes
from ray.runtime_env import RuntimeEnv

from iql_ray.distributed.stopping import SAVE_SECONDS
from tests.jobs.head import ROOT


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "runtime_env.yaml").read_text())


def test_ray_takes_it(shipped: dict[str, Any]):
    assert RuntimeEnv(**shipped).env_vars() == shipped["env_vars"]


@pytest.mark.parametrize(
    ("path", "is_left_out"),
    [
        ("iql_ray/data/prepared.py", False),
        ("iql_ray/data/demo/README.md", False),
        ("iql_ray/report/figures.py", False),
        ("pipelines/train.py", False),
        ("pyproject.toml", False),
        ("constraints.txt", False),
        ("my_environment.py", False),
        ("data/pen/shard-00000.parquet", True),
        ("runs/mlflow.db", True),
        (".venv/bin/python", True),
        (".git/config", True),
        ("iql_ray/__pycache__/config.pyc", True),
    ],
)
def test_what_is_sent_along(shipped: dict[str, Any], path: str, is_left_out: bool):
    excluded = _get_excludes(ROOT, shipped["excludes"])
    whole = ROOT / path
    assert (
        any(excluded(each) for each in (whole, *(folder for folder in whole.parents if folder > ROOT))) is is_left_out
    )


def test_a_stop_waits_for_the_last_checkpoint_and_the_tracking_server(shipped: dict[str, Any]):
    from iql_ray.distributed.monitor import SERVER_TIMEOUT_SECONDS

    assert int(shipped["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) > SAVE_SECONDS + SERVER_TIMEOUT_SECONDS
