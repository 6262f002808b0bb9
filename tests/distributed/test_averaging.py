"""Learners that go by themselves between averages: what is averaged, when, and that a resume is exact."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from iql_ray import checkpoint
from iql_ray.distributed import collective
from iql_ray.distributed.learner import Learner, RunPlan, train
from iql_ray.distributed.train_config import TrainConfig
from tests.distributed.examples import (
    Notes,
    copied,
    different,
    learner_of,
    plan_of,
    shards_of,
    tiny_dataset,
    train_config,
)
from tests.distributed.in_step import Mean, everyone_trained_in_step

NUM_LEARNERS = 2


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


def config_of(dataset: Path, **changes: Any) -> TrainConfig:
    return train_config(dataset, **{"num_learners": NUM_LEARNERS, "average_every": 3, **changes})


def alone(config: TrainConfig, folder: Path, rank: int, num_updates: int) -> dict[str, Tensor]:
    """What one of the learners has after so many updates by itself."""
    plan = plan_of(config, folder)
    learner = Learner(plan, shards_of(plan)[rank], rank, None)
    for batch in islice(learner.sampler, num_updates):
        learner.agent.update(batch)
    return copied(learner.agent.tensors())


def test_after_an_average_every_learner_has_the_mean_of_what_each_would_have_alone(dataset: Path, tmp_path: Path):
    """Networks, target and Adam's moments; the count of its steps is that of each."""
    config = config_of(dataset, num_updates=3)
    first, second = everyone_trained_in_step(config, tmp_path)
    one, two = (alone(config, tmp_path, rank, 3) for rank in range(NUM_LEARNERS))
    assert different(first, second) == []
    assert different(one, two) != []
    assert different(first, {name: (one[name] + two[name]) / 2 for name in one}) == []
    assert first["optimiser.value.step"].item() == 3


def test_averages_come_at_their_interval_and_before_every_checkpoint(dataset: Path, tmp_path: Path):
    """Every three updates, and at the checkpoints of ten and twenty; the schedule of the learner's rate is one."""
    plan, averaged_at = plan_of(config_of(dataset), tmp_path), []
    learner = Learner(plan, shards_of(plan)[0], 0, lambda flat: averaged_at.append(learner.agent.update_count))
    train(learner, learner.sampler, Notes())
    assert averaged_at == [3, 6, 9, 10, 12, 15, 18, 20]


def test_without_it_gradients_are_averaged_twice_an_update(dataset: Path, tmp_path: Path):
    plan, averaged_at = plan_of(config_of(dataset, average_every=None), tmp_path), []
    learner = Learner(plan, shards_of(plan)[0], 0, lambda flat: averaged_at.append(learner.agent.update_count))
    train(learner, learner.sampler, Notes())
    assert averaged_at == [update for update in range(20) for _ in range(2)]


class Meeting:
    """`collective.gather` for learners on threads."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(NUM_LEARNERS, timeout=60)
        self._own: list[Any] = [None] * NUM_LEARNERS
        self.here = threading.local()

    def gather(self, own: Any) -> list[Any]:
        self._own[self.here.rank] = own
        self._barrier.wait()
        everyone = list(self._own)
        self._barrier.wait()
        return everyone


def run_together(plan: RunPlan, meeting: Meeting, num_updates: int, start: checkpoint.Checkpoint | None) -> list[dict]:
    """Both learners for so many updates, from a checkpoint or the beginning; they stop where their batches do."""
    shards, mean = shards_of(plan), Mean(NUM_LEARNERS)

    def work(rank: int) -> dict[str, Tensor]:
        torch.set_flush_denormal(True)
        meeting.here.rank = rank
        learner = Learner(plan, shards[rank], rank, mean.of_rank(rank))
        if start is not None:
            learner.restore(start)
        with contextlib.suppress(StopIteration):
            train(learner, islice(learner.sampler, num_updates), Notes())
        return copied(learner.agent.tensors())

    with ThreadPoolExecutor(NUM_LEARNERS) as threads:
        return list(threads.map(work, range(NUM_LEARNERS)))


def test_a_run_of_two_that_crashes_between_averages_ends_as_one_that_did_not(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two updates after the average of twelve; it goes on from ten, where both agreed."""
    meeting = Meeting()
    monkeypatch.setattr(collective, "gather", meeting.gather)
    config = config_of(dataset)
    config = replace(config, agent=replace(config.agent, dropout_rate=0.3))
    whole, _ = run_together(plan_of(config, tmp_path / "whole"), meeting, 20, None)
    plan = plan_of(config, tmp_path / "crashed")
    first, second = run_together(plan, meeting, 14, None)
    assert different(first, second) != []
    saved = checkpoint.load(plan.run_folder, 10)
    for each in run_together(plan, meeting, 10, saved):
        assert different(each, whole) == []


def test_a_checkpoint_of_another_interval_is_not_continued(dataset: Path, tmp_path: Path):
    plan = plan_of(config_of(dataset, average_every=1, num_learners=2), tmp_path)
    learner = Learner(plan, shards_of(plan)[0], 0, lambda flat: None)
    train(learner, learner.sampler, Notes())
    saved = replace(checkpoint.load(tmp_path, 20), random_states=({}, {}))
    with pytest.raises(ValueError, match=r"average_every = 1, the run's configuration now says 3"):
        learner_of(plan_of(config_of(dataset), tmp_path)).restore(saved)


@pytest.mark.parametrize(("average_every", "num_learners"), [(0, 2), (10, 1)])
def test_an_average_of_nothing_or_over_nobody_is_refused(average_every: int, num_learners: int):
    message = f"average_every = {average_every} with num_learners = {num_learners}: .* two learners or more"
    with pytest.raises(ValueError, match=message):
        TrainConfig(dataset="d", average_every=average_every, num_learners=num_learners)
