"""A registered policy in a virtual environment that has neither this package, nor Ray, nor torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import gymnasium
import pytest

from iql_ray.evaluation.episodes import GROUP_WIDTH, run_group
from iql_ray.policy import Policy
from iql_ray.tracking import act
from iql_ray.tracking.registry import log_policy_model
from iql_ray.tracking.store import default_tracking_uri
from tests.evaluation.toys import random_policy
from tests.tracking.examples import client_of, new_storage
from tests.tracking.lone_environment import make_environment

SEEDS = (3, 1, 4)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """With what act.py says that it needs, and nothing else."""
    return make_environment(tmp_path_factory.mktemp("elsewhere") / "venv", ["mlflow", "gymnasium", "safetensors"])


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    return subprocess.run(
        [str(python), *arguments], env={**environment, **quiet}, cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ["iql_ray", "ray", "torch"])
def test_the_environment_has_none_of(python, tmp_path, name):
    assert f"No module named '{name}'" in run(python, "-c", f"import {name}", cwd=tmp_path).stderr


def test_a_registered_policy_earns_there_what_it_earns_here_to_the_last_digit(python, tmp_path, tmp_path_factory):
    policy = random_policy(observation_dim=3, action_dim=1, bound=2.0)
    (tmp_path / "policy").mkdir()
    policy.save(tmp_path / "policy")
    storage = new_storage(tmp_path, tmp_path_factory)
    client = client_of(storage)
    run_id = client.create_run(client.create_experiment("tests", str(storage / "mlartifacts"))).info.run_id
    logged = log_policy_model(client, run_id, tmp_path / "policy", register_as="pendulum")
    client.set_registered_model_alias("pendulum", "champion", str(logged.version))

    shutil.copy(act.__file__, tmp_path / "act.py")  # as its docstring says
    arguments = ("act.py", "models:/pendulum@champion", "Pendulum-v1", "--seeds", *map(str, SEEDS))
    done = run(python, *arguments, "--tracking-uri", default_tracking_uri(storage), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout.splitlines()[-1])
    assert there["imported"] == []
    assert there["episode_returns"] == returns_here(policy)


def returns_here(policy: Policy) -> list[float]:
    """As the platform evaluates: side by side in one group."""
    environments = [gymnasium.make("Pendulum-v1") for _ in range(GROUP_WIDTH)]
    return [result.episode_return for result in run_group(policy, environments, SEEDS)]
