"""Several learners in step on threads of this process: what a run on Ray must give to the last bit, without Ray.

The mean of two gradients is (a + b) / 2 here as in gloo's all-reduce: floating-point addition commutes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from iql_ray.distributed.learner import Learner, train
from iql_ray.distributed.train_config import TrainConfig
from tests.distributed.examples import Notes, copied, plan_of, shards_of


class Mean:
    """Averages over threads that call it in step: what an all-reduce does over processes."""

    def __init__(self, num_threads: int) -> None:
        self._barrier = threading.Barrier(num_threads, timeout=60)
        self._buffers: list[Tensor] = [torch.empty(0)] * num_threads

    def of_rank(self, rank: int) -> Callable[[Tensor], None]:
        def average(gradients: Tensor) -> None:
            self._buffers[rank] = gradients.clone()
            self._barrier.wait()
            mean = torch.stack(self._buffers).sum(0) / len(self._buffers)
            self._barrier.wait()
            gradients.copy_(mean)

        return average


def trained_in_step(config: TrainConfig, folder: Path) -> dict[str, Tensor]:
    """The tensors that the run of this configuration ends with; `folder` takes its checkpoints."""
    return everyone_trained_in_step(config, folder)[0]


def everyone_trained_in_step(config: TrainConfig, folder: Path) -> list[dict[str, Tensor]]:
    """The tensors of every learner, by rank, at the end of the run."""
    plan = plan_of(config, folder)
    shards = shards_of(plan)
    mean = Mean(config.num_learners)

    def work(rank: int) -> dict[str, Tensor]:
        torch.set_flush_denormal(True)  # of this thread; as the learners do
        learner = Learner(plan, shards[rank], rank, mean.of_rank(rank) if config.num_learners > 1 else None)
        train(learner, learner.sampler, Notes())
        return copied(learner.agent.tensors())

    with ThreadPoolExecutor(config.num_learners) as threads:
        return list(threads.map(work, range(config.num_learners)))
