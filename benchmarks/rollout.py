"""What acting costs beside raw stepping: collecting experience, alone and through Ray, evaluation, and RLlib's runner.

    python benchmarks/rollout.py [--seconds 1] [--repetitions 5] [--out benchmarks/results/rollout.json]

Environment steps a second of eight environments under a policy of the paper's size (two hidden layers of 256), one
thread each. Raw stepping is gymnasium's SyncVectorEnv under one fixed action; RLlib's SingleAgentEnvRunner has PPO's
network with the same two layers. Everything takes its turn in every repetition, since a machine's speed drifts; the
ratios to raw stepping are of the same repetition. Then how long new weights take to reach two workers: a step of every
environment under weights they have not seen, and one under those that they have. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import gymnasium
import numpy as np

from benchmarks._result import write_result
from iql_ray.distributed.collecting import CollectingWorkers
from iql_ray.envs.acting import GROUP_WIDTH
from iql_ray.envs.catalog import make_env, spaces_of
from iql_ray.envs.collecting import EnvironmentSet
from iql_ray.evaluation.episodes import run_group, split_into_groups
from iql_ray.experience import Spaces
from iql_ray.policy import Policy, PolicyDescription
from pipelines.ray_session import ray_session

HIDDEN = 256
BLOCKS = (16, 64)
RAW = "raw stepping"
IN_PROCESS = "collecting in this process"
GOALS = {"HalfCheetah-v5": 17_000, "Pendulum-v1": 44_000}
GOAL_SECONDS_WEIGHTS = 0.05
NUM_WEIGHT_REPETITIONS = 50

Contender = Callable[[], int]
"""Makes some steps and says how many."""


def random_policy(spaces: Spaces, seed: int = 0) -> Policy:
    """A policy of the paper's size with random weights."""
    generator = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {"log_std": np.zeros(spaces.action_dim, np.float32)}
    shapes = {"hidden.0": (spaces.observation_dim, HIDDEN), "hidden.1": (HIDDEN, HIDDEN)}
    for name, shape in {**shapes, "mean": (HIDDEN, spaces.action_dim)}.items():
        weights[f"{name}.weight"] = generator.normal(scale=0.05, size=shape).astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(shape[1], np.float32)
    description = PolicyDescription(
        observation_dim=spaces.observation_dim,
        num_hidden_layers=2,
        action_low=spaces.action_low,
        action_high=spaces.action_high,
        log_std_min=-5.0,
        log_std_max=2.0,
    )
    return Policy(weights, description)


def raw_stepping(environment_id: str) -> Contender:
    """The environments alone, resets included."""
    make = partial(make_env, environment_id, is_checked=False)
    environments = gymnasium.vector.SyncVectorEnv([make] * GROUP_WIDTH)
    environments.reset(seed=0)
    actions = environments.action_space.sample()

    def step() -> int:
        for _ in range(BLOCKS[-1]):
            environments.step(actions)
        return BLOCKS[-1] * GROUP_WIDTH

    return step


def collecting(environment_id: str, policy: Policy) -> Contender:
    environments = EnvironmentSet(partial(make_env, environment_id, is_checked=False), range(GROUP_WIDTH), seed=0)
    return lambda: len(environments.collect(policy, 0, BLOCKS[-1]).experience)


def collecting_by_worker(workers: CollectingWorkers, policy: Policy, num_steps: int) -> Contender:
    """One worker that always has the next block to do."""

    def step() -> int:
        while workers.request(policy, 0, num_steps):
            pass
        return sum(len(collected.experience) for collected in workers.arrived(0.1))

    return step


def evaluating(environment_id: str, policy: Policy) -> Contender:
    """A whole group of episodes."""
    environments = [make_env(environment_id) for _ in range(GROUP_WIDTH)]
    (seeds,) = split_into_groups(GROUP_WIDTH, seed=0)
    return lambda: sum(result.length for result in run_group(policy, environments, seeds))


def rllib_runner(environment_id: str) -> Contender:
    import torch
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    torch.set_num_threads(1)
    model = DefaultModelConfig(fcnet_hiddens=[HIDDEN, HIDDEN], fcnet_activation="relu", vf_share_layers=False)
    config = PPOConfig().environment(environment_id).rl_module(model_config=model)
    runner = SingleAgentEnvRunner(config=config.env_runners(num_envs_per_env_runner=GROUP_WIDTH))
    num_steps = BLOCKS[-1] * GROUP_WIDTH
    return lambda: sum(len(episode) for episode in runner.sample(num_timesteps=num_steps, random_actions=False))


def contenders(environment_id: str, policy: Policy, stack: ExitStack) -> Iterator[tuple[str, Contender]]:
    """By what the table calls them."""
    yield RAW, raw_stepping(environment_id)
    yield IN_PROCESS, collecting(environment_id, policy)
    for num_steps in BLOCKS:
        workers = stack.enter_context(CollectingWorkers(environment_id, 1, GROUP_WIDTH, seed=0, num_cpus_each=0.25))
        workers.collect(policy, 0, 1)
        yield f"collecting by a worker, {num_steps} steps a block", collecting_by_worker(workers, policy, num_steps)
    yield "evaluation, whole episodes", evaluating(environment_id, policy)
    yield "RLlib's SingleAgentEnvRunner", rllib_runner(environment_id)


def rate(contender: Contender, seconds: float) -> float:
    """Steps per second; what a worker has done ahead while others had their turn does not count."""
    contender()
    start, num_steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        num_steps += contender()
    return num_steps / elapsed


def measure(environment_id: str, seconds: float, repetitions: int) -> dict[str, list[float]]:
    """Steps per second of every contender, by name, one per repetition."""
    environment = make_env(environment_id)
    policy = random_policy(spaces_of(environment))
    with ExitStack() as stack:
        all_contenders = dict(contenders(environment_id, policy, stack))
        for contender in all_contenders.values():
            rate(contender, seconds / 4)
        rates: dict[str, list[float]] = {name: [] for name in all_contenders}
        for _ in range(repetitions):
            for name, contender in all_contenders.items():
                rates[name].append(rate(contender, seconds))
    return rates


def compare(environment_id: str, rates: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, spread, and ratios to raw stepping in the same repetition; printed as a table."""
    print(f"\n{environment_id} x {GROUP_WIDTH}: steps per second, median [least, most], share of raw stepping")
    results: dict[str, Any] = {}
    for name, values in rates.items():
        ratio = statistics.median(value / raw for value, raw in zip(values, rates[RAW], strict=True))
        middle = statistics.median(values)
        results[name] = {"steps_per_second": middle, "repetitions": values, "share_of_raw": ratio}
        print(f"  {name:44} {middle:8,.0f} [{min(values):7,.0f}, {max(values):7,.0f}]  {ratio:.2f}")
    results["is_met"] = statistics.median(rates[IN_PROCESS]) >= GOALS[environment_id]
    return results


def weights_seconds(environment_id: str) -> dict[str, Any]:
    """Seconds of one synchronous step by two workers: with new weights each time, and with the same again."""
    environment = make_env(environment_id)
    spaces = spaces_of(environment)
    policies = [random_policy(spaces, seed) for seed in range(NUM_WEIGHT_REPETITIONS)]
    seconds: dict[str, list[float]] = {"new": [], "known": []}
    with CollectingWorkers(environment_id, 2, GROUP_WIDTH, seed=0, num_cpus_each=0.25) as workers:
        workers.collect(policies[0], -1, 1)
        for version, policy in enumerate(policies):
            for kind in seconds:
                start = time.perf_counter()
                workers.collect(policy, version, 1)
                seconds[kind].append(time.perf_counter() - start)
    result = {kind: statistics.median(values) for kind, values in seconds.items()}
    new = sorted(seconds["new"])
    result |= {"new_p90": new[int(0.9 * len(new))], "new_most": new[-1]}
    print("\nseconds of a step by two workers:", ", ".join(f"{kind} {value:.4f}" for kind, value in result.items()))
    return {**result, "is_met": result["new"] < GOAL_SECONDS_WEIGHTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", nargs="*", default=list(GOALS), choices=list(GOALS))
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with ray_session(num_cpus=4):
        result: dict[str, Any] = {"num_environments": GROUP_WIDTH, "cpus": os.cpu_count()}
        for environment_id in arguments.env:
            rates = measure(environment_id, arguments.seconds, arguments.repetitions)
            result[environment_id] = compare(environment_id, rates)
        result["weights"] = weights_seconds(arguments.env[0])
    write_result(result, arguments.out)


if __name__ == "__main__":
    main()
