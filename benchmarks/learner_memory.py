"""Memory of one learner's process above its data, plain and compiled.

    python benchmarks/learner_memory.py [--out benchmarks/results/learner_memory.json]

What a learner imports, an agent of the paper's networks, 300 updates; in a Ray worker of its own each, the compiled one
with an empty cache, since compiling itself takes memory. Pages that other processes share (libraries) are counted in
`resident`, not in `private`. The last line is JSON.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import ray

from benchmarks._result import write_result
from pipelines.ray_session import ray_session

NUM_UPDATES = 300


def memory() -> dict[str, float]:
    """Of this process now, in MB."""
    lines = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if line.endswith("kB")]
    sizes = {name.rstrip(":"): int(kilobytes) / 1024 for name, kilobytes, _ in lines}
    return {"resident": sizes["Rss"], "private": sizes["Private_Clean"] + sizes["Private_Dirty"]}


def learner_memory(is_compiled: bool, cache: str) -> dict[str, dict[str, float]]:
    """After each step of a learner's life; its data is made of noise and comes off."""
    import os

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    steps = {"Ray's worker": memory()}
    import torch

    steps["torch"] = memory()
    import iql_ray.distributed.learner  # noqa: F401

    steps["what a learner imports"] = memory()
    from benchmarks.learner import random_rows, updater

    torch.set_num_threads(1)
    rows = random_rows()
    data = rows.numel() * rows.element_size() / 2**20
    update: Callable[[], object] = updater(rows, is_compiled=is_compiled)
    steps["an agent"] = above(memory(), data)
    for _ in range(NUM_UPDATES):
        update()
    steps["updates"] = above(memory(), data)
    return steps


def above(measured: dict[str, float], data: float) -> dict[str, float]:
    return {name: value - data for name, value in measured.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    measure = ray.remote(max_calls=1)(learner_memory)
    with tempfile.TemporaryDirectory() as cache, ray_session(num_cpus=1):
        found = {
            name: ray.get(measure.remote(is_compiled, cache))
            for name, is_compiled in (("plain", False), ("compiled", True))
        }
    print(f"{'MB above the data, after':28}{'plain':>10}{'private':>10}{'compiled':>10}{'private':>10}")
    for step in found["plain"]:
        numbers = [found[name][step][kind] for name in found for kind in ("resident", "private")]
        print(f"{step:28}" + "".join(f"{number:>10.0f}" for number in numbers))
    result = {"megabytes": found, "num_updates": NUM_UPDATES, "torch": version("torch")}
    write_result(result, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
