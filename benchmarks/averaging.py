"""What `--average-every K` does to the result, and what it saves where the network is slow.

    python benchmarks/averaging.py [--num-updates 10000] [--out benchmarks/results/averaging.json]

Pendulum's demo data, two learners in processes of their own over gloo: gradients averaged twice an update, against
networks and optimisers averaged every K updates; and one learner. Batch 256. Policies of two hidden layers of 64 are
scored by rollouts in new episodes; rates are of two layers of 256, without and with a delay in every all-reduce. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.distributed as process_group

from benchmarks._result import write_result
from benchmarks._returns import mean_return, packed_rows, prepare_demo
from iql_ray import checkpoint
from iql_ray import config as config_io
from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.data import demo
from iql_ray.data.prepared import read_manifest
from iql_ray.data.transforms import TransformConfig, Transforms
from iql_ray.distributed import collective
from iql_ray.distributed.learner import Learner, RunPlan, train
from iql_ray.distributed.train_config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
KINDS: dict[str, dict[str, Any]] = {
    "one learner": {},
    "gradients": {"num_learners": 2},
    "every 10": {"num_learners": 2, "average_every": 10},
    "every 100": {"num_learners": 2, "average_every": 100},
}
SCORED_HIDDEN_SIZES, TIMED_HIDDEN_SIZES = (64, 64), (256, 256)
LEARNING_RATE = 1e-3
"""At the paper's 3e-4, networks so small would need more updates."""
NUM_EPISODES, NUM_TIMED_UPDATES = 100, 300


class Nobody:
    """A recorder for learners that nobody watches."""

    def record(self, step: int, metrics: dict[str, float]) -> None: ...
    def checkpoint_saved(self, update_count: int, step: int) -> None: ...


def config_of(
    dataset: Path, num_updates: int, hidden_sizes: tuple[int, ...], seed: int, kind: dict[str, Any]
) -> TrainConfig:
    """A checkpoint at the end alone: averages before others would bring learners together more often."""
    return TrainConfig(
        dataset=str(dataset),
        transforms=TransformConfig(reward_scale="return-range"),
        agent=IQLConfig(hidden_sizes=hidden_sizes, learning_rate=LEARNING_RATE),
        seed=seed,
        num_updates=num_updates,
        checkpoint_interval_updates=num_updates,
        log_interval_updates=num_updates,
        eval_method="none",
        **kind,
    )


def learn(job: Path, rank: int, delay_seconds: float) -> float:
    """What each process does; updates per second of its loop."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    config = config_io.load(TrainConfig, job / "config.json")
    manifest = read_manifest(config.dataset)
    plan = RunPlan(
        config=config,
        run_folder=job,
        spaces=manifest.spaces,
        transforms=Transforms.fit(config.transforms, manifest),
        dataset_digest=manifest.digest,
        device="cpu",
    )
    rows = packed_rows(Path(config.dataset), plan.transforms)
    shard = torch.from_numpy(np.array_split(rows, config.num_learners)[rank])

    def average(values: torch.Tensor) -> None:
        time.sleep(delay_seconds)
        collective.average(values)

    if config.num_learners > 1:
        meeting = f"file://{job / 'meeting'}"
        process_group.init_process_group("gloo", init_method=meeting, rank=rank, world_size=config.num_learners)
    learner = Learner(plan, shard, rank, average if config.num_learners > 1 else None)
    started = time.perf_counter()
    train(learner, learner.sampler, Nobody())
    return config.num_updates / (time.perf_counter() - started)


def run(job: Path, config: TrainConfig, delay_seconds: float = 0.0) -> float:
    """All learners of a run to its end; updates per second of the first.

    Raises:
        RuntimeError: one failed.
    """
    job.mkdir(parents=True)
    config_io.save(config, job / "config.json")
    command = [sys.executable, __file__, "--job", str(job), "--delay", str(delay_seconds), "--rank"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    learners = [
        subprocess.Popen([*command, str(rank)], env=environment, stdout=subprocess.PIPE, text=True)
        for rank in range(config.num_learners)
    ]
    said = [learner.communicate()[0] for learner in learners]
    if any(learner.returncode for learner in learners):
        raise RuntimeError(f"learners of {job.name} exited with {[learner.returncode for learner in learners]}")
    return float(said[0].splitlines()[-1])


def score(job: Path) -> float:
    """Mean return of the last checkpoint's policy."""
    policy, _ = checkpoint.load_policy(job, "last")
    return mean_return(policy, demo.DEMO_ENVIRONMENT, NUM_EPISODES)


def measure_rates(dataset: Path, folder: Path, num_rounds: int, delay_seconds: float) -> dict[str, Any]:
    """By kind: updates per second without and with the delay, of every round; all kinds in turn."""
    rates: dict[str, Any] = {name: {"rates": [], "rates_with_delay": []} for name in KINDS}
    for index in range(num_rounds):
        for name, kind in KINDS.items():
            timed = config_of(dataset, NUM_TIMED_UPDATES, TIMED_HIDDEN_SIZES, 0, kind)
            rates[name]["rates"].append(run(folder / f"{name}-timed-{index}", timed))
            if timed.num_learners > 1:
                delayed = run(folder / f"{name}-delayed-{index}", timed, delay_seconds)
                rates[name]["rates_with_delay"].append(delayed)
    return rates


def measure_returns(dataset: Path, folder: Path, num_updates: int, seeds: Sequence[int]) -> dict[str, list[float]]:
    """By kind: the score of every seed."""
    returns: dict[str, list[float]] = {name: [] for name in KINDS}
    for seed in seeds:
        for name, kind in KINDS.items():
            job = folder / f"{name}-{seed}"
            run(job, config_of(dataset, num_updates, SCORED_HIDDEN_SIZES, seed, kind))
            returns[name].append(score(job))
            print(f"seed {seed}, {name}: {returns[name][-1]:.1f}", file=sys.stderr, flush=True)
    return returns


def show(results: dict[str, Any], delay_seconds: float) -> None:
    print(f"{'':14}{'return':>9}{'of each seed':>28}{'updates/s':>11}{f'with {1000 * delay_seconds:g} ms':>12}")
    for name, each in results.items():
        of_each = ", ".join(f"{value:.1f}" for value in each["returns"])
        measured = each["rates"], each["rates_with_delay"]
        rates = [f"{statistics.median(values):.1f}" if values else "-" for values in measured]
        print(f"{name:14}{statistics.mean(each['returns']):>9.1f}{of_each:>28}{rates[0]:>11}{rates[1]:>12}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-updates", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num-rounds", type=int, default=3, help="of rates")
    parser.add_argument("--delay", type=float, default=0.005, help="seconds, of every all-reduce")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(learn(arguments.job, arguments.rank, arguments.delay))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = prepare_demo(folder)
        results = measure_rates(dataset, folder, arguments.num_rounds, arguments.delay)
        for kind, returns in measure_returns(dataset, folder, arguments.num_updates, arguments.seeds).items():
            results[kind]["returns"] = returns
    show(results, arguments.delay)
    result = {
        "num_updates": arguments.num_updates,
        "seeds": arguments.seeds,
        "num_episodes": NUM_EPISODES,
        "delay_seconds": arguments.delay,
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "results": results,
    }
    write_result(result, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
