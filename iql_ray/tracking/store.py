"""Where a run's record goes: the tracking URI, the client for it, the experiment and the one MLflow run.

Every call names its URI: mlflow's global state (its active run, its current tracking URI) is never touched.
Nothing is sent here.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from iql_ray import config
from iql_ray.redaction import redacted
from iql_ray.tracking.reaching import is_database, require_answer

if TYPE_CHECKING:
    from mlflow import MlflowClient

ADDRESS_FILE = "tracking.json"
RUN_ID_TAG = "iql_ray.run_id"
HOLDER_TAG = "iql_ray.search"
"""Names the search that a run is a member of: its process writes for all its members, and holds its own run alone."""
SQLITE_PREFIX = "sqlite:///"
LOCK_SUFFIX = ".lock"
SERVER_SCHEMES = ("http", "https", "postgresql", "mysql", "mssql", "databricks", "databricks-uc")
ENVIRONMENT_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the last line of stdout is a command's result
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # mlflow's own 7 and 120 s block a call for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS", "RESOURCE_CONFLICT"}
"""Answers that no waiting changes. A missing permission or a deleted run is not among them: somebody may mend it."""


@dataclass(frozen=True, kw_only=True)
class RunAddress:
    """Which MLflow run a run folder belongs to: `tracking.json`."""

    run_id: str
    """Ours, the folder's name: the MLflow run's id where the store answered at the start."""
    tracking_uri: str
    experiment: str
    run_name: str | None = None
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    start_time: int = 0
    """Milliseconds since 1970, so that a run created late still starts when it did."""
    mlflow_run_id: str | None = None
    """None until the store has answered once."""

    def save(self, folder: Path) -> None:
        """Write it for this user alone to read: sending later needs the URI with its password."""
        path = folder / ADDRESS_FILE
        if self.tracking_uri != redacted(self.tracking_uri):
            path.with_name(path.name + config.PARTIAL_SUFFIX).touch(mode=0o600)
        config.save(self, path)


def load_address(folder: Path) -> RunAddress:
    """Read a run's address.

    Raises:
        ValueError: the folder is not one of a run.
    """
    if not (folder / ADDRESS_FILE).is_file():
        raise ValueError(f"{folder} holds no {ADDRESS_FILE}, so it is no run folder; check the run id and --storage")
    return config.load(RunAddress, folder / ADDRESS_FILE)


def default_tracking_uri(storage: str | Path) -> str:
    """The embedded SQLite store beside the runs, by absolute path."""
    return f"{SQLITE_PREFIX}{Path(storage).absolute() / 'mlflow.db'}"


def resolve_tracking_uri(tracking_uri: str | None, storage: str | Path) -> str:
    """The URI given, else MLFLOW_TRACKING_URI, else the embedded store; checked.

    Raises:
        ValueError: a file store, a relative SQLite path or an unknown scheme.
    """
    chosen = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri(storage)
    check_tracking_uri(chosen)
    return chosen


def check_tracking_uri(uri: str) -> None:
    """Refuse what MLflow refuses, or would quietly take for a store in the current directory."""
    if uri.startswith("sqlite:"):
        if not sqlite_path(uri).is_absolute():
            raise ValueError(
                f"tracking URI '{redacted(uri)}' depends on the current directory; "
                f"write the absolute path, with four slashes: '{SQLITE_PREFIX}{sqlite_path(uri).absolute()}'"
            )
        return
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0] or (uri if uri == "databricks" else "")
    if scheme not in SERVER_SCHEMES:
        raise ValueError(
            f"tracking URI '{redacted(uri)}' is neither a server nor a database (MLflow no longer keeps runs in plain "
            f"folders); use http(s)://HOST:PORT, postgresql+psycopg://..., or '{default_tracking_uri('runs')}'"
        )
    if scheme in ("http", "https") and not parts.hostname:
        raise ValueError(f"tracking URI '{redacted(uri)}' names no host; expected http(s)://HOST:PORT")


def is_embedded(uri: str) -> bool:
    """Whether the store is a file of this machine, so that it can be wrong but not away."""
    return uri.startswith("sqlite:")


def sqlite_path(uri: str) -> Path:
    """The database file of a SQLite URI."""
    return Path(uri.partition(SQLITE_PREFIX)[2])


def require_store(uri: str) -> None:
    """Refuse, by ValueError, an embedded store that is not there: opening it would quietly create an empty one."""
    check_tracking_uri(uri)
    if is_embedded(uri) and not sqlite_path(uri).is_file():
        raise ValueError(f"tracking store {sqlite_path(uri)} does not exist; check --storage or --tracking-uri")


def set_environment_defaults() -> None:
    """What MLflow reads from the environment, where the user has not said otherwise; call before importing mlflow."""
    for name, value in ENVIRONMENT_DEFAULTS.items():
        os.environ.setdefault(name, value)


def open_client(uri: str) -> MlflowClient:
    """A client for this URI alone, for runs and models. The first of a process takes 1-6 s (imports, schema).

    Raises:
        StoreUnavailableError: a database that does not answer; a server is asked by the first call.
    """
    set_environment_defaults()
    from mlflow import MlflowClient

    if is_database(uri):
        require_answer(uri)
    if not is_embedded(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    with _one_process_at(sqlite_path(uri)):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def find_or_create_run(client: MlflowClient, address: RunAddress) -> str:
    """The id of the MLflow run tagged with our run id, created if there is none: a crash never makes a second.

    Raises:
        ValueError: the experiment has been deleted.
    """
    experiment_id = _experiment_id(client, address)
    found = client.search_runs([experiment_id], f"tags.`{RUN_ID_TAG}` = '{address.run_id}'", max_results=1)
    if found:
        return found[0].info.run_id
    run = client.create_run(
        experiment_id,
        start_time=address.start_time or None,
        tags={**address.tags, RUN_ID_TAG: address.run_id},
        run_name=address.run_name,
    )
    return run.info.run_id


def is_refusal(error: Exception) -> bool:
    """Whether sending the same again is useless: a wrong value, a missing local file, a fault of the record."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in REFUSALS
    # A proxy's error page is no JSON: that passes.
    return isinstance(error, ValueError | TypeError | FileNotFoundError) and not isinstance(error, json.JSONDecodeError)


def _experiment_id(client: MlflowClient, address: RunAddress) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(address.experiment)
    if experiment is None:
        try:
            return client.create_experiment(address.experiment, _artifact_location(address.tracking_uri))
        except MlflowException as error:
            # Two runs that start together: the other one made it.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(address.experiment)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise ValueError(
            f"experiment '{address.experiment}' has been deleted from {redacted(address.tracking_uri)}; "
            "restore it with 'mlflow experiments restore', or choose another name"
        )
    return experiment.experiment_id


def _artifact_location(uri: str) -> str | None:
    """Beside the database; a server knows its own place. MLflow's default is a folder in the current directory."""
    return str(sqlite_path(uri).parent / "mlartifacts") if is_embedded(uri) else None


@contextmanager
def _one_process_at(database: Path) -> Iterator[None]:
    """Two processes that create the same database's tables at once break each other."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        # A file, opened for writing: NFS has no exclusive lock on a folder. Where even that cannot be made or locked
        # (a read-only folder, a file system without locks), the first start is the user's to make alone.
        with suppress(OSError):
            file = held.enter_context(database.with_name(database.name + LOCK_SUFFIX).open("a"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
