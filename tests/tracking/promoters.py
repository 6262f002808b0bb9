"""Promoters whose scores are given, so that only the registry is at work; and many of them at once, as processes."""

from __future__ import annotations

import random
from multiprocessing.synchronize import Barrier

from mlflow import MlflowClient

from iql_ray.evaluation.comparison import Comparison, Gate, Protocol
from iql_ray.tracking import promotion
from iql_ray.tracking.promotion import Proposal, Record
from iql_ray.tracking.store import open_client

NAME = "pen"
PROTOCOL = Protocol(method="rollouts", environment="Pen-v1", num_episodes=100)
Scores = dict[str, float]
"""Version -> what it would score."""


def new_model(client: MlflowClient, num_versions: int, name: str = NAME) -> None:
    """A registered model with versions 1, 2, ... that hold nothing."""
    client.create_registered_model(name)
    for version in range(num_versions):
        client.create_model_version(name, f"/nowhere/{version}")


def compared(score: float, champion_score: float | None) -> Comparison:
    """Intervals of half a point on both sides: one point is enough to win."""
    found = Comparison(protocol=PROTOCOL, score=score, score_ci=(score - 0.5, score + 0.5))
    if champion_score is None:
        return found
    difference = score - champion_score
    return Comparison(
        protocol=PROTOCOL,
        score=score,
        score_ci=found.score_ci,
        champion_score=champion_score,
        champion_score_ci=(champion_score - 0.5, champion_score + 0.5),
        difference=difference,
        difference_ci=(difference - 0.5, difference + 0.5),
    )


def proposal(version: str, champion: str | None, scores: Scores, gate: Gate | None = None) -> Proposal:
    """What a promoter finds that compares a version with the champion of that time."""
    theirs = None if champion is None else scores[champion]
    comparison = compared(scores[version], theirs)
    return Proposal(
        name=NAME, version=version, compared_with=champion, comparison=comparison, gate=gate or Gate(), source="test"
    )


def promote(client: MlflowClient, uri: str, version: str, scores: Scores, gate: Gate | None = None) -> Record:
    """As the command does, scores given."""
    return promotion.promote(
        lambda champion: proposal(version, champion, scores, gate),
        lambda: promotion.champion_of(client, NAME),
        lambda proposed: promotion.decide(client, uri, proposed),
    )


def scores_of_round(number: int, num_versions: int) -> Scores:
    """Every version another whole number, dealt out anew in each round."""
    points = list(range(num_versions))
    random.Random(number).shuffle(points)
    return {str(version): float(score) for version, score in enumerate(points, start=1)}


def promote_in_rounds(uri: str, version: str, num_versions: int, num_rounds: int, barrier: Barrier) -> None:
    """The life of one process: in every round all start at once, and wait until the last one has decided."""
    try:
        client = open_client(uri)
        for number in range(num_rounds):
            barrier.wait()
            promote(client, uri, version, scores_of_round(number, num_versions))
            barrier.wait()
    except BaseException:
        barrier.abort()  # nobody waits for one that failed
        raise
