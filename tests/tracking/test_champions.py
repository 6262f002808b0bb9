"""A promotion that is cut off at any step leaves a champion, and whoever comes next finishes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mlflow import MlflowClient

from iql_ray.tracking import verdicts
from iql_ray.tracking.champions import CHAMPION, NOTE_TAG, PREVIOUS_CHAMPION, version_of
from iql_ray.tracking.promotion import roll_back
from iql_ray.tracking.store import open_client
from tests.tracking.promoters import NAME, new_model, promote
from tests.tracking.stores import sqlite_store

SCORES = {"1": 1.0, "2": 2.0, "3": 3.0, "4": 0.0}
NUM_WRITES = 8
"""Of a promotion: note, three tags, description, two aliases, note."""


class Crash(BaseException):
    """The end of the process."""


class DyingClient:
    """Does what the client does, up to a number of writes; then it dies."""

    def __init__(self, client: MlflowClient, num_writes: int) -> None:
        self._client = client
        self.num_left = num_writes

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not name.startswith(("set_", "update_", "delete_")):
            return method

        def write(*arguments: Any) -> Any:
            if self.num_left == 0:
                raise Crash
            self.num_left -= 1
            return method(*arguments)

        return write


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with sqlite_store(tmp_path_factory) as store:
        new_model(open_client(store), 4)
        yield store


@pytest.fixture
def client(uri: str) -> MlflowClient:
    """Version 2 is the champion, after version 1."""
    client = open_client(uri)
    if NOTE_TAG in client.get_registered_model(NAME).tags:
        client.delete_registered_model_tag(NAME, NOTE_TAG)
    client.set_registered_model_alias(NAME, CHAMPION, "2")
    client.set_registered_model_alias(NAME, PREVIOUS_CHAMPION, "1")
    for tag in client.get_model_version(NAME, "3").tags:
        client.delete_model_version_tag(NAME, "3", tag)
    return client


def aliases(client: MlflowClient) -> tuple[str | None, str | None]:
    return version_of(client, NAME, CHAMPION), version_of(client, NAME, PREVIOUS_CHAMPION)


def crash_promoting(client: MlflowClient, uri: str, num_writes: int) -> None:
    dying: Any = DyingClient(client, num_writes)
    with pytest.raises(Crash):
        promote(dying, uri, "3", SCORES)


def test_an_undisturbed_promotion_makes_as_many_writes_as_are_cut_off_below(client, uri):
    counting: Any = DyingClient(client, NUM_WRITES)
    assert promote(counting, uri, "3", SCORES)["decision"] == verdicts.PROMOTED
    assert counting.num_left == 0
    assert aliases(client) == ("3", "2")


@pytest.mark.parametrize("num_writes", range(NUM_WRITES))
def test_after_a_crash_there_is_a_champion_and_the_next_promoter_finishes(client, uri, num_writes):
    crash_promoting(client, uri, num_writes)
    assert aliases(client) in [("2", "1"), ("2", "2"), ("3", "2")]
    assert promote(client, uri, "4", SCORES)["decision"] == verdicts.KEPT
    finished = num_writes > 0  # without its note nothing has happened yet
    assert aliases(client) == (("3", "2") if finished else ("2", "1"))
    assert NOTE_TAG not in client.get_registered_model(NAME).tags
    record = verdicts.read_record(client.get_model_version(NAME, "3").tags)
    assert (record is not None and record["replaced"] == "2") == finished
    kept = verdicts.read_record(client.get_model_version(NAME, "4").tags)
    assert kept is not None
    assert kept["compared_with"] == ("3" if finished else "2")


@pytest.mark.parametrize("num_writes", [1, 6, 7])
def test_a_rollback_finishes_what_was_cut_off_and_then_takes_it_back(client, uri, num_writes):
    crash_promoting(client, uri, num_writes)
    roll_back(client, uri, NAME)
    assert aliases(client) == ("2", "3")


def test_a_rollback_that_was_cut_off_is_finished_once_and_not_twice(client, uri):
    dying: Any = DyingClient(client, 3)
    with pytest.raises(Crash):
        roll_back(dying, uri, NAME)
    assert promote(client, uri, "4", SCORES)["decision"] == verdicts.KEPT
    assert aliases(client) == ("1", "2")


def test_the_same_promotion_again_after_a_crash_says_what_was_decided(client, uri):
    crash_promoting(client, uri, 1)
    assert promote(client, uri, "3", SCORES)["decision"] == verdicts.PROMOTED
    assert aliases(client) == ("3", "2")


def test_what_was_cut_off_is_dropped_where_its_version_was_deleted(tmp_path_factory, caplog):
    with sqlite_store(tmp_path_factory) as uri:
        client = open_client(uri)
        new_model(client, 4)
        promote(client, uri, "2", SCORES)
        crash_promoting(client, uri, 1)
        client.delete_model_version(NAME, "3")
        promote(client, uri, "4", SCORES)
        assert "dropped, because version 3 was deleted" in caplog.text
        assert aliases(client) == ("2", None)
