"""What fine-tuning costs beside the updates and the steps that it is made of.

    python benchmarks/finetune.py [--num-updates 400] [--repetitions 3] [--d3rlpy PYTHON] [--out FILE.json]

The paper's networks, batch 256, one thread a process, HalfCheetah-v5, eight environments. Each loop is what a learner
executes (`finetune`), checkpoints at its ends and all; it has been going when its clock starts.

    update, step            alone, and the seconds that both would take one after the other: the limit of a loop in step
    local                   synchronous, environments in the learner's process: no Ray
    synchronous             with one rollout worker
    asynchronous            the same, neither waiting for the other

At one update a step the updates are nearly all of it, and nothing can be gained by overlap. So the modes are compared
at the ratio where updates and steps take equally long (`balanced`), where two processes on two cores could be twice as
fast. `--d3rlpy` names an interpreter that has d3rlpy, whose `fit_online` does one update a step, too. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks._result import write_result
from benchmarks.learner import random_rows
from iql_ray.data.experience_log import ExperienceLog
from iql_ray.data.packed import RowLayout
from iql_ray.data.replay import ReplayRing
from iql_ray.data.transforms import Transforms
from iql_ray.distributed.collecting import CollectingWorkers
from iql_ray.distributed.director import Director
from iql_ray.distributed.finetune import Share, finetune
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.finetuning import online_sampler, ring_capacity
from iql_ray.distributed.learner import Learner, RunPlan
from iql_ray.distributed.local_collector import LocalCollector
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.envs.catalog import environment_spaces, make_env
from iql_ray.envs.collecting import EnvironmentSet
from pipelines.ray_session import ray_session

ENVIRONMENT, NUM_ENVIRONMENTS = "HalfCheetah-v5", 8
MAKE = partial(make_env, ENVIRONMENT, is_checked=False)
D3RLPY_PEER = Path(__file__).with_name("_d3rlpy_online_peer.py")
NUM_STEPS_ALONE = 200
RATE = "time/env_steps_per_second"
NUM_POINTS = 5
"""Of each loop's curve; the first is its warming up."""


class Points:
    """A recorder that keeps the curves, and evaluates nothing."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def record(self, step: int, metrics: dict[str, float]) -> None:
        self.rates.append(metrics[RATE])

    def checkpoint_saved(self, update_count: int, step: int) -> None: ...

    def evaluation(self, update_count: int) -> dict[str, Any]:
        raise AssertionError("there is no floor")

    def warn(self, message: str) -> None:
        raise RuntimeError(message)


def plan_of(config: FinetuneConfig, folder: Path) -> RunPlan:
    """Of a learner with the paper's agent; the dataset is noise, held by whoever calls."""
    spaces = environment_spaces(ENVIRONMENT)
    return RunPlan(
        config=TrainConfig(dataset="noise", num_updates=config.num_updates, compile="off", device="cpu"),
        run_folder=folder,
        spaces=spaces,
        transforms=Transforms(action_low=spaces.action_low, action_high=spaces.action_high),
        dataset_digest="",
        device="cpu",
    )


def learner_of(config: FinetuneConfig, folder: Path) -> tuple[Learner, Share]:
    plan = plan_of(config, folder)
    ring = ReplayRing(ring_capacity(config), RowLayout.of(plan.spaces).width)
    learner = Learner(plan, random_rows(), 0, None, make_sampler=partial(online_sampler, config, ring))
    return learner, Share(0, 1, ring)


def loop_rate(config: FinetuneConfig, stack: ExitStack) -> float:
    """Environment steps a second of a loop, without its first fifth."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    learner, share = learner_of(config, folder)
    collector = stack.enter_context(collector_of(config))
    points = Points()
    plan = learner.plan
    log = ExperienceLog(folder)
    layout = RowLayout.of(plan.spaces)
    director = Director(config, layout, plan.transforms, collector, log, learner.policy, points, 0, None, {})
    finetune(learner, share, director, points)
    return statistics.harmonic_mean(points.rates[1:NUM_POINTS])


def collector_of(config: FinetuneConfig) -> LocalCollector | CollectingWorkers:
    if config.num_rollout_workers == 0:
        return LocalCollector(config, MAKE)
    return CollectingWorkers(MAKE, config.num_rollout_workers, config.envs_per_worker, seed=0, name=ENVIRONMENT)


def config_of(num_env_steps: int, **changes: Any) -> FinetuneConfig:
    interval = max(NUM_ENVIRONMENTS, num_env_steps // NUM_POINTS)
    return FinetuneConfig(
        run="noise",
        env=ENVIRONMENT,
        num_env_steps=NUM_POINTS * interval,
        envs_per_worker=NUM_ENVIRONMENTS,
        log_interval_env_steps=interval,
        eval_interval_env_steps=10**9,
        checkpoint_interval_env_steps=10**9,
        **changes,
    )


def update_seconds(num_updates: int) -> float:
    """Of an update alone, sampling included."""
    with tempfile.TemporaryDirectory() as folder:
        learner, _ = learner_of(config_of(1000), Path(folder))
        return seconds_each(lambda: learner.agent.update(next(learner.sampler)), num_updates)


def step_seconds() -> float:
    """Of an environment's step alone, acting included, eight side by side."""
    with tempfile.TemporaryDirectory() as folder:
        learner, _ = learner_of(config_of(1000), Path(folder))
        environments = EnvironmentSet(MAKE, range(NUM_ENVIRONMENTS), seed=0)
        policy = learner.policy()
        per_block = seconds_each(lambda: environments.collect(policy, 0, 1), NUM_STEPS_ALONE)
    return per_block / NUM_ENVIRONMENTS


def seconds_each(call: Callable[[], object], num_calls: int) -> float:
    for _ in range(max(1, num_calls // 10)):
        call()
    started = time.perf_counter()
    for _ in range(num_calls):
        call()
    return (time.perf_counter() - started) / num_calls


def round_of(num_updates: int, d3rlpy: str | None) -> dict[str, float]:
    """One repetition: the parts, every loop at one update a step, and both modes at the balanced ratio."""
    update, step = update_seconds(num_updates // 4), step_seconds()
    found = {"update": 1 / update, "step": 1 / step, "limit": 1 / (update + step)}
    balanced = step / update
    num_balanced_steps = int(num_updates / balanced)
    modes: dict[str, dict[str, Any]] = {
        "local": {"num_rollout_workers": 0},
        "synchronous": {},
        "asynchronous": {"mode": "asynchronous"},
    }
    for name, changes in modes.items():
        with ExitStack() as stack:
            found[name] = loop_rate(config_of(num_updates, **changes), stack)
    for name in ("synchronous", "asynchronous"):
        with ExitStack() as stack:
            blocks = {**modes[name], "updates_per_env_step": balanced, "steps_per_block": 16}
            found[f"balanced {name}"] = loop_rate(config_of(num_balanced_steps, **blocks), stack)
    if d3rlpy is not None:
        found["d3rlpy"] = d3rlpy_rate(d3rlpy, num_updates)
    return found


def d3rlpy_rate(python: str, num_updates: int) -> float:
    """Environment steps a second of d3rlpy's `fit_online`, one update a step, in its own interpreter."""
    command = [python, str(D3RLPY_PEER), ENVIRONMENT, str(num_updates)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(finished.stdout.splitlines()[-1])


def compared(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians over repetitions of ratios within each."""
    pairs = {
        "local of limit": ("local", "limit"),
        "synchronous of limit": ("synchronous", "limit"),
        "synchronous of local": ("synchronous", "local"),
        "asynchronous of synchronous": ("asynchronous", "synchronous"),
        "balanced: asynchronous of synchronous": ("balanced asynchronous", "balanced synchronous"),
        "synchronous of d3rlpy": ("synchronous", "d3rlpy"),
    }
    return {
        name: statistics.median(each[first] / each[second] for each in rounds)
        for name, (first, second) in pairs.items()
        if first in rounds[0] and second in rounds[0]
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-updates", type=int, default=400, help="of each loop")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--d3rlpy", metavar="PYTHON")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with ray_session():
        rounds = [round_of(arguments.num_updates, arguments.d3rlpy) for _ in range(arguments.repetitions)]
    print(f"{ENVIRONMENT}, {NUM_ENVIRONMENTS} environments, {arguments.repetitions} repetitions; per second")
    for name in rounds[0]:
        values = sorted(each[name] for each in rounds)
        print(f"{name:24}{statistics.median(values):>10.1f}   ({values[0]:.1f} to {values[-1]:.1f})")
    ratios = compared(rounds)
    for name, value in ratios.items():
        print(f"{name:40}{value:>6.2f}")
    result = {"environment_id": ENVIRONMENT, "rounds": rounds, "ratios": ratios, "cpus": os.cpu_count()}
    write_result(result, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
