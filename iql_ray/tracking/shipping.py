"""The thread that sends runs' spools while the runs go on, and waits while the store is away.

It sleeps between rounds and sends what has gathered, so that it takes little of the interpreter from the training. A
run has one to itself; the members of a search share one, however many there are.
"""

from __future__ import annotations

import dataclasses
import logging
import textwrap
import threading
from collections.abc import Callable

from iql_ray.redaction import redacted
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


class Shipment:
    """One run's spool on its way; made by `Shipper.add`."""

    def __init__(self, spool: Spool, address: RunAddress, wait_for: Callable[[], object] | None) -> None:
        self.spool, self.address = spool, address
        self.is_closing = self.is_abandoned = False
        self.is_over = threading.Event()
        """Everything was sent after closing began."""
        self._wait_for = wait_for
        self._sender: RunSender | None = None

    def send(self) -> None:
        """What has gathered.

        Raises:
            Exception: the store is away.
        """
        if self._wait_for:
            self._wait_for()
            self._wait_for = None
        is_last = self.is_closing
        self._sender = self._sender or connect(self.address, self.spool)
        self._sender.send_waiting(lambda: self.is_abandoned)
        if is_last and not self.is_abandoned:
            self.is_over.set()


class Shipper:
    """Sends spools from one background thread, each until it is closed; the thread ends with the last of them.

    Args:
        interval_seconds: the pause between two rounds.
    """

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._backoff_seconds = 0.0
        self._shipments: list[Shipment] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()

    def add(self, spool: Spool, address: RunAddress, wait_for: Callable[[], object] | None = None) -> Shipment:
        """Begin to send a spool.

        Args:
            spool: held by this process.
            address: where to.
            wait_for: called first in the thread, for example to let an attempt to create the run finish.
        """
        shipment = Shipment(spool, address, wait_for)
        with self._lock:
            self._shipments.append(shipment)
            if len(self._shipments) == 1:
                threading.Thread(target=self._work, name="iql-ray-tracking", daemon=True).start()
        return shipment

    def close(self, shipment: Shipment, timeout_seconds: float) -> bool:
        """Send what is left of it, for at most `timeout_seconds`; whether all of it was sent."""
        shipment.is_closing = True
        self._wake.set()
        is_sent = shipment.is_over.wait(timeout_seconds)
        shipment.is_abandoned = True
        self._wake.set()
        return is_sent

    def _work(self) -> None:
        while waiting := self._waiting():
            for shipment in waiting:
                if not self._send(shipment) or self._wake.is_set():
                    break  # the store is away, or somebody waits for one that may be far behind
            self._pause(any(shipment.is_closing for shipment in waiting))

    def _waiting(self) -> list[Shipment]:
        """Those that are not over, the ones that somebody waits for first; none left ends the thread."""
        with self._lock:
            self._shipments = [each for each in self._shipments if not (each.is_over.is_set() or each.is_abandoned)]
            return sorted(self._shipments, key=lambda shipment: not shipment.is_closing)

    def _send(self, shipment: Shipment) -> bool:
        """Whether the store took it; one that it did not take stands behind the others from then on."""
        try:
            shipment.send()
        except Exception as error:
            # Whatever it is, training goes on and the records wait in the spool.
            self._report_outage(error, shipment)
            with self._lock:
                self._shipments.remove(shipment)
                self._shipments.append(shipment)
            return False
        if self._backoff_seconds:
            logger.info("tracking store %s takes records again", redacted(shipment.address.tracking_uri))
        self._backoff_seconds = 0.0
        return True

    def _pause(self, is_waited_for: bool) -> None:
        """Wait for the next round; closing cuts the wait short."""
        seconds = self._backoff_seconds or self._interval_seconds
        self._wake.wait(min(seconds, 1.0) if is_waited_for else seconds)
        self._wake.clear()

    def _report_outage(self, error: Exception, shipment: Shipment) -> None:
        if not self._backoff_seconds:
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
            store, folder = redacted(shipment.address.tracking_uri), shipment.spool.folder
            logger.warning("tracking store %s takes no records (%s); they wait in %s", store, reason, folder)
        self._backoff_seconds = min(MAX_BACKOFF_SECONDS, max(1.0, 2 * self._backoff_seconds))
