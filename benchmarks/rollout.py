"""python benchmarks/rollout.py [--env HalfCheetah-v5] [--num-episodes 16]: what evaluation costs beside raw stepping.

Steps per second in one process: the environment alone under a fixed action, and whole groups under a policy of the
paper's size (two hidden layers of 256). The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import numpy as np

from iql_ray.envs.catalog import make_env, spaces_of
from iql_ray.envs.acting import GROUP_WIDTH
from iql_ray.evaluation.episodes import run_group, split_into_groups
from iql_ray.experience import Spaces
from iql_ray.policy import Policy, PolicyDescription

HIDDEN = 256


def random_policy(spaces: Spaces) -> Policy:
    """A policy of the paper's size with random weights."""
    generator = np.random.default_rng(0)
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


def raw_rate(environment: gymnasium.Env, num_steps: int) -> float:
    """Steps per second of the environment alone, resets included."""
    action = environment.action_space.sample()
    environment.reset(seed=0)
    start = time.perf_counter()
    for _ in range(num_steps):
        _, _, is_terminated, is_truncated, _ = environment.step(action)
        if is_terminated or is_truncated:
            environment.reset()
    return num_steps / (time.perf_counter() - start)


def evaluation_rate(environments: list[gymnasium.Env], policy: Policy, num_episodes: int) -> tuple[float, int]:
    """Steps per second of whole groups, and how many steps they were."""
    start = time.perf_counter()
    groups = split_into_groups(num_episodes, seed=0)
    num_steps = sum(result.length for seeds in groups for result in run_group(policy, environments, seeds))
    return num_steps / (time.perf_counter() - start), num_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--num-episodes", type=int, default=2 * GROUP_WIDTH)
    arguments = parser.parse_args()
    environments = [make_env(arguments.env) for _ in range(GROUP_WIDTH)]
    policy = random_policy(spaces_of(environments[0]))
    evaluated, num_steps = evaluation_rate(environments, policy, arguments.num_episodes)
    raw = raw_rate(environments[0], num_steps)
    result = {
        "environment_id": arguments.env,
        "num_steps": num_steps,
        "raw_steps_per_second": round(raw),
        "evaluation_steps_per_second": round(evaluated),
        "share_of_raw": round(evaluated / raw, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
