"""In a cluster, a named actor decides for all promoters, whoever of them dies."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray

from iql_ray.distributed import promotion_queue
from iql_ray.distributed.promotion_queue import PromotionQueue, decide_in_turn, queue_of
from iql_ray.tracking import promotion, verdicts
from iql_ray.tracking.champions import CHAMPION
from iql_ray.tracking.store import open_client
from tests.tracking.promoters import NAME, new_model, proposal, scores_of_round
from tests.tracking.stores import sqlite_store

NUM_PROMOTERS = 6
SCORES = scores_of_round(0, NUM_PROMOTERS)


@pytest.fixture
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with sqlite_store(tmp_path_factory) as store:
        new_model(open_client(store), NUM_PROMOTERS)
        yield store


def test_a_queue_decides_for_all_and_another_one_goes_on_where_it_dies(ray_session, uri):
    client = open_client(uri)
    num_decided = itertools.count(1)

    def decide(proposed: promotion.Proposal) -> promotion.Record | None:
        if next(num_decided) == 3:
            ray.kill(queue_of(NAME))
        return decide_in_turn(uri, proposed)

    def promote(version: str) -> promotion.Record:
        return promotion.promote(
            lambda champion: proposal(version, champion, SCORES), lambda: promotion.champion_of(client, NAME), decide
        )

    with ThreadPoolExecutor(NUM_PROMOTERS) as promoters:
        records = list(promoters.map(promote, SCORES))
    best = max(SCORES, key=lambda version: SCORES[version])
    assert str(client.get_registered_model(NAME).aliases[CHAMPION]) == best
    ladder = sorted((r for r in records if r["decision"] == verdicts.PROMOTED), key=lambda r: SCORES[r["version"]])
    assert [record["replaced"] for record in ladder] == [None, *(record["version"] for record in ladder[:-1])]
    ray.kill(queue_of(NAME))


def test_credentials_reach_the_queue_as_arguments(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "another")
    seen: list[str | None] = []
    monkeypatch.setattr(promotion_queue, "decide", lambda *_: seen.append(os.environ.get("MLFLOW_TRACKING_TOKEN")))
    PromotionQueue().decide(uri, proposal("1", None, SCORES), {"MLFLOW_TRACKING_TOKEN": "t"})
    assert seen == ["t"]
