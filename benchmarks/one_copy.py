"""python benchmarks/one_copy.py [--rows 1000000] [--trials 8] [--out benchmarks/results/one_copy.json]

What eight trials on one node take of memory for the same million rows, beside one trial. Each is a Ray actor that
takes the rows as a learner does, reads all of them and draws minibatches.

Measured page by page, as the kernel keeps account (`smaps`): the object store's memory by proportional shares, which
over all processes counts a page once however many map it; and what the trials' processes take for themselves alone
beyond what they took when they had but a few rows. The object store holds the rows once, and besides pages that
packing has left for the next object. What seven more trials add is compared with the rows alone. To check the measure
itself, trials that copy the rows are measured too, and have to show it.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch

from benchmarks._result import write_result
from benchmarks.prepare import ACTION_DIM, OBSERVATION_DIM, ROOT, write_source
from iql_ray.data.packed import RowLayout, UniformSampler
from iql_ray.data.prepared import read_manifest
from iql_ray.data.transforms import Transforms
from iql_ray.distributed.shards import packed_shards, resident_rows
from pipelines.ray_session import ray_session

LAYOUT = RowLayout(observation_dim=OBSERVATION_DIM, action_dim=ACTION_DIM)
BATCH_SIZE, NUM_BATCHES = 256, 500
NUM_ROWS_BEFORE, NUM_TIMES_BEFORE = 4096, 4
"""Taking so few rows so often, a process loads everything that it needs for many."""
TARGET_ADDED = 0.10


class Trial:
    """A process that has rows, and knows what it takes for itself alone."""

    def take(self, shards: list[ray.ObjectRef], is_copied: bool = False) -> int:
        """Hold these rows and use them; what this process has in memory for itself alone, in bytes."""
        rows = resident_rows(shards[0], torch.device("cpu"))
        self._rows = rows.clone() if is_copied else rows
        self._rows.sum()  # touches every page
        sampler = UniformSampler(self._rows, LAYOUT, BATCH_SIZE, (0,), 0)
        for _ in range(NUM_BATCHES):
            next(sampler)
        gc.collect()
        return own_bytes(psutil.Process())


def own_bytes(process: psutil.Process) -> int:
    """Pages that no other process has, less the object store's, which are one's own while nobody else looks."""
    maps = [each for each in process.memory_maps(grouped=False) if not is_object_store(each.path)]
    return sum(each.private_dirty + each.private_clean for each in maps)


def object_store_bytes() -> int:
    """Of this session's object store, every page that some process has in use, once."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(each.pss for process in family for each in _maps(process) if is_object_store(each.path))


def is_object_store(path: str) -> bool:
    return path.startswith("/dev/shm/plasma")


def _maps(process: psutil.Process) -> list[Any]:
    try:
        return process.memory_maps(grouped=False)
    except psutil.Error:  # an idle worker that has just gone
        return []


def measure(shards: list[ray.ObjectRef], num_trials: int, *, is_copied: bool) -> dict[str, int]:
    """Bytes of the rows in the object store and in the trials' own memory, while all trials hold them."""
    actor: Any = ray.remote(num_cpus=0)(Trial)
    trials = [actor.remote() for _ in range(num_trials)]
    few = ray.put(np.zeros((NUM_ROWS_BEFORE, LAYOUT.width), np.float32))
    for _ in range(NUM_TIMES_BEFORE):
        before = ray.get([trial.take.remote([few]) for trial in trials])
    own = sum(ray.get([trial.take.remote(shards, is_copied) for trial in trials])) - sum(before)
    shared = object_store_bytes()
    for trial in trials:
        ray.kill(trial)
    return {"shared_bytes": shared, "own_bytes": own, "bytes": shared + own}


def prepared(folder: Path, num_rows: int) -> Path:
    """Rows of noise, prepared as users do it."""
    (folder / "source").mkdir()
    write_source(folder / "source", num_rows)
    command = ["--source", f"parquet:{folder / 'source'}", "--out", str(folder / "prepared")]
    subprocess.run([sys.executable, "-m", "pipelines.prepare", *command], cwd=ROOT, check=True, capture_output=True)
    return folder / "prepared"


def run(num_rows: int, num_trials: int) -> dict[str, Any]:
    """One trial, several, and several with copies."""
    with tempfile.TemporaryDirectory() as name:
        dataset = prepared(Path(name), num_rows)
        with ray_session(num_cpus=4):
            manifest = read_manifest(dataset)
            transforms = Transforms(action_low=manifest.spaces.action_low, action_high=manifest.spaces.action_high)
            shards = packed_shards(dataset, manifest, transforms, 1)
            one = measure(shards, 1, is_copied=False)
            several = measure(shards, num_trials, is_copied=False)
            copies = measure(shards, num_trials, is_copied=True)
            packed_bytes = ray.get(shards[0]).nbytes
    added = (several["bytes"] - one["bytes"]) / packed_bytes
    return {
        "rows": num_rows,
        "packed_bytes": packed_bytes,
        "trials": num_trials,
        "one_trial": one,
        "all_trials": several,
        "all_trials_with_copies": copies,
        "added": added,
        "is_met": added < TARGET_ADDED,
    }


def show(result: dict[str, Any]) -> None:
    """A table for people."""
    print(f"{result['rows']:,} rows, {result['packed_bytes'] / 1e6:.0f} MB packed; megabytes of memory")
    print(f"{'':24}{'object store':>14}{'own':>10}{'together':>10}")
    names = {
        "one_trial": "one trial",
        "all_trials": f"{result['trials']} trials",
        "all_trials_with_copies": f"{result['trials']} trials that copy",
    }
    for key, label in names.items():
        shared, own, together = (result[key][name] / 1e6 for name in ("shared_bytes", "own_bytes", "bytes"))
        print(f"{label:24}{shared:>14.1f}{own:>10.1f}{together:>10.1f}")
    print(f"added by the others, of the rows: {result['added']:.1%} (below {TARGET_ADDED:.0%})")


def main() -> None:
    """Measure, print, and write only where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = run(arguments.rows, arguments.trials)
    show(result)
    write_result(result, arguments.out)


if __name__ == "__main__":
    main()
