"""The loop of fine-tuning with environments in this process: ratio, reproducibility, resume, the floor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iql_ray import checkpoint
from iql_ray.data.experience_log import read_experience
from iql_ray.data.replay import ReplayRing
from iql_ray.distributed.finetune import Share
from iql_ray.distributed.finetuning import ring_capacity
from iql_ray.distributed.learner import RunPlan
from iql_ray.experience import Experience
from tests.distributed.examples import plan_of, tiny_dataset, train_config
from tests.distributed.online_examples import OnlineNotes, online_config, online_plan, run_online


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("online"))


@pytest.fixture
def plan(dataset: Path, tmp_path: Path) -> RunPlan:
    return online_plan(plan_of(train_config(dataset), tmp_path / "run"))


def elsewhere(plan: RunPlan, name: str) -> RunPlan:
    return replace(plan, run_folder=plan.run_folder.with_name(name))


def tensors_of(learner: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.agent.tensors().items()}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def experience_of(plan: RunPlan) -> Experience:
    return Experience.joined(list(read_experience(plan.run_folder)))


def assert_equal_experience(plan: RunPlan, other: RunPlan) -> None:
    whole = experience_of(other)
    for name, values in vars(experience_of(plan)).items():
        np.testing.assert_array_equal(values, getattr(whole, name), err_msg=name)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_synchronously_the_ratio_holds_at_every_point_of_the_curves(plan: RunPlan, ratio: float) -> None:
    notes = OnlineNotes()
    learner = run_online(plan, online_config(updates_per_env_step=ratio), notes)
    assert {step: point["online/num_updates"] for step, point in notes.points.items()} == {
        step: step * ratio for step in (10, 20, 30, 40)
    }
    assert learner.agent.update_count == 40 * ratio


def test_every_policy_acts_once_and_its_version_is_the_updates_behind_it(plan: RunPlan) -> None:
    run_online(plan, online_config(), OnlineNotes())
    assert experience_of(plan).policy_versions.tolist() == [step - step % 2 for step in range(40)]


def test_the_same_seed_gives_the_same_run_bit_for_bit(plan: RunPlan) -> None:
    first = run_online(plan, online_config(), OnlineNotes())
    again = run_online(elsewhere(plan, "again"), online_config(), OnlineNotes())
    other = run_online(elsewhere(plan, "other"), online_config(seed=1), OnlineNotes())
    assert_equal(tensors_of(first), tensors_of(again))
    differences = [not torch.equal(value, other.agent.tensors()[name]) for name, value in tensors_of(first).items()]
    assert sum(differences) > len(differences) / 2


@pytest.mark.parametrize(
    "changes", [{}, {"online_fraction": 0.5}, {"without_offline_data": True, "num_initial_env_steps": 4}]
)
@pytest.mark.parametrize("update_count_before", [10, 30])
def test_a_run_resumed_from_any_checkpoint_ends_as_one_that_was_not(
    plan: RunPlan, changes: dict[str, Any], update_count_before: int
) -> None:
    config = online_config(**changes)
    plan = replace(plan, config=replace(plan.config, num_checkpoints_to_keep=9))
    whole, whole_notes = run_online(plan, config, OnlineNotes()), experience_of(plan)
    updates = checkpoint.run_folder.checkpoint_updates(plan.run_folder)
    chosen = [update for update in updates if update <= update_count_before][-1]
    resumed = run_online(plan, config, OnlineNotes(), checkpoint.load(plan.run_folder, chosen))
    assert_equal(tensors_of(whole), tensors_of(resumed))
    for name, values in vars(experience_of(plan)).items():
        np.testing.assert_array_equal(values, getattr(whole_notes, name), err_msg=name)


@pytest.mark.parametrize("num_updates", [0, 6, 20])
def test_a_run_that_is_stopped_anywhere_ends_as_one_that_was_not(plan: RunPlan, num_updates: int) -> None:
    """Before its first step, between two checkpoints, and where one was just sent to be evaluated."""
    whole = run_online(elsewhere(plan, "whole"), online_config(), OnlineNotes())
    run_online(plan, online_config(), OnlineNotes(), num_updates_before_stop=num_updates)
    saved = checkpoint.load(plan.run_folder, num_updates)
    assert saved.is_to_be_evaluated == (num_updates in (0, 20))
    resumed = run_online(plan, online_config(), OnlineNotes(), saved)
    assert_equal(tensors_of(whole), tensors_of(resumed))
    assert_equal_experience(plan, elsewhere(plan, "whole"))


def test_asynchronously_the_ratio_is_kept_within_the_lead_and_exact_at_the_end(plan: RunPlan) -> None:
    notes = OnlineNotes()
    config = online_config(mode="asynchronous", steps_per_block=2, num_env_steps=80)
    learner = run_online(plan, config, notes)
    assert learner.agent.update_count == 80
    assert len(experience_of(plan)) == 80
    for step, point in notes.points.items():
        assert point["online/num_updates"] == step
    assert notes.points[80]["online/max_staleness"] <= 2 * 2 * 2


def test_what_is_too_stale_is_left_out_counted_and_collected_anew(plan: RunPlan) -> None:
    notes = OnlineNotes()
    config = online_config(mode="asynchronous", steps_per_block=2, max_staleness=1)
    learner = run_online(plan, config, notes)
    last = notes.points[40]
    assert last["online/max_staleness"] <= 1
    assert len(experience_of(plan)) == 40
    assert learner.agent.update_count == 40


def test_nothing_is_learned_before_the_initial_steps(plan: RunPlan) -> None:
    notes = OnlineNotes()
    learner = run_online(plan, online_config(num_initial_env_steps=20, eval_interval_env_steps=10), notes)
    assert learner.agent.update_count == 20
    assert [point["online/num_updates"] for _, point in sorted(notes.points.items())] == [0, 0, 10, 20]


def test_evaluations_are_asked_for_at_the_start_at_every_interval_and_at_the_end(plan: RunPlan) -> None:
    plan = replace(plan, config=replace(plan.config, num_checkpoints_to_keep=9))
    run_online(plan, online_config(num_env_steps=50), OnlineNotes())
    states = [
        checkpoint.read_state(checkpoint.run_folder.checkpoint_folder(plan.run_folder, update))
        for update in checkpoint.run_folder.checkpoint_updates(plan.run_folder)
    ]
    assert [state.step for state in states if state.is_to_be_evaluated] == [0, 20, 40, 50]


def test_below_the_floor_the_run_stops_before_another_step(plan: RunPlan) -> None:
    notes = OnlineNotes(returns=[5.0, 3.0, 1.0])
    learner = run_online(plan, online_config(floor=2.0, num_env_steps=100), notes)
    assert learner.agent.update_count == 40
    assert len(experience_of(plan)) == 40
    assert "below the floor" in notes.warnings[-1]


def test_no_step_is_made_where_the_first_policy_is_below_the_floor(plan: RunPlan) -> None:
    learner = run_online(plan, online_config(floor=2.0), OnlineNotes(returns=[1.0]))
    assert learner.agent.update_count == 0
    assert not list(read_experience(plan.run_folder))


def test_each_learner_takes_every_second_row_whatever_the_blocks() -> None:
    rows, versions = np.arange(7, dtype=np.float32)[:, None], np.arange(7)
    for rank, expected in ((0, [0, 2, 4, 6]), (1, [1, 3, 5])):
        share = Share(rank, 2, ReplayRing(8, 1))
        for block in (slice(0, 3), slice(3, 3), slice(3, 4), slice(4, 7)):
            share.add(rows[block], versions[block])
        assert share.ring.rows[: len(share.ring), 0].tolist() == expected


def test_a_ring_has_room_for_the_whole_run_unless_told_otherwise() -> None:
    assert ring_capacity(online_config()) >= 40
    assert ring_capacity(online_config(replay_capacity=9, num_learners=2)) == 5
