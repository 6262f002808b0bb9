"""Promoters of one Ray cluster take turns in a named actor, which decides for them one after another.

The actor runs the decision itself, so that a promoter that dies holds nobody up. It takes the store's own lock too:
others may promote from outside of the cluster. The first promoter that comes brings it, and it goes with that one; who
still waits then brings the next.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError

from iql_ray.tracking.promotion import Proposal, Record, decide
from iql_ray.tracking.store import open_client

NAMESPACE = "iql_ray"
MAX_ATTEMPTS = 20
CREDENTIALS = "MLFLOW_TRACKING_"
"""What environment variables begin with that the store's client reads; they travel as an argument, which Ray's
dashboard does not show, and not in a runtime environment, which it does."""


class PromotionQueue:
    """The inside of the actor; works without Ray."""

    def decide(self, tracking_uri: str, proposal: Proposal, environment: Mapping[str, str]) -> Record | None:
        """As `tracking.promotion.decide`."""
        os.environ.update(environment)
        return decide(open_client(tracking_uri), tracking_uri, proposal)


def decide_in_turn(tracking_uri: str, proposal: Proposal) -> Record | None:
    """Have the cluster's queue decide.

    Raises:
        RayActorError: the queue died again and again.
    """
    environment = {name: value for name, value in os.environ.items() if name.startswith(CREDENTIALS)}
    for attempt in range(MAX_ATTEMPTS):
        try:
            return ray.get(_queue(proposal.name).decide.remote(tracking_uri, proposal, environment))
        except RayActorError:  # it went with the promoter that had brought it; a decision that it began is finished
            if attempt == MAX_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _queue(name: str) -> Any:
    actor_class = ray.remote(PromotionQueue).options(
        name=f"promotions of {name}", namespace=NAMESPACE, get_if_exists=True, num_cpus=0, max_restarts=0
    )
    return actor_class.remote()
