"""One learner: its share of the data, the update loop, and what it saves and reports while it goes.

`run_learner` is what each of the trainer's workers executes; the loop and the state around it are plain Python,
tested without Ray. Nothing here talks to MLflow or steps an environment: that is the monitor's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from ray.train.torch import get_device
from torch import Tensor

from iql_ray import checkpoint
from iql_ray import config as config_io
from iql_ray.algorithm.action_kinds import LOG_STD_MAX, LOG_STD_MIN
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.update_rule import Learns
from iql_ray.data.packed import RowLayout
from iql_ray.data.replay import Sampler
from iql_ray.data.streaming import StreamedRows, sampler_of
from iql_ray.data.transforms import Transforms
from iql_ray.distributed import collective
from iql_ray.distributed.background_writer import BackgroundWriter
from iql_ray.distributed.shards import learner_rows
from iql_ray.distributed.stopping import listener_to, never
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.distributed.train_intervals import (
    is_average_due,
    is_checkpoint_due,
    is_evaluation_due,
    is_stop_possible,
    updates_until_due,
)
from iql_ray.distributed.updates import Updates
from iql_ray.experience import Spaces, TransitionBatch
from iql_ray.policy import Policy, PolicyDescription


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """Everything a learner needs to know that is not in its shard."""

    config: TrainConfig
    run_folder: Path
    spaces: Spaces
    transforms: Transforms
    dataset_digest: str
    device: str
    num_cpus_per_worker: float = 0.0
    """What each rollout worker that a learner starts asks for, beside the custom resources of the configuration."""


class Recorder(Protocol):
    """Where the first learner's news goes; the monitor in a real run."""

    def record(self, step: int, metrics: dict[str, float]) -> None:
        """Take a point of the training curves, at updates or online environment steps; durable when this returns."""
        ...

    def checkpoint_saved(self, update_count: int, step: int) -> None:
        """A checkpoint has just been committed; called by the thread that wrote it."""
        ...


MakeSampler = Callable[[Any, RowLayout, int, Sequence[int], int], Sampler]


class Learner:
    """An agent, its minibatches and the run they belong to: one rank of `num_learners`.

    Args:
        average: over all learners, of gradients or of what `average_every` says; None where there is one.
        make_sampler: from rows, layout, batch size, seeds and rank to minibatches.
    """

    def __init__(
        self,
        plan: RunPlan,
        rows: Tensor | StreamedRows,
        rank: int,
        average: collective.Average | None,
        learns: Learns = "everything",
        make_sampler: MakeSampler = sampler_of,
    ) -> None:
        config = plan.config
        self.plan = plan
        self.rank = rank
        self._average = average
        self.agent = IQLAgent(
            config.agent,
            plan.spaces,
            population=config.population,
            num_updates=config.num_updates,
            rank=rank,
            device=rows.device,
            average_gradients=average if config.averages_gradients else None,
            is_compiled=config.is_compiled,
            precision=config.precision,
            learns=learns,
        )
        batch_size = config.batch_size // config.num_learners
        layout = RowLayout.of(plan.spaces, config.selection.with_next_actions)
        self.sampler = make_sampler(rows, layout, batch_size, config.population.seeds, rank)

    def random_states(self) -> dict[str, Tensor]:
        return {**self.agent.random_states(), **self.sampler.random_states()}

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Continue exactly at a checkpoint.

        Raises:
            ValueError: it belongs to another dataset, architecture, number of learners or order of the rows.
        """
        plan = self.plan
        configuration = config_io.to_dict(plan.config)
        checkpoint.check_belongs(saved, plan.run_folder, plan.dataset_digest, plan.config.num_learners, configuration)
        own = saved.random_states[self.rank]
        self.agent.load(saved.tensors, own, saved.update_count)
        self.sampler.load(own)

    def updates(self, batches: Iterator[TransitionBatch]) -> Updates:
        """Of its agent, on these minibatches."""
        return Updates(self.agent, batches, is_captured=self.plan.config.compile == "captured")

    def average_networks(self) -> None:
        """Networks and Adam's moments become the means over all learners; all have made as many steps."""
        assert self._average is not None
        moved = [value for name, value in self.agent.tensors().items() if not name.endswith(".step")]
        collective.average_together(moved, self._average)

    def policy(self) -> Policy:
        """The first member's policy as its users hold it, from raw observations to the environment's actions."""
        return export_policy(self.agent.policy_weights(), self.plan.spaces, self.plan.transforms)


def export_policy(weights: dict[str, Tensor], spaces: Spaces, transforms: Transforms) -> Policy:
    """A member's policy network (`IQLAgent.policy_weights`) with the transforms around it."""
    description = PolicyDescription(
        kind="categorical" if spaces.is_discrete else "gaussian",
        observation_dim=spaces.observation_dim,
        num_hidden_layers=sum(name.startswith("hidden.") and name.endswith(".weight") for name in weights),
        action_low=spaces.action_low,
        action_high=spaces.action_high,
        log_std_min=None if spaces.is_discrete else LOG_STD_MIN,
        log_std_max=None if spaces.is_discrete else LOG_STD_MAX,
        num_actions=spaces.num_actions,
        observation_mean=transforms.observation_mean,
        observation_std=transforms.observation_std,
        observation_parts=tuple(part.plain() for part in spaces.observation_parts),
    )
    return Policy({name: value.numpy().copy() for name, value in weights.items()}, description)


def train(
    learner: Learner,
    batches: Iterator[TransitionBatch],
    recorder: Recorder,
    is_stop_ordered: Callable[[], bool] = never,
) -> None:
    """The one loop: update until the run's length, reporting and saving at the configured numbers of updates.

    Every learner runs it in step; the first one reports and writes. A point of the curves comes before the checkpoint
    of the same update, so that no resume leaves a gap. Checkpoints are written beside the updates that follow.

    Args:
        is_stop_ordered: asked of the first learner; once it says so, all save where they stand and return.
    """
    config, agent = learner.plan.config, learner.agent
    updates = learner.updates(batches)
    with BackgroundWriter() as writer:
        if agent.update_count == 0:
            save(learner, recorder, writer, is_to_be_evaluated=config.evaluation_method is not None)
        lap, is_stopped = Lap(agent.update_count), False
        while agent.update_count < config.num_updates and not is_stopped:
            updates.run(updates_until_due(config, agent.update_count))
            if is_average_due(config, agent.update_count):
                learner.average_networks()
            if is_stop_possible(config, agent.update_count):
                is_stopped = collective.from_first(is_stop_ordered())
            is_saved = is_stopped or is_checkpoint_due(config, agent.update_count)
            if is_saved or agent.update_count % config.log_interval_updates == 0:
                metrics = {**updates.means.take(), **lap.take(agent.update_count)}
                if learner.rank == 0:
                    recorder.record(agent.update_count, metrics)
            if is_saved:
                is_evaluated = is_evaluation_due(config, agent.update_count)
                save(learner, recorder, writer, is_to_be_evaluated=is_evaluated)


class Lap:
    """Updates per second since the last point of the curves, everything in between included."""

    def __init__(self, update_count: int) -> None:
        self._update_count, self._started = update_count, time.perf_counter()

    def take(self, update_count: int) -> dict[str, float]:
        now = time.perf_counter()
        rate = (update_count - self._update_count) / (now - self._started)
        self._update_count, self._started = update_count, now
        return {"time/updates_per_second": rate}


def save(
    learner: Learner,
    recorder: Recorder,
    writer: BackgroundWriter,
    *,
    is_to_be_evaluated: bool,
    online: dict[str, Any] | None = None,
    write_experience: Callable[[], None] | None = None,
) -> None:
    """Have a checkpoint of all learners as they are now committed; collective, the first one's writer writes.

    Args:
        online: where fine-tuning stands.
        write_experience: what the checkpoint relies on; it is called before the commit.
    """
    plan = learner.plan
    state = replace(checkpoint_of(learner, is_to_be_evaluated=is_to_be_evaluated), online=online or {})
    if learner.rank > 0:
        return
    writer.wait()
    copies = {name: value.to("cpu", copy=True) for name, value in state.tensors.items()}
    policy = learner.policy()

    def write() -> None:
        if write_experience is not None:
            write_experience()
        commit(plan, replace(state, tensors=copies), policy, recorder)

    writer.submit(write)


def commit(plan: RunPlan, state: checkpoint.Checkpoint, policy: Policy, recorder: Recorder) -> None:
    """Write a checkpoint, delete those that it makes superfluous, and say so."""
    checkpoint.save(plan.run_folder, state, policy)
    checkpoint.prune(plan.run_folder, plan.config.num_checkpoints_to_keep)
    recorder.checkpoint_saved(state.update_count, state.step)


def checkpoint_of(learner: Learner, *, is_to_be_evaluated: bool = False) -> checkpoint.Checkpoint:
    """Where a learner stands; its tensors are the live ones. Collective."""
    plan = learner.plan
    return checkpoint.Checkpoint(
        update_count=learner.agent.update_count,
        tensors=learner.agent.tensors(),
        random_states=tuple(collective.gather(learner.random_states())),
        dataset_digest=plan.dataset_digest,
        is_to_be_evaluated=is_to_be_evaluated,
        device=plan.device,
        configuration=config_io.to_dict(plan.config),
        transforms=config_io.to_dict(plan.transforms),
    )


class MonitorRecorder:
    """Sends the first learner's news to the monitor actor."""

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor

    def record(self, step: int, metrics: dict[str, float]) -> None:
        ray.get(self._monitor.record.remote(step, metrics))

    def checkpoint_saved(self, update_count: int, step: int) -> None:
        self._monitor.checkpoint_saved.remote(update_count, step)

    def evaluation(self, update_count: int) -> dict[str, Any]:
        """Of a checkpoint that asks for one; waits until it is done."""
        return ray.get(self._monitor.wait_for_evaluation.remote(update_count))

    def warn(self, message: str) -> None:
        ray.get(self._monitor.warn.remote(message))


def newest_for_all(run: Path, warn: Callable[[str], None]) -> checkpoint.Checkpoint | None:
    """The checkpoint that the first learner finds newest and whole; nodes may see a shared folder differently late."""
    newest = checkpoint.load_newest(run, warn) if collective.rank() == 0 else None
    chosen = collective.gather(newest and newest.update_count)[0]
    return newest if collective.rank() == 0 or chosen is None else checkpoint.load(run, chosen)


def begin_learning(config: TrainConfig) -> None:
    """Set up this process for a learner."""
    torch.set_num_threads(config.cpus_per_learner)
    torch.set_flush_denormal(True)  # decayed Adam moments would otherwise crawl through subnormal arithmetic
    torch.set_float32_matmul_precision("high" if config.precision == "tf32" else "highest")


def device_of_worker(plan: RunPlan) -> torch.device:
    """Where this worker of the trainer computes."""
    return get_device() if plan.device == "cuda" else torch.device("cpu")


def run_learner(settings: dict[str, Any]) -> None:
    """What each worker of the trainer executes: take the shard, continue where the run stands, train.

    Args:
        settings: `plan` (RunPlan), `shards` (one reference per learner, in lists so that Ray leaves them
            unresolved) and `monitor` (actor handle).
    """
    plan: RunPlan = settings["plan"]
    rank, num_learners = collective.rank(), collective.num_learners()
    begin_learning(plan.config)
    rows = learner_rows(settings["shards"][rank], device_of_worker(plan))
    learner = Learner(plan, rows, rank, collective.average if num_learners > 1 else None)
    recorder = MonitorRecorder(settings["monitor"])
    saved = newest_for_all(plan.run_folder, recorder.warn)
    if saved is not None:
        learner.restore(saved)
    with listener_to(settings["monitor"]) as stop:
        train(learner, learner.sampler, recorder, stop.is_set)
