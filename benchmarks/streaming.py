"""python benchmarks/streaming.py [--rows 20000000] [--out benchmarks/results/streaming.json]

What it costs to stream: updates a second of a learner whose rows are streamed beside one that holds them, and the
memory that a stream takes of a dataset five times larger than its limit.

Rates: 4M rows that fit, two hidden layers of 256, batch 256; the stream's limit is a fifth of them. Each learner is a
process of its own that is stopped while the other one is timed, so that no reading ahead is paid for by the wrong
one; a round is a window of the stream, and the ratio is the median over rounds. On one core the thread that reads has
to share it with the updates, the worst case: `taskset -c 0 python benchmarks/streaming.py`.

Memory: one whole pass over all rows without updates, as fast as batches come; growth of the resident set beyond what
the process takes before it has data, at its highest as the kernel records it.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks._result import write_result
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.data.memory import LearnerData, groups_per_window
from iql_ray.data.packed import RowLayout
from iql_ray.data.row_groups import packed_blocks, stored_groups
from iql_ray.data.schema import record_dtype, table_from_records
from iql_ray.data.streaming import StreamedRows, sampler_of
from iql_ray.data.transforms import Transforms
from iql_ray.experience import Spaces

OBSERVATION_DIM, ACTION_DIM, BATCH_SIZE = 4, 2, 256
SPACES = Spaces(
    observation_dim=OBSERVATION_DIM,
    action_dim=ACTION_DIM,
    action_low=(-1.0,) * ACTION_DIM,
    action_high=(1.0,) * ACTION_DIM,
)
LAYOUT = RowLayout.of(SPACES)
TRANSFORMS = Transforms(action_low=SPACES.action_low, action_high=SPACES.action_high)
ROWS_PER_SHARD, ROWS_PER_GROUP = 131_072, 65_536
"""As `iql-ray prepare` writes them."""
NUM_ROWS_THAT_FIT = 4_000_000
LIMIT_SHARE = 5
TARGET_RATIO = 0.9


def write_shards(folder: Path, num_rows: int) -> list[Path]:
    """Rows of noise, which are shuffled as they are."""
    generator = np.random.default_rng(0)
    paths = []
    for index, first in enumerate(range(0, num_rows, ROWS_PER_SHARD)):
        records = np.zeros(min(ROWS_PER_SHARD, num_rows - first), record_dtype(OBSERVATION_DIM, ACTION_DIM))
        for name in ("observations", "rewards", "next_observations"):
            records[name] = generator.standard_normal(records[name].shape, np.float32)
        records["actions"] = 2 * generator.random(records["actions"].shape, np.float32) - 1
        paths.append(folder / f"shard-{index:05d}.parquet")
        table = table_from_records(records)
        pq.write_table(table, paths[-1], row_group_size=ROWS_PER_GROUP, compression="zstd", use_dictionary=False)
    return paths


def packed_bytes(num_rows: int) -> int:
    return num_rows * LAYOUT.width * 4


def streamed(paths: list[Path], limit_bytes: int) -> StreamedRows:
    """These shards as a learner streams them within the limit."""
    groups = stored_groups(paths)
    data = LearnerData(num_rows=sum(group.num_rows for group in groups), row_width=LAYOUT.width, batch_size=BATCH_SIZE)
    in_window = groups_per_window(data, limit_bytes, lambda: groups, "the benchmark's dataset")
    assert in_window is not None
    return StreamedRows(groups=groups, groups_per_window=in_window, num_learners=1, transforms=TRANSFORMS)


def held(paths: list[Path]) -> torch.Tensor:
    """These shards as a learner holds them."""
    blocks = [block for group in stored_groups(paths) for block in packed_blocks(group, TRANSFORMS, None)]
    return torch.from_numpy(np.concatenate(blocks))


def quieten() -> None:
    """One thread for the arithmetic, and no collector that walks all of torch: as a learner does."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    gc.collect()
    gc.freeze()


def serve_updates(pipe: Connection, rows_of: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """A learner in a process of its own: does as many updates as it is sent, and answers with the seconds."""
    sampler = sampler_of(rows_of(*arguments), LAYOUT, BATCH_SIZE, (0,), 0)
    agent = IQLAgent(IQLConfig(), SPACES)
    quieten()
    for num_updates in iter(pipe.recv, None):
        started = time.perf_counter()
        for _ in range(num_updates):
            agent.update(next(sampler))
        pipe.send(time.perf_counter() - started)


class Contestant:
    """A process that stands still unless it is being timed."""

    def __init__(self, rows_of: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve_updates, args=(theirs, rows_of, arguments), daemon=True)
        self._process.start()

    def rate(self, num_updates: int) -> float:
        """Updates a second."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGCONT)
        self._pipe.send(num_updates)
        seconds = self._pipe.recv()
        os.kill(self._process.pid, signal.SIGSTOP)
        return num_updates / seconds

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def compare_rates(paths: list[Path], limit_bytes: int, num_rounds: int) -> dict[str, Any]:
    """Held and streamed in turn."""
    rows = streamed(paths, limit_bytes)
    num_updates = rows.groups_per_window * ROWS_PER_GROUP // BATCH_SIZE
    contestants = {"held": Contestant(held, paths), "streamed": Contestant(streamed, paths, limit_bytes)}
    for each in contestants.values():
        each.rate(num_updates // 4)  # waits for the first window, too
    rounds = [{name: each.rate(num_updates) for name, each in contestants.items()} for _ in range(num_rounds)]
    for each in contestants.values():
        each.close()
    return {
        "num_rows": sum(group.num_rows for group in rows.groups),
        "limit_bytes": limit_bytes,
        "updates_per_round": num_updates,
        "rates": {name: [each[name] for each in rounds] for name in contestants},
        "ratio": statistics.median(each["streamed"] / each["held"] for each in rounds),
    }


def highest_resident_bytes() -> int:
    """Of this process since `forget_highest`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def forget_highest() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def draw_a_pass(pipe: Connection, paths: list[Path], limit_bytes: int) -> None:
    """Every row once, and the memory and time that it took; a file of one batch first loads the libraries it uses."""
    quieten()
    with tempfile.TemporaryDirectory() as name:
        small = StreamedRows(
            groups=stored_groups(write_shards(Path(name), BATCH_SIZE)),
            groups_per_window=1,
            num_learners=1,
            transforms=TRANSFORMS,
        )
        next(sampler_of(small, LAYOUT, BATCH_SIZE, (0,), 0))
        time.sleep(0.5)  # its thread reads ahead
    gc.collect()
    rows = streamed(paths, limit_bytes)
    num_rows = sum(group.num_rows for group in rows.groups)
    forget_highest()
    before, started = highest_resident_bytes(), time.perf_counter()
    sampler = sampler_of(rows, LAYOUT, BATCH_SIZE, (0,), 0)
    for _ in range(num_rows // BATCH_SIZE):
        next(sampler)
    seconds = time.perf_counter() - started
    pipe.send(
        {
            "num_rows": num_rows,
            "packed_bytes": packed_bytes(num_rows),
            "limit_bytes": limit_bytes,
            "rows_per_window": rows.groups_per_window * ROWS_PER_GROUP,
            "peak_bytes": highest_resident_bytes() - before,
            "process_bytes_before": before,
            "seconds": seconds,
            "batches_per_second": num_rows // BATCH_SIZE / seconds,
        }
    )


def measure_memory(paths: list[Path], limit_bytes: int) -> dict[str, Any]:
    """One pass in a process of its own."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=draw_a_pass, args=(theirs, paths, limit_bytes))
    process.start()
    theirs.close()
    result = pipe.recv()
    process.join()
    return result


def show(result: dict[str, Any]) -> None:
    """A table for people."""
    rates, memory = result["updates"], result["memory"]
    print(f"{rates['num_rows']:,} rows, batch {BATCH_SIZE}, {len(rates['rates']['held'])} rounds")
    for name, values in rates["rates"].items():
        print(f"{name:12}{statistics.median(values):8.1f} updates/s  ({min(values):.1f} to {max(values):.1f})")
    print(f"{'ratio':12}{rates['ratio']:8.3f} (at least {TARGET_RATIO})")
    print(f"{memory['num_rows']:,} rows, {memory['packed_bytes'] / 1e6:.0f} MB packed")
    print(f"{'limit':12}{memory['limit_bytes'] / 1e6:8.1f} MB, windows of {memory['rows_per_window']:,} rows")
    print(f"{'highest':12}{memory['peak_bytes'] / 1e6:8.1f} MB over a whole pass")
    print(f"{'alone':12}{memory['batches_per_second']:8.0f} batches/s without updates")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--num-rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        paths = write_shards(Path(name), arguments.rows)
        num_bytes = sum(path.stat().st_size for path in paths)
        memory = measure_memory(paths, packed_bytes(arguments.rows) // LIMIT_SHARE)
        some = paths[: min(arguments.rows, NUM_ROWS_THAT_FIT) // ROWS_PER_SHARD]
        limit_bytes = packed_bytes(len(some) * ROWS_PER_SHARD) // LIMIT_SHARE
        updates = compare_rates(some, limit_bytes, arguments.num_rounds)
    result = {
        "updates": updates,
        "memory": memory,
        "parquet_bytes": num_bytes,
        "cpus": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "is_met": updates["ratio"] >= TARGET_RATIO and memory["peak_bytes"] <= memory["limit_bytes"],
    }
    show(result)
    write_result(result, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
