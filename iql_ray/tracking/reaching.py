"""Whether a tracking store answers, and one clear error where it does not.

MLflow retries a database that is away for most of an hour, and reports a dead server by a page of urllib3: a database
is asked once before MLflow is, and an outage becomes a `StoreUnavailableError`. Nothing is read or written here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from iql_ray.redaction import redacted

CONNECT_TIMEOUT_SECONDS = 10
DATABASE_SCHEMES = ("postgresql", "mysql", "mssql")
OUTAGES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
REFUSED_ACCESS = ("UNAUTHENTICATED", "PERMISSION_DENIED")


class StoreUnavailableError(ConnectionError):
    """The store does not answer, or does not let us in; the message names it, without its password."""


def is_database(uri: str) -> bool:
    """Whether the store is a database server that is talked to directly."""
    return urlsplit(uri).scheme.partition("+")[0] in DATABASE_SCHEMES


def is_postgresql(uri: str) -> bool:
    return uri.startswith("postgresql")


def connecting_engine(uri: str) -> Any:
    """A SQLAlchemy engine that keeps no connection, and gives up on a silent server in time.

    Raises:
        ValueError: the driver that the URI names is not installed.
    """
    import sqlalchemy
    from sqlalchemy.exc import NoSuchModuleError
    from sqlalchemy.pool import NullPool

    timeout = {"connect_timeout": CONNECT_TIMEOUT_SECONDS} if is_postgresql(uri) else {}
    try:
        return sqlalchemy.create_engine(uri, poolclass=NullPool, connect_args=timeout)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ValueError(
            f"tracking store {redacted(uri)} needs a driver that is not installed ({error}); for "
            "postgresql+psycopg://... pip install 'iql-ray[postgresql]'"
        ) from error


def require_answer(uri: str) -> None:
    """Connect to a database once.

    Raises:
        StoreUnavailableError: nobody answers there, or not to this user.
        ValueError: the driver is not installed.
    """
    with answering(uri), connecting_engine(uri).connect():
        pass


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn an outage of the store inside the block into a StoreUnavailableError that names it."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    try:
        yield
    except OperationalError as error:
        raise _unavailable(uri, str(error.orig)) from error
    except MlflowException as error:
        if error.error_code in REFUSED_ACCESS:
            raise StoreUnavailableError(
                f"tracking store {redacted(uri)} refuses access; check MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            ) from error
        if error.error_code not in OUTAGES:
            raise
        raise _unavailable(uri, str(error.message)) from error


def _unavailable(uri: str, cause: str) -> StoreUnavailableError:
    reason = textwrap.shorten(redacted(cause), 200, placeholder=" ...")
    return StoreUnavailableError(
        f"tracking store {redacted(uri)} does not answer; start it, or check --tracking-uri ({reason})"
    )
