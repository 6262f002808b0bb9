"""Who becomes the champion, what is written about it, and how it is taken back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from iql_ray.evaluation.comparison import Gate
from iql_ray.tracking import promotion, verdicts
from iql_ray.tracking.champions import CHAMPION, PREVIOUS_CHAMPION, version_of
from iql_ray.tracking.promotion import champion_of, decide, roll_back
from iql_ray.tracking.store import open_client
from tests.tracking.promoters import NAME, PROTOCOL, new_model, promote, proposal
from tests.tracking.stores import sqlite_store

SCORES = {"1": 1.0, "2": 2.0, "3": 3.0}


@pytest.fixture
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with sqlite_store(tmp_path_factory) as store:
        yield store


@pytest.fixture
def client(uri: str) -> MlflowClient:
    client = open_client(uri)
    new_model(client, 3)
    return client


def aliases(client: MlflowClient) -> tuple[str | None, str | None]:
    return version_of(client, NAME, CHAMPION), version_of(client, NAME, PREVIOUS_CHAMPION)


def test_the_better_one_replaces_the_champion_and_the_worse_one_stays_a_version(client, uri):
    assert promote(client, uri, "2", SCORES)["reason"] == "there was no champion to compare with"
    kept = promote(client, uri, "1", SCORES)
    assert (kept["decision"], kept["replaced"], kept["compared_with"]) == ("kept", None, "2")
    assert aliases(client) == ("2", None)
    promoted = promote(client, uri, "3", SCORES)
    assert (promoted["decision"], promoted["replaced"]) == ("promoted", "2")
    assert aliases(client) == ("3", "2")


def test_a_candidate_has_to_beat_the_margin_by_its_lower_bound(client, uri):
    promote(client, uri, "1", SCORES)
    kept = promote(client, uri, "2", SCORES, Gate(margin=0.5))  # the lower bound is 1 - 0.5
    assert kept["decision"] == "kept"
    assert kept["reason"] == "the paired difference's lower bound (0.5) is not above the margin (0.5)"
    assert promote(client, uri, "2", SCORES, Gate(margin=0.4))["decision"] == "promoted"


def test_a_first_champion_may_be_asked_for_a_score(client, uri):
    assert promote(client, uri, "2", SCORES, Gate(floor=1.5))["decision"] == "kept"
    assert champion_of(client, NAME) is None
    assert promote(client, uri, "2", SCORES, Gate(floor=1.4))["decision"] == "promoted"


def test_a_champion_that_changed_after_the_comparison_is_compared_with_again(client, uri):
    promote(client, uri, "1", SCORES)
    stale = proposal("2", "1", SCORES)
    promote(client, uri, "3", SCORES)
    assert decide(client, uri, stale) is None
    assert aliases(client) == ("3", "1")
    assert promote(client, uri, "2", SCORES)["compared_with"] == "3"


def test_every_round_compares_with_the_champion_of_that_time(client, uri):
    """Version 3 gets in between: the loop asks again, and only then decides."""
    compared_with: list[str | None] = []

    def propose(champion: str | None) -> promotion.Proposal:
        compared_with.append(champion)
        if champion is None:
            promote(client, uri, "3", SCORES)
        return proposal("2", champion, SCORES)

    record = promotion.promote(
        propose, lambda: champion_of(client, NAME), lambda proposed: decide(client, uri, proposed)
    )
    assert compared_with == [None, "3"]
    assert record["decision"] == "kept"


def test_everything_about_the_decision_is_on_the_version(client, uri):
    client.update_model_version(NAME, "2", "Our first try.")
    promote(client, uri, "1", SCORES)
    promote(client, uri, "2", SCORES)
    version = client.get_model_version(NAME, "2")
    record = verdicts.read_record(version.tags)
    assert record is not None
    assert record["difference_ci"] == [0.5, 1.5]
    assert (record["score"], record["champion_score"], record["replaced"]) == (2.0, 1.0, "1")
    assert record["protocol_sha256"] == PROTOCOL.sha256
    assert record["protocol"]["environment"] == "Pen-v1"
    assert version.tags["promotion.decision"] == "promoted, replacing version 1"
    assert version.tags["promotion.score"] == "2 [1.5, 2.5]"
    assert version.description is not None
    assert version.description.startswith("Our first try.\n\n**Promotion:** promoted, replacing version 1 (")
    assert "| the champion (version 1) | 1 [0.5, 1.5] |" in version.description


def test_a_second_verdict_replaces_the_first_in_the_description(client, uri):
    promote(client, uri, "3", SCORES)
    for _ in range(2):
        promote(client, uri, "1", SCORES)
    assert (client.get_model_version(NAME, "1").description or "").count("**Promotion:**") == 1


def test_promoting_the_champion_again_changes_nothing(client, uri):
    first = promote(client, uri, "1", SCORES)
    assert promote(client, uri, "1", SCORES) == first
    client.set_registered_model_alias(NAME, CHAMPION, "2")
    assert promote(client, uri, "2", SCORES)["decision"] == "already champion"


def test_a_rollback_swaps_the_two_and_says_so_on_both(client, uri):
    promote(client, uri, "1", SCORES)
    promote(client, uri, "2", SCORES)
    record = roll_back(client, uri, NAME, reason="it shakes")
    assert (record["restored"], record["rolled_back"]) == ("1", "2")
    assert aliases(client) == ("1", "2")
    for version in ("1", "2"):
        written = client.get_model_version(NAME, version)
        assert '"reason": "it shakes"' in written.tags["rollback.record"]
        assert "**Rolled back** from version 2 to 1" in (written.description or "")
    roll_back(client, uri, NAME)
    assert aliases(client) == ("2", "1")


def test_there_may_be_nothing_to_roll_back(client, uri):
    with pytest.raises(ValueError, match=r"has no champion: nothing to roll back to.*versions 1, 2, 3"):
        roll_back(client, uri, NAME)
    promote(client, uri, "1", SCORES)
    with pytest.raises(ValueError, match="no champion before version 1"):
        roll_back(client, uri, NAME)
    with pytest.raises(ValueError, match=r"no version of 'pencil' is registered \(models with a name: pen\)"):
        roll_back(client, uri, "pencil")


def test_a_champion_after_one_that_lost_its_alias_remembers_an_earlier_one(client, uri):
    for version in ("1", "2"):
        promote(client, uri, version, SCORES)
    client.delete_registered_model_alias(NAME, CHAMPION)
    promote(client, uri, "3", SCORES)
    assert aliases(client) == ("3", "1")


def test_seeds_that_are_too_many_for_a_tag_are_named_by_where_they_come_from():
    from dataclasses import replace

    few = proposal("1", None, SCORES)
    many = replace(few, comparison=replace(few.comparison, seeds=tuple(range(1_000_000_000, 1_000_020_000))))
    record = verdicts.record_of(many, is_promoted=True, reason="")
    assert "split_into_groups" in record["seeds"]
