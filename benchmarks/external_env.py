"""python benchmarks/external_env.py [--env Pendulum-v1]: what a step costs more where its environment is served.

Two processes on this machine, over loopback, against the same environment in this process, in turns. The last line of
stdout is JSON: of all steps the median, and the fastest tenth, which a busy machine disturbs least; in microseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import numpy as np

from iql_ray.envs.catalog import make_env
from iql_ray.envs.external import connect

NUM_ROUNDS = 10


def step_seconds(environment: gymnasium.Env, num_steps: int) -> list[float]:
    """Of each step; resets are left out."""
    action = environment.action_space.sample()
    environment.reset(seed=0)
    seconds = []
    for _ in range(num_steps):
        start = time.perf_counter()
        _, _, is_terminated, is_truncated, _ = environment.step(action)
        seconds.append(time.perf_counter() - start)
        if is_terminated or is_truncated:
            environment.reset()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="Pendulum-v1")
    parser.add_argument("--num-steps", type=int, default=1000, help=f"of each of {NUM_ROUNDS} rounds")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "iql_ray.envs.external", "--env", arguments.env, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            external = connect(server.stdout.readline().strip())
            here = make_env(arguments.env)
            seconds: dict[str, list[float]] = {"direct": [], "served": []}
            for _ in range(NUM_ROUNDS):
                seconds["direct"] += step_seconds(here, arguments.num_steps)
                seconds["served"] += step_seconds(external, arguments.num_steps)
            external.close()
        finally:
            server.terminate()
    result: dict[str, object] = {"environment_id": arguments.env}
    for name, quantile in (("fastest_tenth", 0.1), ("median", 0.5)):
        direct, served = (1e6 * float(np.quantile(seconds[key], quantile)) for key in ("direct", "served"))
        result[name] = {"direct": round(direct, 1), "served": round(served, 1), "added": round(served - direct, 1)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
