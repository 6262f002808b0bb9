"""In a cluster, a named actor decides for all promoters, whoever of them dies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ray

from iql_ray.distributed import promotion_queue
from iql_ray.distributed.promotion_queue import PromotionQueue, decide_in_turn
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


def promote_in_cluster(uri: str, version: str) -> dict[str, Any]:
    client = open_client(uri)
    return promotion.promote(
        lambda champion: proposal(version, champion, SCORES),
        lambda: promotion.champion_of(client, NAME),
        lambda proposed: decide_in_turn(uri, proposed),
    )


def test_promoters_all_over_a_cluster_take_turns_and_the_best_one_wins(ray_session, uri):
    # The queue is brought by whoever comes first; here that is the driver, which outlives the tasks.
    queue = promotion_queue._queue(NAME)
    promoter = ray.remote(num_cpus=0)(promote_in_cluster)
    records = ray.get([promoter.remote(uri, version) for version in SCORES])
    best = max(SCORES, key=lambda version: SCORES[str(version)])
    assert str(open_client(uri).get_registered_model(NAME).aliases[CHAMPION]) == best
    ladder = sorted((r for r in records if r["decision"] == verdicts.PROMOTED), key=lambda r: SCORES[r["version"]])
    assert [record["replaced"] for record in ladder] == [None, *(record["version"] for record in ladder[:-1])]
    ray.kill(queue)


def test_a_queue_that_died_is_replaced(ray_session, uri):
    ray.kill(promotion_queue._queue(NAME))
    record = decide_in_turn(uri, proposal("1", None, SCORES))
    assert record is not None
    assert record["decision"] == verdicts.PROMOTED
    ray.kill(promotion_queue._queue(NAME))


def test_credentials_reach_the_queue_as_arguments_and_works_without_ray(uri, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    seen: list[str | None] = []
    monkeypatch.setattr(
        promotion_queue, "decide", lambda *_: seen.append(promotion_queue.os.environ.get("MLFLOW_TRACKING_TOKEN"))
    )
    PromotionQueue().decide(uri, proposal("1", None, SCORES), {"MLFLOW_TRACKING_TOKEN": "t"})
    assert seen == ["t"]
