"""One holder at a time, and none that is dead: by a file, by an advisory lock, and by a lease."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST

from iql_ray.tracking import lease
from iql_ray.tracking.lease import leased
from iql_ray.tracking.locks import promotion_lock
from tests.tracking.stores import postgresql_store

HOLDER = """
import sys, time
from iql_ray.tracking.locks import promotion_lock
with promotion_lock(None, sys.argv[1], "pen"):
    print("held", flush=True)
    time.sleep(600)
"""
NO_CLIENT: Any = None


@pytest.fixture(params=["sqlite", "postgresql"])
def uri(request, tmp_path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/mlflow.db"
        return
    with postgresql_store() as store:
        yield store


@contextmanager
def held_elsewhere(uri: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, killed at the end at the latest."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, uri], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


def test_a_lock_that_another_process_holds_is_not_had_and_one_that_died_holding_it_holds_nobody_up(uri):
    with held_elsewhere(uri) as holder:
        with (
            pytest.raises(TimeoutError, match="other promotions have held"),
            promotion_lock(NO_CLIENT, uri, "pen", 0.3),
        ):
            pass
        holder.kill()
        with promotion_lock(NO_CLIENT, uri, "pen", 60.0) as still_held:
            still_held()


def test_an_error_inside_lets_go_of_the_lock(uri):
    with pytest.raises(KeyError), promotion_lock(NO_CLIENT, uri, "pen"):
        raise KeyError
    with promotion_lock(NO_CLIENT, uri, "pen", 0.3):
        pass


class Model:
    def __init__(self, name: str, tags: dict[str, str]) -> None:
        self.name, self.tags = name, tags


class Registry:
    """What a lease needs of MLflow: names that only one can create."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self._mutex = threading.Lock()

    def create_registered_model(self, name: str, tags: dict[str, str], description: str) -> None:
        with self._mutex:
            if name in self.models:
                raise MlflowException("exists", error_code=RESOURCE_ALREADY_EXISTS)
            self.models[name] = Model(name, tags)

    def delete_registered_model(self, name: str) -> None:
        if self.models.pop(name, None) is None:
            raise MlflowException("gone", error_code=RESOURCE_DOES_NOT_EXIST)

    def search_registered_models(self, filter_string: str) -> list[Model]:
        prefix = filter_string.partition("'")[2].rstrip("%'")
        with self._mutex:
            return [model for model in self.models.values() if model.name.startswith(prefix)]


@pytest.fixture
def registry(monkeypatch) -> Any:
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.001)
    return Registry()


def holders_at_once(registry: Any, num_turns: int, **options: Any) -> list[int]:
    """Eight threads take the lease so many times each; how many had it, each time that one did."""
    inside: list[int] = []
    most: list[int] = []

    def hold(number: int) -> None:
        for _ in range(num_turns):
            with leased(registry, "pen", 60.0, **options):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.001)
                inside.remove(number)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return most


def test_a_lease_has_one_holder_at_a_time_and_leaves_nothing_behind(registry):
    assert holders_at_once(registry, num_turns=5) == [1] * 40
    assert registry.models == {}


def test_a_lease_whose_holder_died_is_taken_over_once_it_was_watched_for_its_whole_length(registry):
    registry.create_registered_model("pen.promotion-lock.1", {lease.OWNER_TAG: "dead"}, "")
    with pytest.raises(TimeoutError, match="have held the lease"), leased(registry, "pen", 0.02, lease_seconds=60.0):
        pass
    with leased(registry, "pen", 60.0, lease_seconds=0.1):
        assert set(registry.models) == {"pen.promotion-lock.1", "pen.promotion-lock.2"}
    assert registry.models == {}


def test_of_many_who_wait_for_a_dead_holder_one_at_a_time_takes_over(registry):
    registry.create_registered_model("pen.promotion-lock.1", {lease.OWNER_TAG: "dead"}, "")
    assert holders_at_once(registry, num_turns=1, lease_seconds=2.0) == [1] * 8


def test_a_holder_that_took_too_long_stops_before_its_lease_can_be_taken(registry):
    with leased(registry, "pen", 1.0, lease_seconds=0.03) as still_held:
        time.sleep(0.025)
        with pytest.raises(TimeoutError, match="took longer than its lease"):
            still_held()


def test_a_lease_of_another_name_is_none_of_ours(registry):
    with leased(registry, "pen", 1.0), leased(registry, "pencil", 1.0):
        assert len(registry.models) == 2
