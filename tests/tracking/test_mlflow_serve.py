"""MLflow's own server, as docs/serving.md starts it, answers an HTTP client with the policy's actions."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks._http_load import answers, free_port, post, running, wait_until
from iql_ray.tracking.saved_policy import save_policy_model
from tests.tracking.examples import save_small_policy, small_policy

ROWS = np.random.default_rng(0).normal(size=(5, 3))


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("mlflow_serve"), free_port()
    save_policy_model(save_small_policy(folder / "policy"), folder / "model")
    programs = Path(sys.executable).parent
    arguments = ("models", "serve", "-m", str(folder / "model"), "--env-manager", "local", "--port", str(port))
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    command = [str(programs / "mlflow"), *arguments, "--host", "127.0.0.1"]
    with running(command, folder / "log", environment) as process:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/ping"), process, folder / "log")
        yield f"http://127.0.0.1:{port}/invocations"


def test_a_batch_and_a_single_observation_are_answered(url):
    assert post(url, {"inputs": ROWS.tolist()})[0] == 200
    np.testing.assert_allclose(
        post(url, {"inputs": ROWS.tolist()})[1]["predictions"], small_policy().act(ROWS), rtol=1e-5
    )
    alone = post(url, {"inputs": ROWS[0].tolist()})[1]["predictions"]
    np.testing.assert_allclose(alone, small_policy().act(ROWS[0]), rtol=1e-5)


def test_the_parameters_arrive(url):
    noisy = {"inputs": [[1.0, 2.0, 3.0]] * 30, "params": {"deterministic": False, "temperature": 0.5}}
    status, message = post(url, noisy)
    assert status == 200
    assert np.std(message["predictions"], axis=0).min() > 0


def test_a_wrong_observation_is_refused_with_its_shape(url):
    status, message = post(url, {"inputs": [[1.0, 2.0]]})
    assert status >= 400
    assert "observations have shape (1, 2), expected (3,) or (batch, 3)" in str(message)
