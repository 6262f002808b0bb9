"""MLflow's own server, as docs/serving.md starts it, answers an HTTP client with the policy's actions."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks._http_load import answers, free_port, post, running, wait_until
from tests.documented import commands, replaced
from tests.tracking.examples import small_policy
from tests.tracking.registered import NAME, Registry

ROWS = np.random.default_rng(0).normal(size=(5, 3))


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("mlflow_serve"), free_port()
    registry = Registry(folder, tmp_path_factory)
    registry.crown(registry.register(small_policy()))
    (documented,) = commands("serving.md", "mlflow models serve")
    command = replaced(documented, {"models:/pendulum@champion": f"models:/{NAME}@champion", "5001": str(port)})
    programs = Path(sys.executable).parent
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": registry.tracking_uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    with running([str(programs / command[0]), *command[1:]], folder / "log", environment) as process:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/ping"), process, folder / "log")
        yield f"http://127.0.0.1:{port}/invocations"


def test_the_documented_request_is_answered(url):
    (request,) = [words for words in commands("serving.md", "curl") if ":5001" in words[1]]
    status, message = post(url, request[request.index("-d") + 1].encode())
    assert status == 200
    np.testing.assert_allclose(message["predictions"], small_policy().act([[1.0, 0.0, 0.5]]), rtol=1e-5)


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
