"""The learner's loop without Ray: an exact resume, the points of the curves, what is saved when."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from iql_ray import checkpoint, run_folder
from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.data.transforms import TransformConfig
from iql_ray.distributed.background_writer import BackgroundWriter
from iql_ray.distributed.learner import (
    Learner,
    RunPlan,
    save,
    train,
)
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.distributed.train_intervals import (
    is_average_due,
    is_checkpoint_due,
    is_evaluation_due,
    updates_until_due,
)
from iql_ray.distributed.updates import RunningMeans
from iql_ray.policy import Policy
from tests.distributed.examples import (
    ENVIRONMENT,
    NUM_STREAMED_ROWS,
    SMALL_LIMIT,
    Notes,
    copied,
    different,
    final_tensors,
    learner_of,
    plan_of,
    tiny_dataset,
    train_config,
)

CONSTANT = IQLConfig(hidden_sizes=(8, 8), policy_schedule="constant")
"""Of which a shorter run is the beginning of a longer one."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def larger_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In sixty shards of fifty rows."""
    return tiny_dataset(tmp_path_factory.mktemp("data"), num_rows=NUM_STREAMED_ROWS)


def trained(plan: RunPlan) -> tuple[Learner, Notes]:
    learner, notes = learner_of(plan), Notes()
    train(learner, learner.sampler, notes)
    return learner, notes


def crashed_after(plan: RunPlan, num_updates: int, learner: Learner | None = None) -> Notes:
    """Train until the batches run dry."""
    learner, notes = learner or learner_of(plan), Notes()
    with pytest.raises(StopIteration):
        train(learner, islice(learner.sampler, num_updates), notes)
    return notes


def restored(plan: RunPlan) -> Learner:
    """A new learner that goes on from the newest checkpoint."""
    learner = learner_of(plan)
    newest = checkpoint.load_newest(plan.run_folder, warn=pytest.fail)
    assert newest is not None
    learner.restore(newest)
    return learner


@pytest.mark.parametrize("dropout_rate", [0.0, 0.3])
def test_training_20_equals_training_13_crashing_and_going_on_from_10(
    dataset: Path, tmp_path: Path, dropout_rate: float
):
    config = train_config(dataset)
    config = replace(config, agent=replace(config.agent, dropout_rate=dropout_rate))
    whole, _ = trained(plan_of(config, tmp_path / "whole"))
    plan = plan_of(config, tmp_path / "crashed")
    crashed_after(plan, 13)
    learner = restored(plan)
    assert learner.agent.update_count == 10
    train(learner, learner.sampler, Notes())
    assert different(learner.agent.tensors(), whole.agent.tensors()) == []
    assert different(learner.random_states(), whole.random_states()) == []
    assert different(final_tensors(plan.run_folder, 20), final_tensors(tmp_path / "whole", 20)) == []


@pytest.mark.parametrize("seeds", [(0,), (3, 8)])
def test_a_streaming_learner_goes_on_where_its_stream_stood(
    larger_dataset: Path, tmp_path: Path, seeds: tuple[int, ...]
):
    """Forty-seven batches of sixty-four are a pass; the checkpoint is in the second, the end in the third."""
    config = train_config(
        larger_dataset,
        memory_limit=SMALL_LIMIT,
        batch_size=64,
        num_updates=110,
        checkpoint_interval_updates=60,
        seeds=seeds,
        eval_method="none",
    )
    whole, _ = trained(plan_of(config, tmp_path / "whole"))
    plan = plan_of(config, tmp_path / "crashed")
    crashed_after(plan, 83)
    learner = restored(plan)
    assert learner.agent.update_count == 60
    train(learner, learner.sampler, Notes())
    assert different(learner.agent.tensors(), whole.agent.tensors()) == []
    assert different(learner.random_states(), whole.random_states()) == []


def test_a_checkpoint_of_rows_that_were_held_is_not_continued_on_a_stream(larger_dataset: Path, tmp_path: Path):
    plan = plan_of(train_config(larger_dataset), tmp_path)
    trained(plan)
    streaming = plan_of(train_config(larger_dataset, memory_limit=SMALL_LIMIT), tmp_path)
    with pytest.raises(ValueError, match=r"held its rows, now they are to be streamed"):
        learner_of(streaming).restore(checkpoint.load(tmp_path, 20))


def test_two_crashes_are_as_good_as_none(dataset: Path, tmp_path: Path):
    config = train_config(dataset, num_updates=30)
    whole, _ = trained(plan_of(config, tmp_path / "whole"))
    plan = plan_of(config, tmp_path / "crashed")
    crashed_after(plan, 11)
    crashed_after(plan, 15, restored(plan))
    learner = restored(plan)
    assert learner.agent.update_count == 20
    train(learner, learner.sampler, Notes())
    assert different(learner.agent.tensors(), whole.agent.tensors()) == []


def test_the_points_of_a_resumed_run_continue_the_curve(dataset: Path, tmp_path: Path):
    """Twelve is recorded again after the crash, with the same number."""
    config = train_config(dataset)
    _, whole = trained(plan_of(config, tmp_path / "whole"))
    plan = plan_of(config, tmp_path / "crashed")
    first = crashed_after(plan, 13)
    learner, second = restored(plan), Notes()
    train(learner, learner.sampler, second)
    assert first.updates("point") == [4, 8, 10, 12]
    assert second.updates("point") == [12, 16, 20]
    for update, metrics in {**first.points, **second.points}.items():
        expected = whole.points[update]
        assert {name: value for name, value in metrics.items() if name.startswith("train/")} == {
            name: value for name, value in expected.items() if name.startswith("train/")
        }
    assert first.points[12]["train/value_loss"] == second.points[12]["train/value_loss"]


def test_points_come_at_the_log_interval_and_before_every_checkpoint(dataset: Path, tmp_path: Path):
    _, notes = trained(plan_of(train_config(dataset), tmp_path))
    assert notes.updates("point") == [4, 8, 10, 12, 16, 20]
    assert notes.updates("checkpoint") == [0, 10, 20]
    for update in (10, 20):
        assert notes.events.index(("point", update)) < notes.events.index(("checkpoint", update))


class SlowNotes(Notes):
    """What is told of the checkpoint of ten updates, last of its write, waits for a later point of the curves."""

    def __init__(self) -> None:
        super().__init__()
        self.is_later = threading.Event()

    def record(self, step: int, metrics: dict[str, float]) -> None:
        super().record(step, metrics)
        if step == 16:
            self.is_later.set()

    def checkpoint_saved(self, update_count: int, step: int) -> None:
        assert update_count != 10 or self.is_later.wait(60)
        super().checkpoint_saved(update_count, step)


def test_updates_go_on_while_a_checkpoint_is_written_and_the_next_waits_for_it(dataset: Path, tmp_path: Path):
    learner, notes = learner_of(plan_of(train_config(dataset), tmp_path)), SlowNotes()
    train(learner, learner.sampler, notes)
    assert notes.updates("checkpoint") == [0, 10, 20]
    assert notes.events.index(("point", 16)) < notes.events.index(("checkpoint", 10))


def test_a_checkpoint_written_late_holds_what_was_when_it_was_due(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its file is written after sixteen updates, and it is that of ten."""
    notes, write = SlowNotes(), checkpoint.save

    def late(run: Path, state: checkpoint.Checkpoint, policy: Policy) -> Path:
        assert state.update_count != 10 or notes.is_later.wait(60)
        return write(run, state, policy)

    ten, _ = trained(plan_of(train_config(dataset, num_updates=10, agent=CONSTANT), tmp_path / "ten"))
    monkeypatch.setattr(checkpoint, "save", late)
    learner = learner_of(plan_of(train_config(dataset, agent=CONSTANT), tmp_path / "late"))
    train(learner, learner.sampler, notes)
    saved = checkpoint.load(tmp_path / "late", 10)
    assert different(saved.tensors, ten.agent.tensors()) == []
    assert different(saved.random_states[0], ten.random_states()) == []
    assert checkpoint.load_policy(tmp_path / "late", 10)[0].act(np.ones((1, 2), np.float32)) == pytest.approx(
        ten.policy().act(np.ones((1, 2), np.float32)), abs=0
    )


@pytest.mark.parametrize(("fails_at", "stops_at"), [(0, 10), (10, 20), (20, 20)])
def test_a_checkpoint_that_cannot_be_written_ends_the_run_at_the_next_save(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int, stops_at: int
):
    write = checkpoint.save

    def full(run: Path, state: checkpoint.Checkpoint, policy: Policy) -> Path:
        if state.update_count == fails_at:
            raise OSError("no space left on device")
        return write(run, state, policy)

    monkeypatch.setattr(checkpoint, "save", full)
    learner, notes = learner_of(plan_of(train_config(dataset), tmp_path)), Notes()
    with pytest.raises(OSError, match="no space left"):
        train(learner, learner.sampler, notes)
    assert learner.agent.update_count == stops_at
    assert notes.updates("checkpoint") == [update for update in (0, 10) if update < fails_at]


def test_a_last_update_off_every_interval_is_recorded_and_saved(dataset: Path, tmp_path: Path):
    _, notes = trained(plan_of(train_config(dataset, num_updates=13), tmp_path))
    assert [event for event in notes.events if event[1] == 13] == [("point", 13), ("checkpoint", 13)]


def test_a_point_holds_losses_and_speed(dataset: Path, tmp_path: Path):
    _, notes = trained(plan_of(train_config(dataset), tmp_path))
    point = notes.points[20]
    assert {"train/value_loss", "train/critic_loss", "train/policy_loss", "time/updates_per_second"} <= set(point)
    assert all(np.isfinite(value) for value in point.values())


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_updates": 23}, {"eval_method": "none", "checkpoint_interval_updates": 7},
     {"num_learners": 2, "average_every": 3, "log_interval_updates": 8}],
)  # fmt: skip
def test_nothing_is_due_before_the_updates_that_may_be_run_at_once(dataset: Path, changes: dict[str, object]):
    config = train_config(dataset, **changes)

    def is_due(update_count: int) -> bool:
        is_logged = update_count % config.log_interval_updates == 0
        return is_logged or is_checkpoint_due(config, update_count) or is_average_due(config, update_count)

    for update_count in range(config.num_updates):
        following = [is_due(each) for each in range(update_count + 1, config.num_updates + 1)]
        assert updates_until_due(config, update_count) == following.index(True) + 1


def test_a_point_is_the_mean_over_the_updates_since_the_last():
    means = RunningMeans()
    for value in (1.0, 2.0, 6.0):
        means.add({"value_loss": torch.tensor([value]), "policy_loss": torch.tensor([value, 3 * value])})
    assert means.take() == {"train/value_loss": 3.0, "train/policy_loss": 6.0}
    means.add({"value_loss": torch.tensor([5.0]), "policy_loss": torch.tensor([0.0, 1.0])})
    assert means.take() == {"train/value_loss": 5.0, "train/policy_loss": 0.5}


def test_a_learner_that_is_not_the_first_records_and_writes_nothing(dataset: Path, tmp_path: Path):
    learner, notes = learner_of(plan_of(train_config(dataset, num_learners=2), tmp_path), rank=1), Notes()
    train(learner, learner.sampler, notes)
    assert learner.agent.update_count == 20
    assert notes.events == []
    assert list(tmp_path.iterdir()) == []


def test_a_learners_share_of_the_batch_is_equal(dataset: Path, tmp_path: Path):
    learner = learner_of(plan_of(train_config(dataset, num_learners=2), tmp_path))
    assert next(learner.sampler).rewards.shape == (8,)


def test_a_finished_run_that_is_resumed_does_nothing(dataset: Path, tmp_path: Path):
    plan = plan_of(train_config(dataset), tmp_path)
    trained(plan)
    learner, notes = restored(plan), Notes()
    train(learner, learner.sampler, notes)
    assert notes.events == []


def test_only_the_last_checkpoints_are_kept(dataset: Path, tmp_path: Path):
    config = train_config(dataset, num_updates=50, num_checkpoints_to_keep=2, eval_method="none")
    trained(plan_of(config, tmp_path))
    assert run_folder.checkpoint_updates(tmp_path) == [40, 50]


def test_checkpoints_to_be_evaluated_wait_for_it(dataset: Path, tmp_path: Path):
    config = train_config(
        dataset,
        num_updates=25,
        env=ENVIRONMENT,
        eval_interval_updates=10,
        checkpoint_interval_updates=5,
        num_checkpoints_to_keep=1,
    )
    trained(plan_of(config, tmp_path))
    assert checkpoint.pending_evaluations(tmp_path) == [0, 10, 20, 25]


@pytest.mark.parametrize(
    ("update_count", "is_evaluated", "is_saved"),
    [
        (0, True, True),
        (1, False, False),
        (10, False, True),
        (15, True, True),
        (30, True, True),
        (40, False, True),
        (47, True, True),
    ],
)
def test_what_is_due_when(update_count: int, is_evaluated: bool, is_saved: bool):
    """47 updates, a checkpoint every ten, an evaluation every fifteen: it needs a checkpoint of its own."""
    config = TrainConfig(
        dataset="d", env="E-v0", num_updates=47, checkpoint_interval_updates=10, eval_interval_updates=15
    )
    assert is_evaluation_due(config, update_count) is is_evaluated
    assert is_checkpoint_due(config, update_count) is is_saved
    assert is_evaluation_due(replace(config, env=None), update_count) is is_evaluated
    assert not is_evaluation_due(replace(config, env=None, eval_method="none"), update_count)


def test_a_checkpoint_of_another_dataset_is_refused_naming_both(dataset: Path, tmp_path: Path):
    learner, _ = trained(plan_of(train_config(dataset), tmp_path))
    other = plan_of(train_config(tiny_dataset(tmp_path / "data", seed=1)), tmp_path)
    saved = checkpoint.load(tmp_path, 20)
    with pytest.raises(
        ValueError, match=f"{learner.plan.dataset_digest}, the dataset there now has {other.dataset_digest}"
    ):
        learner_of(other).restore(saved)


def test_a_checkpoint_of_another_number_of_learners_is_refused_naming_both(dataset: Path, tmp_path: Path):
    trained(plan_of(train_config(dataset), tmp_path))
    plan = plan_of(train_config(dataset, num_learners=2), tmp_path)
    with pytest.raises(ValueError, match=r"holds 1 learners, the run has 2"):
        learner_of(plan).restore(checkpoint.load(tmp_path, 20))


def test_the_saved_policy_normalises_observations_as_training_did(dataset: Path, tmp_path: Path):
    plan = plan_of(train_config(dataset, transforms=TransformConfig(normalize_observations=True)), tmp_path)
    learner, _ = trained(plan)
    policy, _ = checkpoint.load_policy(tmp_path, "last")
    raw = np.array([[0.5, -1.0], [2.0, 3.0]], np.float32)
    features = torch.from_numpy(plan.transforms.observations(raw))
    weights = learner.agent.policy_weights()
    for layer in (0, 1):
        features = torch.relu(features @ weights[f"hidden.{layer}.weight"] + weights[f"hidden.{layer}.bias"])
    units = torch.tanh(features @ weights["mean.weight"] + weights["mean.bias"]).numpy()
    assert plan.transforms.agent_actions(policy.act(raw)) == pytest.approx(units, abs=1e-6)


def test_saving_does_not_disturb_training(dataset: Path, tmp_path: Path):
    learner = learner_of(plan_of(train_config(dataset), tmp_path))
    before = copied(learner.agent.tensors()), copied(learner.random_states())
    with BackgroundWriter() as writer:
        save(learner, Notes(), writer, is_to_be_evaluated=False)
    assert different(learner.agent.tensors(), before[0]) == []
    assert different(learner.random_states(), before[1]) == []
