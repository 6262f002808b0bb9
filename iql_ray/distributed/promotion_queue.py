"""Promoters of one Ray cluster take turns in a named actor, which decides for them one after another.

The actor runs the decision itself, so that a promoter that dies holds nobody up. It takes the store's own lock too:
others may promote from outside of the cluster. The first promoter that comes brings it, and it goes with that one; who
still waits then brings the next.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError

from iql_ray.tracking.promotion import Proposal, Record, decide
from iql_ray.tracking.store import open_client

NAMESPACE = "iql_ray"
MAX_ATTEMPTS = 20
NAME_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.1
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
    for _ in range(MAX_ATTEMPTS - 1):
        # It went with the promoter that had brought it; what it had begun to decide is finished by the next one.
        with contextlib.suppress(RayActorError):
            return ray.get(queue_of(proposal.name).decide.remote(tracking_uri, proposal, environment))
    return ray.get(queue_of(proposal.name).decide.remote(tracking_uri, proposal, environment))


def queue_of(name: str) -> Any:
    """The handle of the queue of a registered model, which starts if nobody has brought it yet."""
    actor_class = ray.remote(PromotionQueue).options(
        name=f"promotions of {name}", namespace=NAMESPACE, get_if_exists=True, num_cpus=0, max_restarts=0
    )
    deadline = time.monotonic() + NAME_TIMEOUT_SECONDS
    while True:
        try:
            return actor_class.remote()
        except ValueError:  # Ray knows the name still, and its holder no more
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)
