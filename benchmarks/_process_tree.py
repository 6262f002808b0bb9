"""Seconds and CPU seconds of a command and of everything that it starts, Ray's own processes included."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    last_line: str
    """Of its stdout."""


def measured(arguments: list[str]) -> Measured:
    """Run `python` with these arguments and wait for it.

    CPU seconds are what each process was last seen to have used; the last fifth of a second of each may be missing.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    used: dict[tuple[int, float], float] = {}
    while process.poll() is None:
        _note(psutil.Process(process.pid), used)
        time.sleep(SAMPLE_SECONDS)
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} exited with {process.returncode}")
    return Measured(seconds=time.perf_counter() - started, cpu_seconds=sum(used.values()), last_line=lines[-1])


def _note(root: psutil.Process, used: dict[tuple[int, float], float]) -> None:
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        try:
            times = process.cpu_times()
            used[process.pid, process.create_time()] = times.user + times.system
        except psutil.NoSuchProcess:
            continue
