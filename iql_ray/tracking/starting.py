"""The beginning of a run: its id, its folder, its MLflow run if the store is there in time. And another store later.

What the run records is not handled here.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from iql_ray.redaction import redacted
from iql_ray.tracking.spool import write_cursor
from iql_ray.tracking.store import (
    RunAddress,
    check_tracking_uri,
    find_or_create_run,
    is_embedded,
    is_refusal,
    open_client,
    require_store,
    resolve_tracking_uri,
)


def begin(
    storage: Path,
    experiment: str,
    tracking_uri: str | None,
    run_name: str | None,
    tags: Mapping[str, Any],
    wait_seconds: float,
) -> tuple[Path, RunAddress, Future[str]]:
    """The new run's folder, its address, and the attempt to create its MLflow run, which may be under way still.

    Raises:
        ValueError: an unusable URI, or a store that answers and refuses.
    """
    address = RunAddress(
        run_id=uuid.uuid4().hex,
        tracking_uri=resolve_tracking_uri(tracking_uri, storage),
        experiment=experiment,
        run_name=run_name,
        tags={name: str(value) for name, value in tags.items()},
        start_time=int(time.time() * 1000),
    )
    creation = _in_background(lambda: find_or_create_run(open_client(address.tracking_uri), address))
    mlflow_run_id = _result_in_time(creation, address.tracking_uri, wait_seconds)
    if mlflow_run_id:
        address = dataclasses.replace(address, run_id=mlflow_run_id, mlflow_run_id=mlflow_run_id)
    folder = storage / address.run_id
    folder.mkdir(parents=True)
    address.save(folder)
    return folder, address, creation


def aim(folder: Path, address: RunAddress, tracking_uri: str | None) -> RunAddress:
    """The address to send to: another store than before starts from the spool's first record."""
    if tracking_uri is None or tracking_uri == address.tracking_uri:
        if address.mlflow_run_id:
            require_store(address.tracking_uri)
        return address
    check_tracking_uri(tracking_uri)
    address = dataclasses.replace(address, tracking_uri=tracking_uri, mlflow_run_id=None)
    write_cursor(folder, 0)
    address.save(folder)
    return address


def _in_background(function: Callable[[], str]) -> Future[str]:
    """Run in a daemon thread, which keeps no process alive (an executor's would)."""
    future: Future[str] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="iql-ray-tracking-start", daemon=True).start()
    return future


def _result_in_time(creation: Future[str], uri: str, wait_seconds: float) -> str | None:
    """The MLflow run's id, or None where a server does not answer in time; an embedded store is waited for."""
    try:
        return creation.result(None if is_embedded(uri) else wait_seconds)
    except TimeoutError:
        return None
    except Exception as error:
        if is_embedded(uri) or is_refusal(error):
            raise ValueError(f"tracking store {redacted(uri)} cannot be used: {error}") from error
        return None
