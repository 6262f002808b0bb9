"""A lock where there is nothing but MLflow's own interface: a tracking server whose database we do not see.

The one atomic step that every MLflow store has is to create a registered model of a new name: of two who try, one is
refused. NAME.promotion-lock.1 is the lock; who created it holds it, and deletes it afterwards.

A holder that died leaves it behind. Whoever has seen it unchanged for LEASE_SECONDS, by their own clock (clocks of
machines are never compared), creates NAME.promotion-lock.2 instead, and so on. Nobody holds the lock before having
looked, after creating, that all others left are dead: of two who create different numbers at once, at least one sees
the other, and steps back.

What does not hold: a holder that is stopped for longer than the lease between `still_held` and the write that follows
it may write once more, after somebody else has taken over. What such a write can leave is repaired like a crash.
"""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

LEASE_SECONDS = 60.0
SAFETY_SECONDS = 20.0
"""A holder stops to write so long before its lease may be taken from it."""
POLL_SECONDS = 0.1
OWNER_TAG = "iql_ray.lock.owner"
DESCRIPTION = (
    "Held while a promotion moves aliases; no policy. It vanishes by itself, and may be deleted if it does not."
)


@contextmanager
def leased(
    client: MlflowClient, name: str, wait_seconds: float, lease_seconds: float = LEASE_SECONDS
) -> Iterator[Callable[[], None]]:
    """Hold the lease of `name`; yields what raises once it may have been taken over.

    Raises:
        TimeoutError: others held it all the time.
    """
    lease = _Lease(client, name, lease_seconds)
    lease.acquire(wait_seconds)
    try:
        yield lease.check
    finally:
        lease.release()


class _Lease:
    """One attempt to hold; remembers which of the others it has seen, and since when."""

    def __init__(self, client: MlflowClient, name: str, lease_seconds: float) -> None:
        self._client = client
        self._prefix = f"{name}.promotion-lock."
        self._lease_seconds = lease_seconds
        self._owner = uuid.uuid4().hex
        self._seen: dict[str, float] = {}
        self._held = ""
        self._dead: list[str] = []
        self._until = 0.0

    def acquire(self, wait_seconds: float) -> None:
        deadline = time.monotonic() + wait_seconds
        while not self._try():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"other promotions have held the lease {self._prefix}* for {wait_seconds:.0f} s; try again later"
                )
            time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))

    def check(self) -> None:
        """Refuse to go on once another may have taken over."""
        if time.monotonic() > self._until - min(SAFETY_SECONDS, self._lease_seconds / 3):
            raise TimeoutError(
                f"the promotion took longer than its lease of {self._lease_seconds:.0f} s and was stopped; promote or "
                "roll back again, which finishes what it began"
            )

    def release(self) -> None:
        """Delete it, and those of the dead before it, if it is still ours by the clock; else whoever took over does."""
        if time.monotonic() < self._until:
            for number in (*self._dead, self._held):
                self._delete(number)

    def _try(self) -> bool:
        """Create the lock behind the dead ones; True if then everybody else who is there is dead."""
        others = self._others()
        if not self._are_dead(others):
            return False
        number = str(1 + max(map(int, others), default=0))
        started = time.monotonic()
        if not self._create(number):
            return False
        others = self._others()
        if not self._are_dead(others):
            self._delete(number)
            return False
        self._held, self._dead = number, list(others)
        self._until = started + self._lease_seconds
        return True

    def _others(self) -> dict[str, str]:
        """Number -> owner of the locks that are not this one's."""
        found = self._client.search_registered_models(f"name LIKE '{self._prefix}%'")
        locks = {model.name.removeprefix(self._prefix): model.tags.get(OWNER_TAG, "") for model in found}
        return {
            number: owner for number, owner in locks.items() if re.fullmatch(r"\d+", number) and owner != self._owner
        }

    def _are_dead(self, others: dict[str, str]) -> bool:
        now = time.monotonic()
        self._seen = {owner: self._seen.get(owner, now) for owner in others.values()}
        return all(now - since > self._lease_seconds for since in self._seen.values())

    def _create(self, number: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self._prefix + number, {OWNER_TAG: self._owner}, DESCRIPTION)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return False
        return True

    def _delete(self, number: str) -> None:
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):  # somebody else was quicker
            self._client.delete_registered_model(self._prefix + number)
