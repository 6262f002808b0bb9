"""The thread that sends a run's spool while the run goes on, and waits while the store is away.

It sleeps between rounds and sends what has gathered, so that it takes little of the interpreter from the training.
"""

from __future__ import annotations

import dataclasses
import logging
import textwrap
import threading
from collections.abc import Callable

from iql_ray.tracking.sending import RunSender
from iql_ray.tracking.spool import Spool
from iql_ray.tracking.store import RunAddress, find_or_create_run, open_client

MAX_BACKOFF_SECONDS = 30.0

logger = logging.getLogger(__name__)


def connect(address: RunAddress, spool: Spool) -> RunSender:
    """The sender for a run; its MLflow run is created, and noted in the run folder, if it does not exist yet."""
    client = open_client(address.tracking_uri)
    mlflow_run_id = address.mlflow_run_id
    if mlflow_run_id is None:
        mlflow_run_id = find_or_create_run(client, address)
        dataclasses.replace(address, mlflow_run_id=mlflow_run_id).save(spool.folder)
    return RunSender(client, mlflow_run_id, spool)


class Shipper:
    """Sends a spool from a background thread until it is closed.

    Args:
        spool: held by this process.
        address: where to.
        interval_seconds: the pause between two rounds.
        wait_for: called first in the thread, for example to let an attempt to create the run finish.
    """

    def __init__(
        self, spool: Spool, address: RunAddress, interval_seconds: float, wait_for: Callable[[], object] | None = None
    ) -> None:
        self._spool = spool
        self._address = address
        self._interval_seconds = interval_seconds
        self._wait_for = wait_for
        self._wake = threading.Event()
        self._is_closing = False
        self._must_stop = False
        self._thread = threading.Thread(target=self._work, name="iql-ray-tracking", daemon=True)
        self._thread.start()

    def close(self, timeout_seconds: float) -> bool:
        """Send what is left, for at most `timeout_seconds`; whether all of it was sent."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(timeout_seconds)
        self._must_stop = True
        self._wake.set()
        return not self._thread.is_alive()

    def _work(self) -> None:
        if self._wait_for:
            self._wait_for()
        sender: RunSender | None = None
        backoff_seconds = 0.0
        while not self._must_stop:
            is_last_round = self._is_closing
            try:
                sender = sender or connect(self._address, self._spool)
                sender.send_waiting(lambda: self._must_stop)
                backoff_seconds = self._report_return(backoff_seconds)
            except Exception as error:
                # Whatever it is, training goes on and the records wait in the spool.
                backoff_seconds = self._report_outage(error, backoff_seconds)
            else:
                if is_last_round:
                    return
            self._pause(backoff_seconds)

    def _pause(self, backoff_seconds: float) -> None:
        """Wait for the next round; closing cuts the wait short."""
        seconds = backoff_seconds or self._interval_seconds
        self._wake.wait(min(seconds, 1.0) if self._is_closing else seconds)
        self._wake.clear()

    def _report_outage(self, error: Exception, backoff_seconds: float) -> float:
        if not backoff_seconds:
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
            store, folder = self._address.tracking_uri, self._spool.folder
            logger.warning("tracking store %s takes no records (%s); they wait in %s", store, reason, folder)
        return min(MAX_BACKOFF_SECONDS, max(1.0, 2 * backoff_seconds))

    def _report_return(self, backoff_seconds: float) -> float:
        if backoff_seconds:
            logger.info("tracking store %s takes records again", self._address.tracking_uri)
        return 0.0
