"""IQL updates of other torch libraries: peers to measure against, nothing else.

    python benchmarks/_torch_peers.py d3rlpy|rllib

For every number of updates on stdin it does as many and prints the rate, beginning with "ready" and the number of
trained parameters. One thread, sampling included; the library's own defaults, with two hidden layers of 256 everywhere.
d3rlpy needs an interpreter that has it; RLlib comes with the project.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch

OBSERVATION_DIM, ACTION_DIM, HIDDEN, BATCH_SIZE, NUM_ROWS, EPISODE_LENGTH = 17, 6, 256, 256, 100_000, 1000


def columns() -> dict[str, np.ndarray]:
    """Transitions of noise."""
    generator = np.random.default_rng(0)
    return {
        "observations": generator.standard_normal((NUM_ROWS, OBSERVATION_DIM), np.float32),
        "actions": generator.uniform(-1, 1, (NUM_ROWS, ACTION_DIM)).astype(np.float32),
        "rewards": generator.standard_normal(NUM_ROWS, np.float32),
        "next_observations": generator.standard_normal((NUM_ROWS, OBSERVATION_DIM), np.float32),
    }


def d3rlpy_update() -> tuple[Callable[[], object], int]:
    import d3rlpy  # pyright: ignore[reportMissingImports]

    rows = columns()
    timeouts = (np.arange(NUM_ROWS) % EPISODE_LENGTH == EPISODE_LENGTH - 1).astype(np.float32)
    dataset = d3rlpy.dataset.MDPDataset(
        rows["observations"], rows["actions"], rows["rewards"], np.zeros(NUM_ROWS, np.float32), timeouts
    )
    iql = d3rlpy.algos.IQLConfig(batch_size=BATCH_SIZE).create(device="cpu")
    iql.build_with_dataset(dataset)
    modules: Any = iql.impl.modules
    trained = [modules.policy, modules.value_func, modules.q_funcs]
    return lambda: iql.update(dataset.sample_transition_batch(BATCH_SIZE)), num_parameters(*trained)


def rllib_update() -> tuple[Callable[[], object], int]:
    from ray.rllib.algorithms.iql import IQLConfig
    from ray.rllib.core.learner.training_data import TrainingData
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

    boxes = (
        gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION_DIM,)),
        gymnasium.spaces.Box(-1.0, 1.0, (ACTION_DIM,)),
    )
    config = IQLConfig().environment(observation_space=boxes[0], action_space=boxes[1]).learners(num_learners=0)
    config = config.rl_module(
        model_config=DefaultModelConfig(fcnet_hiddens=[HIDDEN], head_fcnet_hiddens=[HIDDEN], fcnet_activation="relu")
    )
    learner: Any = config.build_learner(spaces={"default_policy": boxes, "__env_single__": boxes})
    learner.build()
    rows = {name: torch.from_numpy(value) for name, value in columns().items()}

    def update() -> None:
        chosen = torch.randint(NUM_ROWS, (BATCH_SIZE,))
        batch = {
            "obs": rows["observations"][chosen],
            "actions": rows["actions"][chosen],
            "rewards": rows["rewards"][chosen],
            "new_obs": rows["next_observations"][chosen],
            "terminateds": torch.zeros(BATCH_SIZE, dtype=torch.bool),
            "truncateds": torch.zeros(BATCH_SIZE, dtype=torch.bool),
            "weights": torch.ones(BATCH_SIZE),
            "n_step": torch.ones(BATCH_SIZE),
        }
        data = TrainingData(batch=MultiAgentBatch({"default_policy": SampleBatch(batch)}, BATCH_SIZE))
        learner.update(training_data=data, timesteps={"num_env_steps_sampled_lifetime": 0})

    trained = [value for name, value in learner.module["default_policy"].named_parameters() if "target" not in name]
    return update, sum(value.numel() for value in trained if value.requires_grad)


def num_parameters(*modules: Any) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def main() -> int:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    update, num_trained = {"d3rlpy": d3rlpy_update, "rllib": rllib_update}[sys.argv[1]]()
    for _ in range(3):
        update()
    print("ready", num_trained, flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            update()
        print(int(line) / (time.perf_counter() - started), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
