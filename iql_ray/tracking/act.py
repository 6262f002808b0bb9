"""Act with a registered policy, as someone without iql_ray does: copy this file, it needs mlflow and gymnasium.

    python act.py models:/pendulum/1 Pendulum-v1 --tracking-uri sqlite:////path/to/runs/mlflow.db --seeds 0 1 2

Prints one JSON line: the return of one episode per seed at the policy's mean, or most likely, action.
"""

from __future__ import annotations

import argparse
import json
import sys

import gymnasium
import mlflow
import numpy as np

BATCH_ROWS = 8
"""iql_ray evaluates eight episodes side by side. A matrix product of another height differs in its last bits, and so
would the returns; whoever does not compare them acts on single observations."""


def run_episode(policy, environment, seed: int) -> tuple[float, object]:
    """The episode's return, and its last action."""
    observation, _ = environment.reset(seed=seed)
    episode_return, is_over, action = 0.0, False, None
    while not is_over:
        action = policy.predict(in_first_row(observation))[0]
        observation, reward, termination, truncation, _ = environment.step(action)
        episode_return += float(reward)
        is_over = termination or truncation
    return episode_return, action


def in_first_row(observation):
    """A batch whose other rows are zeros; of a dict of observations, each of its parts."""
    if isinstance(observation, dict):
        return {name: in_first_row(part) for name, part in observation.items()}
    row = np.asarray(observation)
    batch = np.zeros((BATCH_ROWS, *row.shape), row.dtype)
    batch[0] = row
    return batch


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_uri")
    parser.add_argument("environment_id")
    parser.add_argument("--tracking-uri")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    mlflow.set_tracking_uri(arguments.tracking_uri)
    policy = mlflow.pyfunc.load_model(arguments.model_uri)
    environment = gymnasium.make(arguments.environment_id)
    returns, action = [], None
    for seed in arguments.seeds:
        episode_return, action = run_episode(policy, environment, seed)
        returns.append(episode_return)
    needs = sorted({"iql_ray", "ray", "torch"} & sys.modules.keys())
    last_action = np.asarray(action).tolist()
    print(json.dumps({"episode_returns": returns, "last_action": last_action, "imported": needs}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
