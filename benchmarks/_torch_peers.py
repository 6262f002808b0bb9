"""IQL updates of other torch libraries: peers to measure against, nothing else.

    python benchmarks/_torch_peers.py d3rlpy|rllib|torchrl

For every number of updates on stdin it does as many and prints the rate, beginning with "ready" and the number of
trained parameters. One thread, sampling included; the library's own defaults, with two hidden layers of 256 everywhere.
TorchRL, which gives a loss and not an update, is put together as its own example of offline IQL does, with the authors'
policy. d3rlpy and TorchRL need an interpreter that has them; RLlib comes with the project.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

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


def torchrl_update() -> tuple[Callable[[], object], int]:
    """Sampled from its replay buffer in memory; one Adam over all networks, one backward, one soft update."""
    from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer  # pyright: ignore[reportMissingImports]
    from torchrl.objectives import IQLLoss, SoftUpdate  # pyright: ignore[reportMissingImports]

    loss = IQLLoss(*torchrl_networks(), loss_function="l2", temperature=3.0, expectile=0.7)
    loss.make_value_estimator(gamma=0.99)
    target = SoftUpdate(loss, tau=0.005)
    optimiser = torch.optim.Adam(loss.parameters(), lr=3e-4)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(NUM_ROWS), batch_size=BATCH_SIZE)
    buffer.extend(torchrl_transitions())

    def update() -> None:
        losses = loss(buffer.sample())
        (losses["loss_actor"] + losses["loss_qvalue"] + losses["loss_value"]).backward()
        optimiser.step()
        optimiser.zero_grad()
        target.step()

    return update, sum(value.numel() for value in loss.parameters() if value.requires_grad)


def torchrl_networks() -> tuple[Any, Any, Any]:
    """Policy, Q and V: the policy a Normal with tanh on its mean and a standard deviation of no state."""
    from tensordict.nn import (  # pyright: ignore[reportMissingImports]
        AddStateIndependentNormalScale,
        TensorDictModule,
    )
    from torchrl.data import Bounded  # pyright: ignore[reportMissingImports]
    from torchrl.modules import (  # pyright: ignore[reportMissingImports]
        MLP,
        IndependentNormal,
        ProbabilisticActor,
        ValueOperator,
    )

    def mlp(num_inputs: int, num_outputs: int) -> Any:
        sizes: dict[str, Any] = {"in_features": num_inputs, "out_features": num_outputs}
        return MLP(**sizes, num_cells=[HIDDEN, HIDDEN], activation_class=torch.nn.ReLU)

    mean = torch.nn.Sequential(mlp(OBSERVATION_DIM, ACTION_DIM), torch.nn.Tanh())
    normal = torch.nn.Sequential(mean, AddStateIndependentNormalScale(ACTION_DIM))
    policy = ProbabilisticActor(
        TensorDictModule(normal, in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=Bounded(-torch.ones(ACTION_DIM), torch.ones(ACTION_DIM)),
        distribution_class=IndependentNormal,
    )
    critic = ValueOperator(mlp(OBSERVATION_DIM + ACTION_DIM, 1), in_keys=["observation", "action"])
    return policy, critic, ValueOperator(mlp(OBSERVATION_DIM, 1), in_keys=["observation"])


def torchrl_transitions() -> Any:
    from tensordict import TensorDict  # pyright: ignore[reportMissingImports]

    rows = {name: torch.from_numpy(value) for name, value in columns().items()}
    never = torch.zeros(NUM_ROWS, 1, dtype=torch.bool)
    ends = {"done": never, "terminated": never}
    following = {"observation": rows["next_observations"], "reward": rows["rewards"].unsqueeze(1), **ends}
    fields = {"observation": rows["observations"], "action": rows["actions"], **ends, "next": following}
    return TensorDict(fields, batch_size=[NUM_ROWS])


def rllib_update() -> tuple[Callable[[], object], int]:
    import gymnasium
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
    update, num_trained = {"d3rlpy": d3rlpy_update, "rllib": rllib_update, "torchrl": torchrl_update}[sys.argv[1]]()
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
