"""Several updates as one CUDA graph, from drawing their minibatches to what becomes of their metrics.

    once        record what NUM_CAPTURED updates launch
    each time   schedule -> device | launch all of it again | count them

The numbers are those of as many single updates: the same kernels on the same tensors, generators that go on where they
stand, and a schedule that is written into a tensor before each launch. So single updates and graphs can take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from iql_ray.algorithm.agent import IQLAgent, Scheduled
from iql_ray.experience import TransitionBatch

NUM_CAPTURED = 10
"""Launching a graph costs the CPU some ten microseconds; what ten updates share of it is nothing."""

Capture = Callable[[Callable[[], None], Sequence[torch.Generator]], Callable[[], None]]
"""From what is to be recorded, and all generators that it draws from, to what runs it."""


def cuda_graph(record: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
    """Record what a function launches, without running it; everything in it must have run before, on its own.

    Args:
        record: launches on the current device alone, on tensors that stay where they are.
        generators: all that it draws from; each launch draws on from where they are then.

    Returns:
        Launches it.

    Raises:
        RuntimeError: it does something that a graph cannot hold.
    """
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads write checkpoints meanwhile
        record()
    return graph.replay


class CapturedUpdates:
    """`NUM_CAPTURED` updates a call.

    Args:
        agent: compiled and warm: `is_one_graph`.
        batches: minibatches on the agent's device.
        generators: all that minibatches are drawn from; what is drawn depends on nothing else.
        take: what becomes of an update's metrics, on the device.
        capture: `cuda_graph`; without a GPU, a test's own.
    """

    def __init__(
        self,
        agent: IQLAgent,
        batches: Iterator[TransitionBatch],
        generators: Sequence[torch.Generator],
        take: Callable[[dict[str, Tensor]], None],
        capture: Capture = cuda_graph,
    ) -> None:
        assert agent.is_one_graph, "a graph holds what has been compiled, and runs on one device"
        self._agent, self._batches, self._take = agent, batches, take
        self._schedule = torch.zeros((NUM_CAPTURED, len(Scheduled._fields)), dtype=torch.float64, device=agent.device)
        self._launch = capture(self._updates, [*generators, *agent.generators])

    def __call__(self) -> None:
        agent = self._agent
        first = agent.update_count
        scheduled = [agent.scheduled(first + each) for each in range(NUM_CAPTURED)]
        self._schedule.copy_(torch.tensor(scheduled, dtype=torch.float64))
        self._launch()
        agent.update_count += NUM_CAPTURED

    def _updates(self) -> None:
        for scheduled in self._schedule:
            self._take(self._agent.move(next(self._batches), Scheduled(*scheduled)))
