"""Twenty processes promote at once: the best one wins, and every record tells the same story.

Three times over in every run of the tests, and twenty times by `make slow`.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from iql_ray.tracking import verdicts
from iql_ray.tracking.champions import CHAMPION, NOTE_TAG, PREVIOUS_CHAMPION
from iql_ray.tracking.store import open_client
from tests.tracking.promoters import NAME, Scores, new_model, promote_in_rounds, scores_of_round
from tests.tracking.stores import postgresql_store, sqlite_store

NUM_PROMOTERS = 20
TIMEOUT_SECONDS = 600.0


@pytest.fixture(params=["sqlite", "postgresql"])
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with sqlite_store(tmp_path_factory) if request.param == "sqlite" else postgresql_store() as store:
        yield store


@pytest.mark.parametrize("num_rounds", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_of_twenty_promoters_at_once_the_best_one_wins_again_and_again(uri: str, num_rounds: int) -> None:
    client = open_client(uri)
    new_model(client, NUM_PROMOTERS)
    processes = multiprocessing.get_context("forkserver")  # imports MLflow once for all of them
    processes.set_forkserver_preload(["tests.tracking.promoters", "mlflow.store.model_registry.sqlalchemy_store"])
    barrier = processes.Barrier(NUM_PROMOTERS + 1, timeout=TIMEOUT_SECONDS)
    promoters = [
        processes.Process(
            target=promote_in_rounds, args=(uri, str(version), NUM_PROMOTERS, num_rounds, barrier), daemon=True
        )
        for version in range(1, NUM_PROMOTERS + 1)
    ]
    for promoter in promoters:
        promoter.start()
    for number in range(num_rounds):
        barrier.wait()
        barrier.wait()
        check_round(client, scores_of_round(number, NUM_PROMOTERS))
        for alias in (CHAMPION, PREVIOUS_CHAMPION):
            client.delete_registered_model_alias(NAME, alias)
    for promoter in promoters:
        promoter.join(timeout=60.0)
        assert promoter.exitcode == 0


def check_round(client: MlflowClient, scores: Scores) -> None:
    """The best is champion; each promoted version replaced the one promoted just before it; nobody better was kept."""
    model = client.get_registered_model(NAME)
    versions = {str(each.version): each for each in client.search_model_versions(f"name = '{NAME}'")}
    records = {version: verdicts.read_record(each.tags) or {} for version, each in versions.items()}
    best = max(scores, key=lambda version: scores[version])
    ladder = sorted((v for v in records if records[v]["decision"] == verdicts.PROMOTED), key=lambda v: scores[v])
    assert str(model.aliases[CHAMPION]) == best == ladder[-1]
    assert [records[version]["replaced"] for version in ladder] == [None, *ladder[:-1]]
    previous = model.aliases.get(PREVIOUS_CHAMPION)
    assert (None if previous is None else str(previous)) == records[best]["replaced"]
    for version in versions.keys() - set(ladder):
        assert scores[records[version]["compared_with"]] > scores[version]
    assert NOTE_TAG not in model.tags
