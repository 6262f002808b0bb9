"""Which store a run goes to, and that it gets one MLflow run there."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from iql_ray.tracking import store
from iql_ray.tracking.store import (
    RunAddress,
    check_tracking_uri,
    default_tracking_uri,
    find_or_create_run,
    require_store,
    resolve_tracking_uri,
)
from tests.tracking.examples import client_of, new_storage


@pytest.fixture
def storage(tmp_path, tmp_path_factory):
    return new_storage(tmp_path, tmp_path_factory)


def test_the_default_is_a_database_in_the_storage_by_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_tracking_uri("runs") == f"sqlite:///{tmp_path}/runs/mlflow.db"


def test_a_flag_wins_over_the_environment_and_that_over_the_default(tmp_path, monkeypatch):
    assert resolve_tracking_uri(None, tmp_path) == default_tracking_uri(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment:5000")
    assert resolve_tracking_uri(None, tmp_path) == "http://environment:5000"
    assert resolve_tracking_uri("http://flag:5000", tmp_path) == "http://flag:5000"


def test_a_relative_database_is_refused_with_its_absolute_path():
    expected = f"sqlite:///{Path.cwd()}/mlflow.db"
    with pytest.raises(ValueError, match="current directory") as refusal:
        check_tracking_uri("sqlite:///mlflow.db")
    assert expected in str(refusal.value)


@pytest.mark.parametrize("uri", ["./mlruns", "/tmp/mlruns", "file:///tmp/mlruns", "mlruns", "ftp://host/x"])
def test_a_file_store_or_unknown_scheme_is_refused(uri):
    with pytest.raises(ValueError, match="neither a server nor a database"):
        check_tracking_uri(uri)


def test_a_server_without_a_host_is_refused():
    with pytest.raises(ValueError, match="names no host"):
        check_tracking_uri("http:///mlflow")


@pytest.mark.parametrize("uri", ["https://mlflow.example:443/x", "postgresql+psycopg://u@host/db", "databricks"])
def test_servers_and_databases_are_taken(uri):
    check_tracking_uri(uri)


def test_a_store_that_is_only_read_must_exist(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        require_store(default_tracking_uri(tmp_path))
    assert not (tmp_path / "mlflow.db").exists()


def test_one_process_at_a_time_opens_a_database(tmp_path):
    with store._one_process_at(tmp_path / "mlflow.db"), pytest.raises(BlockingIOError):
        take(tmp_path / "mlflow.db.lock")
    take(tmp_path / "mlflow.db.lock")


def test_a_database_opens_where_files_cannot_be_locked(storage, monkeypatch):
    def refuse(*_):
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert store.open_client(default_tracking_uri(storage)).get_experiment_by_name("Default") is not None


def test_what_the_user_set_in_the_environment_stays(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    store.set_environment_defaults()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"


def test_a_crash_between_creating_a_run_and_noting_it_makes_no_second_run(storage):
    client = client_of(storage)
    address = RunAddress(run_id="ours", tracking_uri=default_tracking_uri(storage), experiment="tests")
    first = find_or_create_run(client, address)
    assert find_or_create_run(client, address) == first
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_artifacts_lie_beside_the_database(storage):
    client = client_of(storage)
    address = RunAddress(run_id="ours", tracking_uri=default_tracking_uri(storage), experiment="tests")
    run = client.get_run(find_or_create_run(client, address))
    assert run.info.artifact_uri is not None
    assert run.info.artifact_uri.startswith(str(storage / "mlartifacts"))


def test_a_deleted_experiment_is_refused_with_the_fix(storage):
    client = client_of(storage)
    client.delete_experiment(client.create_experiment("tests"))
    address = RunAddress(run_id="ours", tracking_uri=default_tracking_uri(storage), experiment="tests")
    with pytest.raises(ValueError, match="mlflow experiments restore"):
        find_or_create_run(client, address)


def take(path: Path) -> None:
    """Lock a file for a moment, as another process would; never waits."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
