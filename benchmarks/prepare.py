"""python benchmarks/prepare.py [--rows 1000000 4000000] [--repeats 3] [--out benchmarks/results/prepare.json]

How long `iql-ray prepare` takes for a folder of Parquet files of two sizes, and the most memory its process tree holds,
beside the limit: pyarrow alone that reads the same files and writes them again, without a shuffle, a hash, a check or a
bound on memory. Beside that, pyarrow that shuffles too, and preparing through a local Ray, whose start is in its total.

Memory is the sum of the tree's resident sets, Ray's own processes included; pages that processes share count twice.
"""

from __future__ import annotations

import argparse
import os
import shutil
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

from benchmarks._result import write_result

OBSERVATION_DIM, ACTION_DIM = 17, 6
ROWS_PER_FILE, ROWS_PER_EPISODE = 50_000, 1_000
ROOT = Path(__file__).resolve().parent.parent
TARGET_RATIO = 2.0
CASES = {
    "copy": "pyarrow: read and write",
    "shuffled": "pyarrow: and shuffle",
    "prepare": "iql-ray prepare",
    "prepare_ray": "iql-ray prepare on Ray",
}


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


def copy_plainly(source: Path, out: Path, shuffled: bool) -> None:
    """What pyarrow alone takes: read everything with all its threads, write it with the compression of a shard."""
    table = pq.read_table(source)
    if shuffled:
        table = table.take(np.random.default_rng(0).permutation(table.num_rows))
    pq.write_table(table, out, compression="zstd", use_dictionary=False)


def command(case: str, folder: Path) -> list[str]:
    """What is measured."""
    source, out = folder / "source", folder / "out"
    if case in ("copy", "shuffled"):
        return [sys.executable, __file__, "--copy", str(source), str(out), *(["--shuffled"] if case != "copy" else [])]
    reader = ["--reader", "ray"] if case == "prepare_ray" else []
    return [sys.executable, "-m", "pipelines.prepare", "--source", f"parquet:{source}", "--out", str(out), *reader]


def measure(case: str, folder: Path) -> dict[str, float]:
    """Seconds and peak memory in GB of a command and all its children; CPU seconds but for Ray's own processes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    process = subprocess.Popen(command(case, folder), env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = [0]
    threading.Thread(target=_sample, args=(psutil.Process(process.pid), peak), daemon=True).start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{process.args} exited with {process.returncode}")
    seconds = time.perf_counter() - started
    _remove(folder / "out")
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_gigabytes": peak[0] / 1e9,
    }


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _sample(process: psutil.Process, peak: list[int]) -> None:
    while (resident := sum(map(_resident, [process, *_children(process)]))) > 0:
        peak[0] = max(peak[0], resident)
        time.sleep(0.05)


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


def run(num_rows: int, repeats: int) -> dict[str, Any]:
    """All ways over the same files, in turns; of each the fastest turn, but the highest peak."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source").mkdir()
        write_source(folder / "source", num_rows)
        turns = [{case: measure(case, folder) for case in CASES} for _ in range(repeats)]
        size = sum(path.stat().st_size for path in (folder / "source").iterdir())
    best = {case: min((turn[case] for turn in turns), key=lambda turn: turn["seconds"]) for case in CASES}
    for case, result in best.items():
        result["peak_gigabytes"] = max(turn[case]["peak_gigabytes"] for turn in turns)
    return {"rows": num_rows, "source_bytes": size, **best}


def compare(small: dict[str, Any], large: dict[str, Any]) -> dict[str, float]:
    """Against pyarrow that reads and writes: in total, and per further row, where starting is paid already."""

    def ratio(case: str, of: str, quantity: str = "seconds") -> float:
        return large[case][quantity] / large[of][quantity]

    def steady(case: str) -> float:
        return (large[case]["seconds"] - small[case]["seconds"]) / (large["rows"] - small["rows"])

    return {
        "total": ratio("prepare", "copy"),
        "steady": steady("prepare") / steady("copy"),
        "cpu": ratio("prepare", "copy", "cpu_seconds"),
        "total_shuffled": ratio("prepare", "shuffled"),
        "total_ray": ratio("prepare_ray", "copy"),
        "steady_ray": steady("prepare_ray") / steady("copy"),
        "peak_memory_growth": large["prepare"]["peak_gigabytes"] / small["prepare"]["peak_gigabytes"],
    }


def show(result: dict[str, Any]) -> None:
    """A table for people."""
    for size in result["sizes"]:
        print(f"{size['rows']:,} rows, {size['source_bytes'] / 1e6:.0f} MB of Parquet, {result['cpus']} CPUs")
        print(f"{'':26}{'seconds':>10}{'CPU seconds':>14}{'peak GB':>10}")
        for case, label in CASES.items():
            seconds, cpu_seconds, peak = size[case].values()
            print(f"{label:26}{seconds:>10.1f}{cpu_seconds:>14.1f}{peak:>10.2f}")
    ratios = result["ratios"]
    print(f"prepare against read and write: {ratios['total']:.2f} in total, {ratios['steady']:.2f} per further row")
    print(f"    (target {TARGET_RATIO}); peak memory grows by a factor {ratios['peak_memory_growth']:.2f}")


def main() -> None:
    """Measure, print, and write only where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=(1_000_000, 4_000_000), metavar=("SMALL", "LARGE"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--copy", nargs=2, type=Path, metavar=("SOURCE", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--shuffled", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.copy:
        source, out = arguments.copy
        copy_plainly(source, out, arguments.shuffled)
        return
    load = os.getloadavg()[0]
    sizes = [run(num_rows, arguments.repeats) for num_rows in arguments.rows]
    machine = {"cpus": os.cpu_count(), "load_average": load, "repeats": arguments.repeats}
    result = {**machine, "target_ratio": TARGET_RATIO, "ratios": compare(*sizes), "sizes": sizes}
    show(result)
    write_result(result, arguments.out)


if __name__ == "__main__":
    main()
