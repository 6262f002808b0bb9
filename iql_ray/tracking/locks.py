"""One promotion of a name at a time, whoever asks from wherever: the lock that is held while aliases are moved.

MLflow cannot compare and set an alias, so those who promote take turns:

    sqlite://      a file beside the database, locked for this process
    postgresql://  an advisory lock of the database, held by a transaction
    all others     a lease: a registered model whose name only one can create, see `lease`

The first two end with the process or connection that holds them. Nothing is promoted here.
"""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from iql_ray.tracking.lease import leased
from iql_ray.tracking.reaching import answering, connecting_engine, is_postgresql
from iql_ray.tracking.store import is_embedded, sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

WAIT_SECONDS = 600.0
"""A promotion under way takes seconds; who still waits after this is told."""
POLL_SECONDS = 0.02
LOCK_SUFFIX = ".promotion.lock"

StillHeld = Callable[[], None]
"""Asked before every write; raises where the lock has been lost meanwhile."""


@contextmanager
def promotion_lock(
    client: MlflowClient, uri: str, name: str, wait_seconds: float = WAIT_SECONDS
) -> Iterator[StillHeld]:
    """Hold the lock of the registered model `name` for the length of a `with` block.

    Raises:
        TimeoutError: others held it all the time.
        StoreUnavailableError: the store does not answer.
    """
    if is_embedded(uri):
        lock = _file_lock(sqlite_path(uri), wait_seconds)
    elif is_postgresql(uri):
        lock = _advisory_lock(uri, name, wait_seconds)
    else:
        lock = leased(client, name, wait_seconds)
    with lock as still_held:
        yield still_held


@contextmanager
def _file_lock(database: Path, wait_seconds: float) -> Iterator[StillHeld]:
    """One lock for all names: SQLite lets one process write at a time anyway."""
    path = database.with_name(database.name + LOCK_SUFFIX)
    with path.open("a") as file:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise _waited(f"the file {path}", wait_seconds) from None
                time.sleep(POLL_SECONDS)
        yield lambda: None


@contextmanager
def _advisory_lock(uri: str, name: str, wait_seconds: float) -> Iterator[StillHeld]:
    """Of a transaction, which a pool of connections does not share out, and which ends with its connection.

    A machine that vanishes is missed after half a minute of unanswered keepalives.
    """
    from sqlalchemy import text
    from sqlalchemy.exc import OperationalError

    with answering(uri), connecting_engine(uri).connect() as connection, connection.begin():
        for setting in (
            f"lock_timeout = {int(wait_seconds * 1000)}",
            "idle_in_transaction_session_timeout = 0",
            "tcp_keepalives_idle = 15",
            "tcp_keepalives_interval = 5",
            "tcp_keepalives_count = 3",
        ):
            connection.execute(text(f"SET LOCAL {setting}"))
        try:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _key(name)})
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
                raise
            raise _waited("the advisory lock", wait_seconds) from error
        yield lambda: connection.execute(text("SELECT 1")).close()


def _key(name: str) -> int:
    """The lock's number: 64 bits with a sign."""
    digest = hashlib.sha256(f"iql_ray promotion of {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _waited(what: str, wait_seconds: float) -> TimeoutError:
    return TimeoutError(f"other promotions have held {what} for {wait_seconds:.0f} s; is one of them stopped?")
