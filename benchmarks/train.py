"""How much of the bare update loop's rate the whole train command keeps.

    python benchmarks/train.py [--num-updates 20000] [--out benchmarks/results/train.json]

17 observations, 6 actions, 100,000 transitions of noise. `iql-ray train` as its users run it: Ray, checkpoints,
tracking in an SQLite file, evaluations in HalfCheetah-v5 beside the updates; before and after it the bare loop
(`learner.py`: sampling and updates, nothing else) on one thread, since a machine's speed drifts. Both are compiled; the
command's compiling counts.

The learner phase is what the run's own curve says, `time/updates_per_second` over all updates; the whole command
also starts and stops Python, Ray and MLflow and finishes the last evaluation. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks._result import write_result
from benchmarks.learner import random_rows, rate, updater
from benchmarks.prepare import write_source
from iql_ray.data.actions import resolve_actions
from iql_ray.data.sources import open_source
from iql_ray.data.writing import WritingPlan, write_dataset
from iql_ray.tracking.spool import read_records

ENVIRONMENT, NUM_ROWS = "HalfCheetah-v5", 100_000
ROOT = Path(__file__).resolve().parent.parent
RATE = "time/updates_per_second"
WARM_UP_UPDATES = 50
TARGET = 0.90


def bare_rate(num_updates: int) -> float:
    """Updates a second of the loop alone, in this process set up as a learner is."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    update = updater(random_rows(), is_compiled=True)
    update()  # compiles
    gc.collect()
    gc.freeze()
    rate(update, WARM_UP_UPDATES)
    return rate(update, num_updates)


def bare_rate_apart(num_updates: int) -> float:
    """The same in a process of its own, which has gone when the command is measured."""
    return float(run([sys.executable, __file__, "--bare", str(num_updates)]))


def run(command: list[str]) -> str:
    """The last line that a command prints; what it says on stderr is shown.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited with {finished.returncode}")
    return finished.stdout.splitlines()[-1]


def prepare_noise(folder: Path) -> Path:
    """A prepared dataset of noise in HalfCheetah's spaces."""
    (folder / "source").mkdir()
    write_source(folder / "source", NUM_ROWS)
    source = open_source(f"parquet:{folder / 'source'}")
    actions = resolve_actions(source.layout, source.recorded.spaces, None, (-1.0, 1.0))
    plan = WritingPlan(source=source, actions=actions, destination=folder / "prepared")
    write_dataset((table for fragment in source.fragments for table in source.read(fragment)), plan)
    return folder / "prepared"


def measure_command(dataset: Path, storage: Path, num_updates: int, eval_interval_updates: int) -> dict[str, float]:
    """Seconds of the whole command and of its learner phase."""
    settings = {
        "dataset": dataset,
        "env": ENVIRONMENT,
        "num-updates": num_updates,
        "eval-interval-updates": eval_interval_updates,
        "device": "cpu",
        "compile": "on",
        "storage": storage,
        "tracking-uri": f"sqlite:///{storage}/mlflow.db",
    }
    started_at, started = time.time(), time.perf_counter()
    last_line = run(
        [sys.executable, "-m", "pipelines.train", *(f"--{name}={value}" for name, value in settings.items())]
    )
    seconds = time.perf_counter() - started
    learner_seconds, ended_at = learner_phase(Path(json.loads(last_line)["run_folder"]), num_updates)
    start_seconds = ended_at - learner_seconds - started_at
    return {
        "seconds": seconds,
        "learner_seconds": learner_seconds,
        "start_seconds": start_seconds,
        "stop_seconds": seconds - learner_seconds - start_seconds,
    }


def learner_phase(folder: Path, num_updates: int) -> tuple[float, float]:
    """Seconds that all updates of a run took, and the time of day of the last one, from the run's spool."""
    records = [record.fields for record in read_records(folder) if record.kind == "metrics"]
    points = [record for record in records if RATE in record["values"]]
    steps = [0, *(point["step"] for point in points)]
    assert steps[-1] == num_updates, f"the curve of {folder} ends at update {steps[-1]} of {num_updates}"
    laps = zip(steps[:-1], points, strict=True)
    return sum((point["step"] - before) / point["values"][RATE] for before, point in laps), points[-1]["time"] / 1000


def measure(num_updates: int, eval_interval_updates: int) -> dict[str, Any]:
    """The bare loop, the command, the bare loop again; each loop a fifth as long as the command's."""
    num_bare_updates = max(200, num_updates // 5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = prepare_noise(folder)
        before = bare_rate_apart(num_bare_updates)
        command = measure_command(dataset, folder / "runs", num_updates, eval_interval_updates)
        after = bare_rate_apart(num_bare_updates)
    return {
        "num_updates": num_updates,
        "eval_interval_updates": eval_interval_updates,
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "bare_rates": [before, after],
        **command,
        **ratios(statistics.mean((before, after)), num_updates, command),
    }


def ratios(bare: float, num_updates: int, command: Mapping[str, float]) -> dict[str, float | bool]:
    """Updates a second of each, and as parts of the bare rate."""
    learner, whole = num_updates / command["learner_seconds"], num_updates / command["seconds"]
    return {
        "bare_rate": bare,
        "learner_rate": learner,
        "learner_ratio": learner / bare,
        "command_rate": whole,
        "command_ratio": whole / bare,
        "is_met": learner / bare >= TARGET,
    }


def show(result: Mapping[str, Any]) -> None:
    """A table for people."""
    before, after = result["bare_rates"]
    print(f"{result['num_updates']:,} updates, an evaluation every {result['eval_interval_updates']:,}")
    print(f"{'':24}{'updates/s':>10}{'of bare':>9}")
    print(f"{'bare loop':24}{result['bare_rate']:>10.1f}{1:>9.2f}   ({before:.1f} before, {after:.1f} after)")
    print(f"{'learner phase':24}{result['learner_rate']:>10.1f}{result['learner_ratio']:>9.2f}   (target {TARGET:.2f})")
    print(f"{'whole command':24}{result['command_rate']:>10.1f}{result['command_ratio']:>9.2f}")
    print(f"start {result['start_seconds']:.1f} s, stop {result['stop_seconds']:.1f} s of {result['seconds']:.1f} s")


def main() -> int:
    """Measure, print, and write only where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-updates", type=int, default=20_000)
    parser.add_argument("--eval-interval-updates", type=int, default=5000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bare", type=int, metavar="NUM_UPDATES", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        print(bare_rate(arguments.bare))
        return 0
    result = measure(arguments.num_updates, arguments.eval_interval_updates)
    show(result)
    write_result(result, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
