"""A real head with token authentication, as docs/cluster.md starts it, and jobs that are submitted to it by Ray's own
command; nothing of Ray runs in the process of the tests."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.distributed.killing import wait_until

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
JOB_SECONDS = 900
"""How long a test waits for one: this machine may be busy with others."""
OVER = ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where a head is, and who may speak with it."""

    dashboard_port: int
    client_port: int
    folder: Path
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Of a client that has the token."""
        return {**stranger(self), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.folder / "token")}

    def ray(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Ray's own command."""
        return subprocess.run(
            [RAY, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=JOB_SECONDS,
            env=environment or self.environment,
            cwd=self.folder,
        )

    def submit(self, *command: str, name: str, wait: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of ours as a job of this id, with what we ship for jobs."""
        options = ["--address", self.url, "--submission-id", name, "--runtime-env", str(self.folder / "env.yaml")]
        waiting = [] if wait else ["--no-wait"]
        entrypoint = ["--", sys.executable, "-m", "pipelines", *command]
        return self.ray("job", "submit", *options, *waiting, "--working-dir", str(self.folder / "sent"), *entrypoint)

    def stop(self, name: str) -> str:
        """At once, by the request that `ray job stop` makes; the job's status when it is over."""
        self.get(f"/api/jobs/{name}/stop", method="POST")
        return wait_until(lambda: status if (status := self.job(name)["status"]) in OVER else None, JOB_SECONDS)

    def job(self, name: str) -> dict[str, Any]:
        """What the job server says of a job."""
        return json.loads(self.get(f"/api/jobs/{name}"))

    def logs(self, name: str) -> list[str]:
        return json.loads(self.get(f"/api/jobs/{name}/logs"))["logs"].splitlines()

    def get(self, path: str, method: str = "GET", token: str | None = None) -> str:
        """What the dashboard answers, to a client with the head's token by default."""
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        request = urllib.request.Request(self.url + path, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as refusal:
            refusal.close()
            raise


def stranger(head: Head) -> dict[str, str]:
    """The environment of somebody who has no token, in a home of their own."""
    kept = {name: value for name, value in os.environ.items() if name not in (*AUTHENTICATION, "RAY_ADDRESS")}
    return {**kept, "HOME": str(head.folder), "COLUMNS": "200"}


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def running_head() -> Iterator[Head]:
    """A head of four logical CPUs on the loopback, with authentication on, for the length of the block."""
    gcs, dashboard, client, agent = free_ports(4)
    folder = Path(tempfile.mkdtemp(prefix="iql-"))  # short: sockets lie below it
    head = Head(dashboard_port=dashboard, client_port=client, folder=folder, token=secrets.token_hex(24))
    (folder / "token").write_text(head.token)
    (folder / "token").chmod(0o600)
    (folder / "sent").mkdir()
    (folder / "env.yaml").write_text(yaml.safe_dump(_runtime_environment()))
    command = [
        RAY, "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", str(gcs), "--dashboard-host",
        "127.0.0.1", "--dashboard-port", str(dashboard), "--ray-client-server-port", str(client),
        "--dashboard-agent-listen-port", str(agent), "--num-cpus", "4", "--object-store-memory", "200000000",
        "--temp-dir", str(folder / "ray"), "--disable-usage-stats",
    ]  # fmt: skip
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(command, env=head.environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: _is_up(head, process), timeout_seconds=120)
        yield head
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _runtime_environment() -> dict[str, Any]:
    """The one that is shipped; the nodes have the package from this checkout."""
    shipped = yaml.safe_load((ROOT / "runtime_env.yaml").read_text())
    return {**shipped, "env_vars": {**shipped["env_vars"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}


def _is_up(head: Head, process: subprocess.Popen[bytes]) -> bool | None:
    if process.poll() is not None:
        raise RuntimeError(f"the head did not start:\n{(head.folder / 'head.log').read_text()}")
    with contextlib.suppress(OSError):
        head.get("/api/jobs/")
        return True
    time.sleep(0.2)
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """The head and all that it began."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=5)
    for each in alive:
        each.kill()
