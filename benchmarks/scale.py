"""What saturates first when workers and trials become many: simulated at 10, 100 and 1,000, and reckoned from there.

    python benchmarks/scale.py [--workers 10 100 1000] [--trials 10 100 300] [--seconds 8] [--out FILE.json]

Whatever is in the middle is real: the director of fine-tuning with its pool, replay ring and experience log; Tune's
loop; the record of a search with its writer and an SQLite store. Whatever is many is not: workers answer with blocks
made beforehand (`_posing_workers.py`), trials do nothing, updates are not made. Processor time is that of the process
in the middle, all its threads included, so that the neighbours on a small machine count little. Then a real worker's
start and memory, and what two Ray nodes exchange on this machine. `_scale_model.py` says what follows for other
numbers. The last line is JSON.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import numpy as np
import psutil
import ray
from ray import tune
from ray.cluster_utils import Cluster

from benchmarks._posing_workers import ENVS_PER_WORKER, collecting_of
from benchmarks._result import write_result
from benchmarks._scale_model import Collecting, Searching
from benchmarks.finetune import update_seconds
from iql_ray.distributed.collecting import CollectingWorkers
from iql_ray.distributed.search_record import MEMBER_PACE
from iql_ray.distributed.search_tuning import ENVIRONMENT as TUNE_ENVIRONMENT
from iql_ray.tracking.runs import RunLogger
from iql_ray.tracking.shipping import Shipper

STEPS_PER_BLOCK = (8, 64)
CURVE_POINTS, CURVES = 10, 12
"""Logged for each member of a search."""
COPY_MB = 256
WORKER_RATES = (100.0, 1_000.0, 14_000.0)
"""Environment steps a second of a worker: a slow simulator, a fair one, HalfCheetah's eight."""
RATIOS = (1.0, 0.1, 0.01)
TRIAL_SECONDS, TRIAL_MEMBERS, MEMBER_ROWS = 600.0, 16, 100 * CURVES
"""Of the search that the model is asked about."""


def recording_of(num_members: int) -> dict[str, float]:
    """The record of a search with so many members: opened, some curves, closed, all of it in the store."""
    memory_before = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as folder:
        RunLogger.start(storage=folder, experiment="scale").close("FINISHED")  # makes the store
        shipper = Shipper(MEMBER_PACE.ship_seconds)
        started, cpu_before = time.perf_counter(), time.process_time()
        runs = [
            RunLogger.start(storage=folder, experiment="scale", pace=MEMBER_PACE, shipper=shipper)
            for _ in range(num_members)
        ]
        opened = time.perf_counter()
        for point in range(CURVE_POINTS):
            for run in runs:
                run.log_metrics(point, {f"curve/{number}": float(point) for number in range(CURVES)})
        logged, memory = time.perf_counter(), psutil.Process().memory_info().rss
        complete = [run.close("FINISHED", timeout_seconds=600) for run in runs]
        closed = time.perf_counter()
        assert all(complete), "the store has not taken everything"
    return {
        "open_seconds_per_member": (opened - started) / num_members,
        "log_seconds_per_row": (logged - opened) / (num_members * CURVE_POINTS * CURVES),
        "seconds_per_member": (closed - started) / num_members,
        "rows_per_second": num_members * CURVE_POINTS * CURVES / (closed - opened),
        "cpu_seconds_per_member": (time.process_time() - cpu_before) / num_members,
        "megabytes": (memory - memory_before) / 1e6,
    }


class NoTrial(tune.Trainable):
    """Begins, reports once, and is over."""

    def step(self) -> dict[str, Any]:
        return {"done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True


def trials_of(num_trials: int) -> dict[str, float]:
    """Tune's loop over so many trials that do nothing, two at a time."""
    memory_before, cpu_before = psutil.Process().memory_info().rss, time.process_time()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(NoTrial, {"cpu": 1}),
            param_space={"number": tune.grid_search(list(range(num_trials)))},
            tune_config=tune.TuneConfig(max_concurrent_trials=2, reuse_actors=True),
            run_config=tune.RunConfig(name="scale", storage_path=folder, verbose=0),
        ).fit()
    return {
        "seconds_per_trial": (time.perf_counter() - started) / num_trials,
        "cpu_seconds_per_trial": (time.process_time() - cpu_before) / num_trials,
        "megabytes": (psutil.Process().memory_info().rss - memory_before) / 1e6,
    }


def worker_start() -> dict[str, float]:
    """Until one more real worker is there, and its own memory."""
    with CollectingWorkers("Pendulum-v1", 1, ENVS_PER_WORKER, seed=0) as workers:
        started = time.perf_counter()
        policy: Any = _pendulum_policy()
        workers.collect(policy, 0, 1)
        seconds = time.perf_counter() - started
        found = [each for each in psutil.process_iter(["cmdline"]) if _is_worker(each)]
        unique = [each.memory_full_info().uss for each in found]
    return {"seconds": seconds, "megabytes": max(unique, default=0) / 1e6}


def _is_worker(process: psutil.Process) -> bool:
    return "CollectingWorker" in " ".join(process.info["cmdline"] or ())


def _pendulum_policy() -> Any:
    from benchmarks.rollout import random_policy
    from iql_ray.envs.catalog import environment_spaces

    return random_policy(environment_spaces("Pendulum-v1"))


def node_copy(repetitions: int = 5) -> dict[str, float]:
    """MB a second of an object that a task on another node of this machine asks for."""

    @ray.remote(num_cpus=0, resources={"far": 1})
    def fetch(wrapped: list[Any]) -> float:
        started = time.perf_counter()
        ray.get(wrapped[0])
        return time.perf_counter() - started

    ray.get(fetch.remote([ray.put(b"")]))
    objects = (ray.put(np.zeros(COPY_MB * 1_000_000, np.uint8)) for _ in range(repetitions))
    seconds = statistics.median([ray.get(fetch.remote([each])) for each in objects])
    return {"megabytes_per_second": COPY_MB / seconds}


def measured(workers: list[int], trials: list[int], seconds: float) -> dict[str, Any]:
    """All of it."""
    result: dict[str, Any] = {"update_seconds": update_seconds(100), "collecting": {}, "recording": {}, "trials": {}}
    result["worker"], result["copy"] = worker_start(), node_copy()
    for number in workers:
        for steps in STEPS_PER_BLOCK:
            found = result["collecting"][f"{number} workers, {steps} steps"] = collecting_of(number, steps, seconds)
            _say(f"{number:>6} workers, blocks of {steps:>2} steps", found)
        _say(f"{number:>6} members recorded", result["recording"].setdefault(str(number), recording_of(number)))
    for number in trials:
        _say(f"{number:>6} trials", result["trials"].setdefault(str(number), trials_of(number)))
    return result


def _say(name: str, numbers: dict[str, float]) -> None:
    print(f"{name:38}" + "  ".join(f"{key} {value:.4g}" for key, value in numbers.items()), flush=True)


def reckoned(found: dict[str, Any], workers: list[int]) -> dict[str, Any]:
    """What the smallest simulation promises for the others, and what the model says of whole runs."""
    small, large = (
        found["collecting"][f"{workers[0]} workers, {steps} steps"]["cpu_seconds_per_block"]
        for steps in STEPS_PER_BLOCK
    )
    rows = [steps * ENVS_PER_WORKER for steps in STEPS_PER_BLOCK]
    model = Collecting.fitted(rows[0], small, rows[1], large)
    records, trials = (list(found[part].values())[-1] for part in ("recording", "trials"))
    search = Searching(
        start_seconds=found["worker"]["seconds"],
        loop_seconds=trials["cpu_seconds_per_trial"],
        rows_per_second=records["rows_per_second"],
        member_seconds=records["open_seconds_per_member"],
    )
    grown = {
        name: numbers["cpu_seconds_per_block"] / (model.block_seconds + model.row_seconds * _rows_of(name))
        for name, numbers in found["collecting"].items()
    }
    saturating = [
        {
            "worker_rate": rate,
            "ratio": ratio,
            "steps_per_block": steps,
            "workers": model.saturating_workers(rate, steps * ENVS_PER_WORKER, ratio, found["update_seconds"]),
            "steps_per_second": model.learner_rate(steps * ENVS_PER_WORKER, ratio, found["update_seconds"]),
        }
        for steps in STEPS_PER_BLOCK
        for ratio in RATIOS
        for rate in WORKER_RATES
    ]
    return {
        "collecting": asdict(model),
        "cost_of_a_block_against_the_model": grown,
        "searching": asdict(search),
        "saturating_workers": saturating,
        "saturating_slots": search.saturating_slots(TRIAL_SECONDS, TRIAL_MEMBERS, MEMBER_ROWS),
    }


def _rows_of(name: str) -> int:
    return int(name.split(", ")[1].split()[0]) * ENVS_PER_WORKER


def report(found: dict[str, Any], model: dict[str, Any]) -> None:
    """The tables."""
    print(
        f"\nan update {found['update_seconds'] * 1e3:.1f} ms; a worker's start {found['worker']['seconds']:.1f} s and "
        f"{found['worker']['megabytes']:.0f} MB; between nodes {found['copy']['megabytes_per_second']:.0f} MB/s"
    )
    costs = model["collecting"]
    print(
        f"a block costs the learner's process {costs['block_seconds'] * 1e3:.2f} ms and "
        f"{costs['row_seconds'] * 1e6:.1f} us a transition; measured against that:"
    )
    for name, ratio in model["cost_of_a_block_against_the_model"].items():
        print(f"  {name:28}{ratio:6.2f}")
    print("workers that keep a learner busy, by steps/s of a worker, updates a step, steps a block")
    for each in model["saturating_workers"]:
        print(
            f"  {each['worker_rate']:>8,.0f} {each['ratio']:>6} {each['steps_per_block']:>4}"
            f"{each['workers']:>10,} workers {each['steps_per_second']:>12,.0f} steps/s"
        )
    print(
        f"trials at a time ({TRIAL_SECONDS:.0f} s, {TRIAL_MEMBERS} members, {MEMBER_ROWS} numbers each) that keep busy"
    )
    for name, slots in model["saturating_slots"].items():
        print(f"  {name:20}{slots:>10,}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100, 300])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each simulation of collecting")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.environ.update(TUNE_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it misses the files that it was told not to write
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4}, connect=True)
    try:
        cluster.add_node(num_cpus=0, resources={"far": 1})
        found = measured(arguments.workers, arguments.trials, arguments.seconds)
    finally:
        ray.shutdown()
        cluster.shutdown()
    model = reckoned(found, arguments.workers)
    report(found, model)
    result = {"cpus": os.cpu_count(), "measured": found, "model": model}
    write_result(result, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
