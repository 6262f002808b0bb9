"""A store that is away is one clear error, soon, and without its password."""

from __future__ import annotations

import socket
import sys

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, UNAUTHENTICATED

from iql_ray.tracking.reaching import StoreUnavailableError, answering, is_database
from iql_ray.tracking.registry import download_policy
from iql_ray.tracking.store import open_client


@pytest.fixture
def address() -> str:
    """Where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_dead_server_is_named_without_its_password(monkeypatch, address):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreUnavailableError, match="does not answer; start it, or check --tracking-uri") as outage:
        download_policy("models:/pen@champion", f"http://ann:pa55@{address}")
    assert f"http://ann:***@{address}" in str(outage.value)
    assert "pa55" not in str(outage.value)


def test_a_dead_database_is_named_without_its_password_and_without_an_hour_of_retries(address):
    pytest.importorskip("psycopg")
    with pytest.raises(StoreUnavailableError, match=r"ann:\*\*\*@127.0.0.1:\d+/mlflow does not answer") as outage:
        open_client(f"postgresql+psycopg://ann:pa55@{address}/mlflow")
    assert "pa55" not in str(outage.value)


def test_a_missing_driver_is_named_with_the_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(ValueError, match=r"needs a driver that is not installed.*pip install 'iql-ray\[postgresql\]'"):
        open_client("postgresql+psycopg2://ann@127.0.0.1/mlflow")


def test_a_store_that_refuses_access_says_where_credentials_go():
    with pytest.raises(StoreUnavailableError, match="refuses access; check MLFLOW_TRACKING_USERNAME"), answering("x"):
        raise MlflowException("who are you?", error_code=UNAUTHENTICATED)


def test_what_is_no_outage_passes_through():
    with pytest.raises(MlflowException, match="no such thing"), answering("x"):
        raise MlflowException("no such thing", error_code=INVALID_PARAMETER_VALUE)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("postgresql+psycopg://h/d", True), ("mysql://h/d", True), ("http://h", False), ("sqlite:////x.db", False)],
)
def test_databases_are_told_by_their_scheme(uri, expected):
    assert is_database(uri) == expected
