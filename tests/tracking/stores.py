"""Empty MLflow stores for the registry's tests: SQLite in memory-backed files, PostgreSQL where one is running."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tracking.examples import new_storage

POSTGRESQL_VARIABLE = "IQL_RAY_TEST_POSTGRESQL"
"""URI of a database whose user may create others; `.ci/postgresql COMMAND` sets it."""
MEMORY = Path("/dev/shm")


@contextmanager
def sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """In memory where there is a folder for that: hundreds of commits to a slow disk are not what is tested."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield f"sqlite:///{new_storage(Path(folder), tmp_path_factory) / 'mlflow.db'}"


@contextmanager
def postgresql_store() -> Iterator[str]:
    """A database of its own, dropped afterwards; skips, saying why, where there is no server."""
    server = os.environ.get(POSTGRESQL_VARIABLE)
    if not server:
        pytest.skip(f"NO POSTGRESQL: {POSTGRESQL_VARIABLE} is not set; run `.ci/postgresql make test`")
    psycopg = pytest.importorskip("psycopg", reason="NO POSTGRESQL: pip install 'iql-ray[postgresql]'")
    name = f"iql_ray_{uuid.uuid4().hex[:12]}"
    plain = server.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
