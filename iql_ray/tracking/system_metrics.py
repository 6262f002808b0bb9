"""The machine's load as metrics `system/...`: processors, memory, disk, network, and GPUs where NVML is installed.

MLflow's own monitors, on the machine of the process that holds the run's logger.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from iql_ray.tracking.store import set_environment_defaults

PREFIX = "system/"

logger = logging.getLogger(__name__)


class SystemSampler:
    """Samples in a background thread until it is closed.

    Args:
        record: takes the sample's number and its values.
        interval_seconds: the pause between two samples.
        first_step: the number of the first sample; a resumed run counts on.
    """

    def __init__(
        self, record: Callable[[int, dict[str, float]], None], interval_seconds: float, first_step: int = 0
    ) -> None:
        self._record = record
        self._interval_seconds = interval_seconds
        self._step = first_step
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="iql-ray-system-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop sampling; nothing is recorded after this returns."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        monitors = _monitors()
        sample(monitors)  # a processor's load is measured since the call before
        while monitors and not self._stop.wait(self._interval_seconds):
            self._record(self._step, sample(monitors))
            self._step += 1


def sample(monitors: list[Any]) -> dict[str, float]:
    """One reading of every monitor, by metric name."""
    values: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        values.update({PREFIX + name: float(value) for name, value in monitor.aggregate_metrics().items()})
        monitor.clear_metrics()
    return values


def _monitors() -> list[Any]:
    """Those of MLflow's monitors that work here."""
    set_environment_defaults()
    try:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    except ImportError as error:
        logger.warning("no system metrics: %s", error)
        return []
    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # no NVML, or no GPU
        monitors.append(GPUMonitor())
    return monitors
