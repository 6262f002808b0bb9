"""A server in a process of its own, and a client that sends it a load: for the benchmark, and for the tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 300.0
STOP_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer of a load."""

    row: int
    """Which of the load's observations it was asked about."""
    version: str
    """Empty where the server does not say."""
    predictions: Any
    sent_at: float
    seconds: float


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(
    command: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process group of its own, ended by its own number: SIGTERM, and SIGKILL where that is idle.

    Its stderr goes to `log`, its stdout to `log` with the suffix .out: a pipe that nobody reads would stop it.
    """
    with log.open("w") as errors, printed(log).open("w") as output:
        environment = {**os.environ, **(environment or {})}
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        stop(process)


def printed(log: Path) -> Path:
    """Where `running` puts stdout."""
    return log.with_suffix(".out")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process group: the first process by its own will, if it has one."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Ask again and again, as long as the process lives."""
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        assert process.poll() is None, f"the server ended with {process.returncode}:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"still not so:\n{log.read_text()}"
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether anything at all answers there by 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as reply:
        return json.load(reply)


def post(url: str, message: Any) -> tuple[int, Any]:
    """Status and JSON body, of refusals too."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def send_load(
    port: int, rows: Any, *, num_connections: int, is_over: Callable[[], bool], replies: list[Reply]
) -> None:
    """Ask for one row after the other over connections that stay open, until it is over; a failed request raises."""
    turns = iter(range(10**9))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not is_over():
            row = next(turns) % len(rows)
            replies.append(await _ask(reader, writer, row, rows[row].tolist()))
        writer.close()

    await asyncio.gather(*(client() for _ in range(num_connections)))


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, row: int, observation: Any) -> Reply:
    body = json.dumps({"inputs": observation}).encode()
    fields = ("Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {len(body)}")
    head = "".join(f"{line}\r\n" for line in ("POST /invocations HTTP/1.1", *fields, ""))
    sent_at = time.monotonic()
    writer.write(head.encode() + body)
    status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    length = next(int(field.partition(":")[2]) for field in fields if field.startswith("content-length:"))
    said = await reader.readexactly(length)
    assert " 200 " in status, (status, said)
    message = json.loads(said)
    return Reply(
        row=row,
        version=message.get("version", ""),
        predictions=message["predictions"],
        sent_at=sent_at,
        seconds=time.monotonic() - sent_at,
    )


def serve_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.serve", *arguments]
