"""A learner's updates, one by one or several in a captured graph, and the running means of their metrics."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator

import torch
from torch import Tensor

from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.captured_updates import NUM_CAPTURED, Capture, CapturedUpdates, cuda_graph
from iql_ray.data.packed import UniformSampler
from iql_ray.distributed import collective
from iql_ray.experience import TransitionBatch

NUM_WARM_UP = 3
"""Single updates of this process before the first graph: they compile, and what libraries keep is allocated then."""


class RunningMeans:
    """Means of an update's metrics over updates, on the device; read rarely, since reading waits."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._sum: Tensor | None = None
        self.num_updates = 0

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Each (critics,) or (policies,)."""
        if self._sum is None:
            self._sizes = {name: len(value) for name, value in metrics.items()}
            self._sum = torch.zeros_like(torch.cat(list(metrics.values())))
        self.add_to_sum(metrics)
        self.num_updates += 1

    def add_to_sum(self, metrics: dict[str, Tensor]) -> None:
        """`add` without the count, after an `add`: on the device alone."""
        assert self._sum is not None
        self._sum += torch.cat(list(metrics.values()))

    def take(self) -> dict[str, float]:
        """As `take_by_member`, means over members too."""
        return {name: statistics.fmean(values) for name, values in self.take_by_member().items()}

    def take_by_member(self) -> dict[str, list[float]]:
        """The means since the last call, under `train/`, over all learners too: every one must call it."""
        assert self._sum is not None
        collective.average(self._sum)
        means = (self._sum / self.num_updates).split(list(self._sizes.values()))
        self._sum.zero_()
        self.num_updates = 0
        return {f"train/{name}": mean.tolist() for name, mean in zip(self._sizes, means, strict=True)}


class Updates:
    """The updates of an agent on its minibatches.

    Args:
        batches: endless minibatches.
        is_captured: run several in one graph where there is room for them; the numbers are the same. Minibatches that
            are not drawn on the device (streamed ones) are updated from one by one all the same.
        capture: how.
    """

    def __init__(
        self,
        agent: IQLAgent,
        batches: Iterator[TransitionBatch],
        *,
        is_captured: bool = False,
        capture: Capture = cuda_graph,
    ) -> None:
        self.means = RunningMeans()
        self._agent, self._batches = agent, batches
        self._may_capture, self._capture = is_captured, capture
        self._num_single = 0
        self._captured: CapturedUpdates | None = None

    def run(self, at_most: int) -> None:
        """One update, or several, and not more than that."""
        if at_most >= NUM_CAPTURED and self._is_capturable():
            self._run_captured()
        else:
            self.means.add(self._agent.update(next(self._batches)))
            self._num_single += 1
            if self._num_single == 1:
                _freeze_collector()

    def _is_capturable(self) -> bool:
        is_warm = self._num_single >= NUM_WARM_UP and self._agent.is_one_graph
        return self._may_capture and is_warm and isinstance(self._batches, UniformSampler)

    def _run_captured(self) -> None:
        if self._captured is None:
            assert isinstance(self._batches, UniformSampler)
            generators = self._batches.generators
            self._captured = CapturedUpdates(
                self._agent, self._batches, generators, self.means.add_to_sum, self._capture
            )
        self._captured()
        self.means.num_updates += NUM_CAPTURED


def _freeze_collector() -> None:
    """Once all is loaded and compiled: the collector would else walk every object of torch and ray again and again, 8%
    of an update."""
    gc.unfreeze()  # what a run before this one, in the same process, has left
    gc.collect()
    gc.freeze()
