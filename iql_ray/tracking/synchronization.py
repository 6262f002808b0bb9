"""A run's record sent in one go, by whoever waits for it: after the run, or to another store."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from iql_ray.redaction import redacted
from iql_ray.tracking.reaching import StoreUnavailableError
from iql_ray.tracking.shipping import connect
from iql_ray.tracking.spool import Spool, count_rejected, count_waiting
from iql_ray.tracking.starting import aim
from iql_ray.tracking.store import HOLDER_TAG, RunAddress, load_address


def synchronize(folder: Path, tracking_uri: str | None = None, wait_seconds: float = 0.0) -> dict[str, Any]:
    """Send everything that waits in the spool of a run.

    Args:
        folder: the run's folder.
        tracking_uri: another store than before; it gets the whole record.
        wait_seconds: how long to wait for the run's own process to let go.

    Returns:
        `run_id`, `tracking_uri`, `mlflow_run_id`, and the records `sent` now and `rejected` so far.

    Raises:
        ValueError: no run folder, an unusable store, or a run that is still going.
        StoreUnavailableError: the store is away; what it has not taken waits in the spool.
    """
    address = load_address(folder)
    with ExitStack() as held:
        holder = folder.parent / address.tags.get(HOLDER_TAG, address.run_id)
        if holder != folder and holder.is_dir():  # while a search goes on, it holds its own spool for all its members
            held.callback(Spool(holder, wait_seconds).close)
        spool = Spool(folder, wait_seconds)
        held.callback(spool.close)
        return _send(spool, aim(folder, address, tracking_uri))


def _send(spool: Spool, address: RunAddress) -> dict[str, Any]:
    folder = spool.folder
    try:
        sender = connect(address, spool)
        num_sent = sender.send_waiting()
    except ValueError:
        raise
    except Exception as error:
        waiting = f"{count_waiting(folder)} of run {address.run_id} wait in {folder}"
        store = redacted(address.tracking_uri)
        raise StoreUnavailableError(f"tracking store {store} takes no records; {waiting}") from error
    return {
        "run_id": address.run_id,
        "tracking_uri": redacted(address.tracking_uri),
        "mlflow_run_id": sender.run_id,
        "sent": num_sent,
        "rejected": count_rejected(folder),
    }
