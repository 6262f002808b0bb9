"""What the drills share: something done beside a run, processes to kill, and Ray's own to wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

Found = TypeVar("Found")


def wait_until(look: Callable[[], Found | None], timeout_seconds: float = 600) -> Found:
    """What it gives as soon as that is something."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.01)
    raise TimeoutError(f"waited {timeout_seconds:.0f} s in vain")


def processes_of(ancestor: int, name: str) -> list[psutil.Process]:
    """The processes of that name among those that descend from this one, and of no other Ray session."""
    found = []
    for process in psutil.Process(ancestor).children(recursive=True):
        try:
            if name in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def in_background(function: Callable[[], None]) -> Callable[[], None]:
    """Start it in a thread; call the result to wait for it, and for its error."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()

    def wait() -> None:
        thread.join()
        if errors:
            raise errors[0]

    return wait


def end(family: list[psutil.Process]) -> None:
    """Ray's processes follow their driver by themselves; those that take too long are helped."""
    _, alive = psutil.wait_procs(family, timeout=10)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=10)
