"""Ray nodes on this machine, each with an address, a store and processes of its own: for tests and measurements.

They are started as on any machines, by `ray start`, with token authentication, and end by their process ids alone.
Linux: every node has its own loopback address, unless it is told another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from benchmarks._http_load import free_port

ROOT = Path(__file__).parents[1]
RAY = Path(sys.executable).parent / "ray"
STARTED = "This command will now block forever"
START_SECONDS, STOP_SECONDS = 120.0, 15.0
NUM_STARTS = 3
"""A busy machine: a raylet gives its helpers half a minute to start."""
STORE_BYTES = 128 * 2**20


class RayNode:
    """One node: the `ray start` that watches it, and everything below."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self._process = process

    def processes(self) -> list[psutil.Process]:
        """Raylet, agents and workers."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def kill(self) -> None:
        """As if its machine lost power: SIGKILL to everything at once."""
        family = [*self.processes(), psutil.Process(self._process.pid)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def stop(self) -> None:
        """By its own will, if it has one."""
        family = self.processes()
        self._process.terminate()
        _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self._process.kill()
        self._process.wait()


class RayNodes:
    """A cluster of them: a head without CPUs, and whatever nodes are added.

    Args:
        head_address: of the head; another node gets the one that it is added with.
        prefix: words before `ray start` of the head, such as those that enter a network namespace.
    """

    def __init__(self, head_address: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="iql", dir="/tmp"))  # short: paths of sockets have 107 characters
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self._port = free_port()
        self._head_address = head_address
        self.nodes: dict[str, RayNode] = {}
        self._num_added = 0
        self.environment: dict[str, str] = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        self.environment.pop("RAY_ADDRESS", None)
        head = ["--head", "--port", str(self._port), "--include-dashboard", "false"]
        head += ["--ray-client-server-port", str(free_port())]
        try:
            self._start("head", head, 0, {}, head_address, prefix)
        except BaseException:
            self.close()
            raise
        self.environment["RAY_ADDRESS"] = f"{head_address}:{self._port}"

    def add(
        self, name: str, num_cpus: int, resources: Mapping[str, float] | None = None, *,
        address: str | None = None, prefix: Sequence[str] = (),
    ) -> RayNode:  # fmt: skip
        """Another node; its resources are Ray's custom ones."""
        self._num_added += 1
        address = address or f"127.0.0.{1 + self._num_added}"  # of its own, whichever nodes are gone
        joins = ["--address", f"{self._head_address}:{self._port}"]
        return self._start(name, joins, num_cpus, resources or {}, address, prefix)

    def close(self) -> None:
        """Stop all nodes, and delete what they left. Can be called twice."""
        for node in reversed(self.nodes.values()):
            node.stop()
        self.nodes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(
        self, name: str, role: Sequence[str], num_cpus: int, resources: Mapping[str, float], address: str,
        prefix: Sequence[str],
    ) -> RayNode:  # fmt: skip
        command = [
            *prefix, sys.executable, str(RAY), "start", *role, "--node-ip-address", address,
            "--num-cpus", str(num_cpus), "--resources", json.dumps(resources),
            "--object-store-memory", str(STORE_BYTES), "--dashboard-agent-listen-port", "0",
            "--include-log-monitor", "false",  # nobody reads their workers' lines here
            "--temp-dir", str(self.folder / name), "--block",
        ]  # fmt: skip
        for _ in range(NUM_STARTS):
            log = self.folder / f"{name}.log"
            with log.open("w") as output:
                process = subprocess.Popen(
                    command, stdout=output, stderr=output, env=self.environment, cwd=ROOT, start_new_session=True
                )
            self.nodes[name] = RayNode(name, process)
            if _is_up(process, log):
                return self.nodes[name]
            self.nodes.pop(name).stop()
        raise RuntimeError(f"node {name} did not start:\n{log.read_text()}")

    def __enter__(self) -> RayNodes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_up(process: subprocess.Popen[bytes], log: Path) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if STARTED in log.read_text():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.05)
    return False
