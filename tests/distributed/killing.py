"""What the drills share: something done beside a run, processes to kill, and Ray's own to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psutil


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
