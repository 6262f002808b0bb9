"""A tracking server that is away, comes late, or never comes: the run goes on, its record arrives or waits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iql_ray.tracking.registry import download_policy
from iql_ray.tracking.runs import RunLogger
from iql_ray.tracking.spool import count_waiting
from iql_ray.tracking.store import RUN_ID_TAG, load_address, open_client
from iql_ray.tracking.synchronization import synchronize
from tests.tracking.examples import QUICK, history, new_storage, save_small_policy
from tests.tracking.promoters import promote
from tests.tracking.test_runs import wait_until


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def serving(storage: Path, port: int) -> Iterator[None]:
    """A real `mlflow server` on the storage's database, as small as it can be, until the block ends."""
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{storage}/mlflow.db"),
            *("--artifacts-destination", str(storage / "mlartifacts")),
        ],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: is_healthy(port), timeout_seconds=90.0)
        yield
    finally:
        server.terminate()
        server.wait(timeout=30)


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1.0) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def start_against(storage: Path, port: int) -> RunLogger:
    uri = f"http://127.0.0.1:{port}"
    return RunLogger.start(storage=storage, experiment="tests", tracking_uri=uri, pace=QUICK)


def test_a_dead_server_neither_stops_logging_nor_loses_a_point(tmp_path, port):
    logger = start_against(tmp_path, port)
    for step in range(1000):
        logger.log_metrics(step, {"loss": step})
    assert not logger.close(timeout_seconds=0.0)
    assert load_address(logger.folder).mlflow_run_id is None
    assert logger.folder == tmp_path / logger.run_id
    assert count_waiting(logger.folder) == 1 + 1000 + 1  # tags, points, status


def test_sending_to_a_dead_server_says_how_much_waits(tmp_path, port):
    logger = start_against(tmp_path, port)
    assert not logger.close(timeout_seconds=0.0)
    with pytest.raises(ConnectionError, match=f"2 of run {logger.run_id} wait"):
        synchronize(logger.folder)


def test_the_record_arrives_when_the_server_does(tmp_path, tmp_path_factory, port):
    """By the run's own thread where the run still goes on, by `synchronize` where it has ended."""
    storage = new_storage(tmp_path, tmp_path_factory)
    ended = start_against(storage, port)
    ended.log_metrics(1, {"loss": 1.0, "ratio": float("inf"), "nan": float("nan")})
    assert not ended.close(timeout_seconds=0.0)
    going_on = start_against(storage, port)
    going_on.log_metrics(1, {"loss": 4.0})
    policy = save_small_policy(going_on.folder / "policies" / "1")
    going_on.log_model(policy, step=1, register_as="pen")
    with serving(storage, port):
        going_on.log_metrics(2, {"loss": 5.0})
        assert going_on.close(timeout_seconds=90.0)
        synchronize(ended.folder)

        client = open_client(f"http://127.0.0.1:{port}")
        assert history(client, mlflow_run_id(ended), "loss") == [(1, 1.0)]
        assert len(history(client, mlflow_run_id(ended), "nan")) == 1
        assert history(client, mlflow_run_id(going_on), "loss") == [(1, 4.0), (2, 5.0)]
        for logger in (ended, going_on):
            run = client.get_run(mlflow_run_id(logger))
            assert run.info.status == "FINISHED"
            assert run.data.tags[RUN_ID_TAG] == logger.run_id
        fetched = download_policy("models:/pen/1", f"http://127.0.0.1:{port}")
        assert (fetched / "weights.safetensors").read_bytes() == (policy / "weights.safetensors").read_bytes()

        # A server whose database we do not see: promoters take turns by a lease, of which nothing is left.
        assert promote(client, f"http://127.0.0.1:{port}", "1", {"1": 0.0})["decision"] == "promoted"
        assert client.get_registered_model("pen").aliases == {"champion": "1"}
        assert [model.name for model in client.search_registered_models()] == ["pen"]


def mlflow_run_id(logger: RunLogger) -> str:
    found = load_address(logger.folder).mlflow_run_id
    assert found is not None
    return found
