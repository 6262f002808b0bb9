"""python benchmarks/prepare.py [--rows 1000000] [--out benchmarks/results/prepare.json]

How long `iql-ray prepare` takes for a folder of Parquet files, and the most memory its process tree holds, beside the
limit: plain pyarrow that reads the same files, shuffles and writes them without a check, in one process.

Memory is the sum of the tree's resident sets, Ray's own processes included; pages that processes share count twice.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

OBSERVATION_DIM, ACTION_DIM = 17, 6
ROWS_PER_FILE, ROWS_PER_EPISODE = 50_000, 1_000
ROOT = Path(__file__).resolve().parent.parent
TARGET_SECONDS, TARGET_GIGABYTES = 60.0, 3.0


def write_source(folder: Path, num_rows: int) -> None:
    """Random transitions in episodes of `ROWS_PER_EPISODE`, a file at a time."""
    generator = np.random.default_rng(0)
    for index, first in enumerate(range(0, num_rows, ROWS_PER_FILE)):
        count = min(ROWS_PER_FILE, num_rows - first)
        rows = np.arange(first, first + count)
        columns = {
            "observations": lists(generator.standard_normal((count, OBSERVATION_DIM))),
            "actions": lists(generator.uniform(-1, 1, (count, ACTION_DIM))),
            "rewards": generator.standard_normal(count).astype(np.float32),
            "next_observations": lists(generator.standard_normal((count, OBSERVATION_DIM))),
            "terminations": np.zeros(count, bool),
            "truncations": rows % ROWS_PER_EPISODE == ROWS_PER_EPISODE - 1,
        }
        columns["truncations"][-1] |= first + count == num_rows
        pq.write_table(pa.table(columns), folder / f"part-{index:05d}.parquet")


def lists(matrix: np.ndarray) -> pa.Array:
    """A float32 matrix as the plain list column that most logs have."""
    offsets = np.arange(0, matrix.size + 1, matrix.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, matrix.astype(np.float32).reshape(-1))


def copy_plainly(source: Path, out: Path) -> None:
    """The limit: read everything, take a random permutation, write."""
    table = pq.read_table(source)
    order = np.random.default_rng(0).permutation(table.num_rows)
    pq.write_table(table.take(order), out, compression="zstd", use_dictionary=False)


def measure(command: list[str]) -> dict[str, float]:
    """Seconds and peak memory in GB of a command and all its children."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = [0]
    sampler = threading.Thread(target=_sample, args=(psutil.Process(process.pid), peak), daemon=True)
    sampler.start()
    if process.wait() != 0:
        raise RuntimeError(f"{command} exited with {process.returncode}")
    return {"seconds": time.perf_counter() - started, "peak_gigabytes": peak[0] / 1e9}


def _sample(process: psutil.Process, peak: list[int]) -> None:
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        peak[0] = max(peak[0], sum(map(_resident, [process, *_children(process)])))
        time.sleep(0.1)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def run(num_rows: int) -> dict[str, Any]:
    """Both ways over the same files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source").mkdir()
        write_source(folder / "source", num_rows)
        plain = [sys.executable, __file__, "--plain", str(folder / "source"), str(folder / "plain.parquet")]
        command = ["--source", f"parquet:{folder / 'source'}", "--out", str(folder / "prepared")]
        return {
            "rows": num_rows,
            "cpus": os.cpu_count(),
            "source_bytes": sum(path.stat().st_size for path in (folder / "source").iterdir()),
            "prepare": measure([sys.executable, "-m", "pipelines.prepare", *command]),
            "plain": measure(plain),
        }


def show(result: dict[str, Any]) -> None:
    """A table for people, then JSON for scripts."""
    size = result["source_bytes"] / 1e6
    print(f"{result['rows']:,} rows, {size:.0f} MB of Parquet, {result['cpus']} CPUs; start of Python and Ray included")
    print(f"{'':22}{'seconds':>10}{'peak GB':>10}")
    for name, label in (("prepare", "iql-ray prepare"), ("plain", "plain pyarrow (limit)")):
        print(f"{label:22}{result[name]['seconds']:>10.1f}{result[name]['peak_gigabytes']:>10.2f}")
    print(f"{'target at 1M rows':22}{TARGET_SECONDS:>10.1f}{TARGET_GIGABYTES:>10.2f}")
    print(json.dumps(result))


def main() -> None:
    """Measure, print, and write only where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plain", nargs=2, type=Path, metavar=("SOURCE", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        copy_plainly(*arguments.plain)
        return
    result = run(arguments.rows)
    show(result)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
