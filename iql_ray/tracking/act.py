"""Act with a registered policy, as someone without iql_ray does: copy this file, it needs mlflow and gymnasium.

    python act.py models:/pendulum/1 Pendulum-v1 --tracking-uri sqlite:////path/to/runs/mlflow.db

Prints one JSON line: the return of one episode at the policy's mean, or most likely, action.
"""

from __future__ import annotations

import argparse
import json
import sys

import gymnasium
import mlflow
import numpy as np


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_uri")
    parser.add_argument("environment_id")
    parser.add_argument("--tracking-uri")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    mlflow.set_tracking_uri(arguments.tracking_uri)
    policy = mlflow.pyfunc.load_model(arguments.model_uri)
    environment = gymnasium.make(arguments.environment_id)
    observation, _ = environment.reset(seed=arguments.seed)
    episode_return, is_over = 0.0, False
    while not is_over:
        action = policy.predict(np.asarray(observation, np.float32)[None])[0]
        observation, reward, termination, truncation, _ = environment.step(action)
        episode_return += float(reward)
        is_over = termination or truncation
    needs = sorted({"iql_ray", "ray", "torch"} & sys.modules.keys())
    print(json.dumps({"episode_return": episode_return, "last_action": action.tolist(), "imported": needs}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
