"""python benchmarks/tracking.py [--rounds 3] [--updates 4000] [--out benchmarks/results/tracking.json]

What tracking costs a training loop: one thread does updates of fixed work (about 3 ms of matrix products) and logs 8
metrics every 500, with no tracking, with the embedded SQLite store, with a server that takes 5 s for every answer, and
with a server that is not there. The ways take turns, so that a busy machine slows all of them alike.

`overhead` is the median over rounds of the loop's time against the loop without tracking in the same round;
`cost_bound` is what does not depend on the neighbours: the time inside `log_metrics` plus all the processor time of
background threads, as a part of the loop's time. Below 1% is the target.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before numpy is imported

import argparse
import json
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import write_result
from iql_ray.tracking.runs import RunLogger

SLOW_SECONDS = 5.0
INTERVAL_UPDATES = 500
METRICS = {f"train/metric_{index}": 0.5 * index for index in range(8)}
TARGET = 0.01
RUN = {"info": {"run_id": "0" * 32, "experiment_id": "1", "status": "RUNNING", "lifecycle_stage": "active"}}
ANSWERS = {
    "experiments/get-by-name": {"experiment": {"experiment_id": "1", "name": "bench", "lifecycle_stage": "active"}},
    "runs/create": {"run": RUN},
    "runs/get": {"run": RUN},
}

Loop = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One loop: its time, the time in `log_metrics`, the processor time of all other threads."""

    loop_seconds: float
    logging_seconds: float
    background_seconds: float


class SlowHandler(BaseHTTPRequestHandler):
    """As much of MLflow's REST interface as a run needs, each answer after `SLOW_SECONDS`."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        time.sleep(SLOW_SECONDS)
        path = self.path.partition("?")[0].partition("/mlflow/")[2]
        body = json.dumps(ANSWERS.get(path, {})).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def serve_slowly(port: int) -> None:
    ThreadingHTTPServer(("127.0.0.1", port), SlowHandler).serve_forever()


def fixed_update(seconds: float = 0.003) -> Loop:
    """Matrix products of 256 x 256, as many as take about `seconds` here."""
    matrix, out = np.random.default_rng(0).standard_normal((256, 256), np.float32), np.empty((256, 256), np.float32)
    started = time.perf_counter()
    for _ in range(200):
        np.matmul(matrix, matrix, out=out)
    num_products = max(1, round(200 * seconds / (time.perf_counter() - started)))

    def update() -> None:
        for _ in range(num_products):
            np.matmul(matrix, matrix, out=out)

    return update


def measure(update: Loop, num_updates: int, logger: RunLogger | None) -> Measured:
    """The loop's time with or without a logger, whose start and end are left out."""
    logging_seconds = 0.0
    process_started, thread_started, started = time.process_time(), time.thread_time(), time.perf_counter()
    for step in range(1, num_updates + 1):
        update()
        if logger and step % INTERVAL_UPDATES == 0:
            logging_started = time.perf_counter()
            logger.log_metrics(step, METRICS)
            logging_seconds += time.perf_counter() - logging_started
    loop_seconds = time.perf_counter() - started
    own_seconds = time.thread_time() - thread_started
    background_seconds = time.process_time() - process_started - own_seconds
    return Measured(loop_seconds=loop_seconds, logging_seconds=logging_seconds, background_seconds=background_seconds)


def measure_way(uri: str | None, storage: Path, update: Loop, num_updates: int) -> Measured:
    """One loop with its own run; without a URI, without tracking."""
    if uri is None:
        return measure(update, num_updates, None)
    logger = RunLogger.start(storage=storage, experiment="bench", tracking_uri=uri)
    measured = measure(update, num_updates, logger)
    logger.close(timeout_seconds=1.0)
    return measured


def run(rounds: int, num_updates: int) -> dict[str, Any]:
    """Take turns; the figures by way."""
    slow_port = free_port()
    server = multiprocessing.get_context("spawn").Process(target=serve_slowly, args=(slow_port,), daemon=True)
    server.start()
    measured: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        ways = {
            "none": None,
            "sqlite": f"sqlite:///{storage}/mlflow.db",
            "slow server": f"http://127.0.0.1:{slow_port}",
            "dead server": f"http://127.0.0.1:{free_port()}",
        }
        update = fixed_update()
        measure_way(ways["sqlite"], storage, update, 1)  # import and create the tables once
        for _ in range(rounds):
            for way, uri in ways.items():
                measured.setdefault(way, []).append(measure_way(uri, storage, update, num_updates))
    server.terminate()
    server.join()
    return {way: summarize(loops, measured["none"]) for way, loops in measured.items()}


def summarize(loops: list[Measured], untracked: list[Measured]) -> dict[str, float]:
    """Medians over the rounds."""
    ratios = [one.loop_seconds / other.loop_seconds for one, other in zip(loops, untracked, strict=True)]
    parts = [(one.logging_seconds + one.background_seconds) / one.loop_seconds for one in loops]
    return {
        "loop_seconds": statistics.median(one.loop_seconds for one in loops),
        "overhead": statistics.median(ratios) - 1,
        "overhead_lowest": min(ratios) - 1,
        "overhead_highest": max(ratios) - 1,
        "cost_bound": statistics.median(parts),
        "log_milliseconds": 1000 * statistics.median(one.logging_seconds for one in loops),
        "background_milliseconds": 1000 * statistics.median(one.background_seconds for one in loops),
    }


def main() -> None:
    """Measure, print a table, and the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=None, help="also write the JSON here")
    arguments = parser.parse_args()
    ways = run(arguments.rounds, arguments.updates)
    print(f"{'':12} {'loop s':>8} {'overhead':>9} {'(lowest, highest)':>19} {'cost bound':>11}")
    for way, figures in ways.items():
        spread = f"({figures['overhead_lowest']:+.1%}, {figures['overhead_highest']:+.1%})"
        bound = f"{figures['cost_bound']:>11.2%}"
        print(f"{way:12} {figures['loop_seconds']:8.2f} {figures['overhead']:>+9.2%} {spread:>19} {bound}")
    worst = max(figures["cost_bound"] for way, figures in ways.items() if way != "none")
    result = {"updates": arguments.updates, "rounds": arguments.rounds, "ways": ways, "is_met": worst < TARGET}
    write_result(result, arguments.out)


if __name__ == "__main__":
    main()
