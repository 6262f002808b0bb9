"""The Ray session of a command: joins the cluster it was given, or starts a local one and stops it again.

Configures Ray's console (warnings and errors of workers, no play-by-play) and nothing about the work itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iql_ray.distributed.roles import Node

MIN_LOCAL_CPUS = 4
"""Logical CPUs of a local session at least: on a two-core laptop a learner and its evaluation workers would
otherwise wait for each other for ever. They share the cores that there are."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # The trainer's controller polls its workers this often, and every report waits for a poll: 2 s by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Lines of worker processes that say nothing to a user: the trainer asks a dashboard that we do not start, and
    # narrates what our own progress shows.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "|".join(
        (
            "State API may be temporarily unavailable",
            "PYTHON worker processes have been started on node",  # of actors without a CPU of their own, as ours are
            "has constructor arguments in the object store and max_restarts",
            "Reporting training result",
            "Trainable.setup took",
            "Setting up process group for",
            "Requesting resources: ",
            "Attempting to start training worker group",
            "Started training worker group",
            r"^- \(ip=.* world_rank=",
            # Of what Ray Data might use if there were more: what a run cannot do without is said by itself.
            "There are tasks with infeasible resource requests",
        )
    ),
}
"""Set before Ray starts, where the user has not set them."""


@contextlib.contextmanager
def ray_session(num_cpus: int | None = None) -> Iterator[None]:
    """Connect to Ray for the length of a `with` block, and stop only what was started here.

    A session that this process already has is used and left alone. Otherwise `RAY_ADDRESS` is joined (Ray sets it
    inside a submitted job), and without it a local session starts.

    Args:
        num_cpus: logical CPUs of a local session; by default the machine's, and at least `MIN_LOCAL_CPUS`.

    Raises:
        ValueError: `RAY_ADDRESS` is the address of the job server, which takes jobs and not drivers.
    """
    for name, value in _environment().items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        _connect(os.environ.get("RAY_ADDRESS"), num_cpus)
        _quieten_data()
        from iql_ray.distributed.stopping import terminated

        with terminated():  # SIGTERM ends a command with the same code wherever it finds it
            yield
    finally:
        ray.shutdown()


def cluster_nodes(num_cpus: int | None = None) -> list[Node]:
    """The nodes of the cluster that RAY_ADDRESS names; without one, the local session as it would be, not started.

    Args:
        num_cpus: as for `ray_session`.
    """
    if os.environ.get("RAY_ADDRESS"):
        with ray_session():
            from iql_ray.distributed.cluster_room import alive_nodes

            return alive_nodes()
    import torch

    from iql_ray.distributed.roles import Node

    resources = {"CPU": float(num_cpus or default_num_cpus()), "GPU": float(torch.cuda.device_count())}
    return [Node(address="this machine", total=resources, free=resources)]


def default_num_cpus() -> int:
    """Logical CPUs of a local session."""
    return max(MIN_LOCAL_CPUS, os.cpu_count() or 1)


def _environment() -> dict[str, str]:
    return ENVIRONMENT if sys.stderr.isatty() else {**ENVIRONMENT, "RAY_COLOR_PREFIX": "0"}


def _connect(address: str | None, num_cpus: int | None) -> None:
    import ray

    if address and address.startswith(("http://", "https://")):
        raise ValueError(
            f"RAY_ADDRESS is {address}, where jobs are submitted; a command joins HOST:PORT of the head node. "
            "Submit this command with `ray job submit`, or unset RAY_ADDRESS to run here."
        )
    # Ray announces at every local start that its token authentication is on; it stays on, and needs no warning.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    if address:
        ray.init(address=address, logging_level=logging.WARNING)
    else:
        ray.init(
            address="local",
            num_cpus=num_cpus or default_num_cpus(),
            include_dashboard=False,
            logging_level=logging.WARNING,
        )


def _quieten_data() -> None:
    """Ray Data narrates every execution on the console; its own log file keeps the whole story."""
    import ray.data  # noqa: F401, configures the logger's handlers

    for handler in logging.getLogger("ray.data").handlers:
        if not hasattr(handler, "_filename"):
            handler.setLevel(logging.WARNING)
