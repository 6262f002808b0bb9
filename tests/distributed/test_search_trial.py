"""A trial of a search without Ray: what its members become, who leaves, and what a crash costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from iql_ray import checkpoint, run_folder
from iql_ray.distributed.learner import train
from iql_ray.distributed.members import load_agent
from iql_ray.distributed.search_rungs import rung_file, who_goes_on
from iql_ray.distributed.search_trial import HISTORY_FILE, TrialPlan, TrialRun
from iql_ray.policy import Policy
from tests.distributed.examples import Notes, all_rows, different, learner_of, plan_of, tiny_dataset, train_config

GRID: dict[str, Any] = {"seeds": (3, 4), "expectiles": (0.8,), "inverse_temperatures": (0.0, 2.0, 5.0)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def plan(dataset: Path, tmp_path: Path) -> TrialPlan:
    run = plan_of(train_config(dataset, **GRID), tmp_path / "trials" / "t")
    return TrialPlan(run=run, search_folder=tmp_path, reduction_factor=3)


class FirstAction:
    """Scores a policy by the first action it takes at the origin; counts how often it was asked."""

    def __init__(self) -> None:
        self.num_asked = 0

    def __call__(self, policy: Policy, is_final: bool) -> dict[str, Any]:
        self.num_asked += 1
        score = float(policy.act(torch.zeros(1, 2).numpy())[0, 0])
        return {"return_mean": score, "return_ci": [score, score]}


def trial_of(plan: TrialPlan, judge: Callable[[Policy, bool], dict[str, Any]] | None = None) -> TrialRun:
    rows = torch.from_numpy(all_rows(Path(plan.run.config.dataset), plan.run.transforms))
    return TrialRun(plan, rows, judge or FirstAction())


def finished(trial: TrialRun) -> TrialRun:
    while not trial.is_done:
        trial.advance()
    return trial


def history(plan: TrialPlan, kind: str) -> list[dict[str, Any]]:
    return [line for line in run_folder.read_lines(plan.run.run_folder / HISTORY_FILE) if line["kind"] == kind]


def test_its_members_are_those_of_an_ordinary_run(plan: TrialPlan, tmp_path: Path):
    finished(trial_of(plan))
    alone = plan_of(plan.run.config, tmp_path / "alone")
    learner = learner_of(alone)
    train(learner, learner.sampler, Notes())
    agent, _ = load_agent(plan.run.run_folder)
    assert different(agent.tensors(), learner.agent.tensors()) == []


def test_every_member_has_curves_and_evaluations_of_its_own(plan: TrialPlan):
    finished(trial_of(plan))
    assert [line["num_updates"] for line in history(plan, "curve")] == [4, 8, 10, 12, 16, 20]
    evaluations = history(plan, "evaluation")
    assert [(line["num_updates"], line["is_final"]) for line in evaluations] == [(10, False), (20, True)]
    for line in (*history(plan, "curve"), *evaluations):
        members = [(each["seed"], each["expectile"], each["inverse_temperature"]) for each in line["members"]]
        assert members == [(seed, 0.8, beta) for seed in (3, 4) for beta in (0.0, 2.0, 5.0)]
    last = history(plan, "curve")[-1]["members"]
    assert last[0]["values"]["train/critic_loss"] == last[2]["values"]["train/critic_loss"], "one critic"
    assert last[0]["values"]["train/critic_loss"] != last[3]["values"]["train/critic_loss"], "another seed's"
    assert last[0]["values"]["train/policy_loss"] != last[2]["values"]["train/policy_loss"]


def test_its_score_is_the_best_configurations_mean_over_seeds(plan: TrialPlan):
    trial = trial_of(plan)
    state = trial.advance()
    scores = [each["result"]["return_mean"] for each in history(plan, "evaluation")[0]["members"]]
    means = [(scores[index] + scores[index + 3]) / 2 for index in range(3)]
    assert state == {
        "num_updates": 10,
        "phase": "policies",
        "score": pytest.approx(max(means)),
        "num_members": 6,
        "messages": [],
    }


def test_a_trial_that_is_stopped_anywhere_ends_as_one_that_was_not(plan: TrialPlan, tmp_path: Path):
    whole = replace(plan, run=plan_of(plan.run.config, tmp_path / "trials" / "whole"))
    finished(trial_of(whole))
    rows = torch.from_numpy(all_rows(Path(plan.run.config.dataset), plan.run.transforms))
    stopped = TrialRun(plan, rows, FirstAction(), is_stop_ordered=lambda: True)
    assert [stopped.advance()["num_updates"] for _ in range(3)] == [1, 2, 3]
    finished(trial_of(plan))
    agent, _ = load_agent(plan.run.run_folder)
    assert different(agent.tensors(), load_agent(whole.run.run_folder)[0].tensors()) == []
    assert [line["num_updates"] for line in history(plan, "evaluation")] == [10, 20]


class Crash(Exception):
    """What a killed process does not raise, but looks like from outside."""


def crashing(after: int) -> Callable[[Policy, bool], dict[str, Any]]:
    """A judge whose process dies at its n-th policy."""
    judge = FirstAction()

    def score(policy: Policy, is_final: bool) -> dict[str, Any]:
        if judge.num_asked >= after:
            raise Crash
        return judge(policy, is_final)

    return score


@pytest.mark.parametrize("kind", ["joint", "after", "rungs"])
@pytest.mark.parametrize("num_judged", [0, 2, 6, 8])
def test_killed_anywhere_it_ends_as_if_undisturbed(plan: TrialPlan, tmp_path: Path, kind: str, num_judged: int):
    changes: dict[str, Any] = {"joint": {}, "after": {"critic_updates": 15}, "rungs": {"rungs": (5, 10)}}[kind]
    plan = replace(plan, **changes)
    other = replace(
        plan, search_folder=tmp_path / "other", run=replace(plan.run, run_folder=tmp_path / "other" / "trials" / "t")
    )
    finished(trial_of(other))
    try:
        finished(trial_of(plan, crashing(num_judged)))
    except Crash:
        finished(trial_of(plan))
    for num_updates in run_folder.checkpoint_updates(other.run.run_folder):
        expected = checkpoint.load(other.run.run_folder, num_updates).tensors
        assert different(checkpoint.load(plan.run.run_folder, num_updates).tensors, expected) == []
    assert history(plan, "evaluation") == history(other, "evaluation")


def test_a_damaged_checkpoint_is_passed_over_and_said_so(plan: TrialPlan, tmp_path: Path):
    plan = replace(plan, run=replace(plan.run, config=replace(plan.run.config, checkpoint_interval_updates=5)))
    other = replace(plan, run=replace(plan.run, run_folder=tmp_path / "trials" / "other"))
    finished(trial_of(other))
    trial = trial_of(plan)
    while trial.state()["num_updates"] < 15:
        trial.advance()
    (run_folder.checkpoint_folder(plan.run.run_folder, 15) / "tensors.safetensors").unlink()
    again = trial_of(plan)
    assert again.state()["num_updates"] == 10
    (message,) = again.state()["messages"]
    assert "000000015" in message
    finished(again)
    expected = checkpoint.load(other.run.run_folder, 20).tensors
    assert different(checkpoint.load(plan.run.run_folder, 20).tensors, expected) == []


def test_what_is_over_is_not_done_again(plan: TrialPlan):
    finished(trial_of(plan))
    judge = FirstAction()
    trial = trial_of(plan, judge)
    assert trial.is_done
    assert judge.num_asked == 0
    assert trial.state()["score"] is not None


def test_configurations_below_a_rung_leave_and_the_others_go_on_as_before(plan: TrialPlan, tmp_path: Path):
    halved = replace(plan, rungs=(10,))
    state = trial_of(halved).advance()
    assert state["num_members"] == 2, "of three configurations, the best third: both of its seeds"
    decided = rung_file(tmp_path, 10, "t").read_text()
    finished(trial_of(halved))
    assert rung_file(tmp_path, 10, "t").read_text() == decided
    last = history(halved, "evaluation")[-1]["members"]
    scores = [each["result"]["return_mean"] for each in history(halved, "evaluation")[0]["members"]]
    means = {beta: scores[index] + scores[index + 3] for index, beta in enumerate(GRID["inverse_temperatures"])}
    (kept,) = {each["inverse_temperature"] for each in last}
    assert kept == max(means, key=lambda beta: means[beta])
    whole = replace(plan, run=replace(plan.run, run_folder=tmp_path / "whole"))
    finished(trial_of(whole))
    expected = {
        each["seed"]: each["result"]["return_mean"]
        for each in history(whole, "evaluation")[-1]["members"]
        if each["inverse_temperature"] == kept
    }
    for each in last:
        assert each["result"]["return_mean"] == pytest.approx(expected[each["seed"]], rel=1e-4)
    assert run_folder.checkpoint_updates(halved.run.run_folder) == [10, 20], "those who left are there still"


def test_a_trial_all_of_whose_configurations_are_poor_ends(plan: TrialPlan, tmp_path: Path):
    who_goes_on(rung_file(tmp_path, 10, "another"), [100.0, 101.0, 102.0, 103.0, 104.0, 105.0], 3)
    trial = trial_of(replace(plan, rungs=(10,)))
    trial.advance()
    assert trial.is_done
    assert trial.state()["num_updates"] == 10


def test_policies_are_extracted_from_critics_that_were_learned_first(plan: TrialPlan):
    finished(trial_of(replace(plan, critic_updates=15)))
    critics, _ = load_agent(plan.run.run_folder / "critics")
    agent, _ = load_agent(plan.run.run_folder)
    assert (critics.update_count, agent.update_count) == (15, 20)
    for name in ("value.0.weight", "critic.1.weight", "target_critic.2.bias"):
        assert torch.equal(agent.tensors()[name], critics.tensors()[name])
    assert {line["phase"] for line in history(plan, "curve")} == {"critics", "policies"}
    assert {len(line["members"]) for line in history(plan, "curve")} == {6}, "its critic's curve is every member's"


def test_more_policies_are_extracted_from_the_critics_of_a_run(plan: TrialPlan, tmp_path: Path):
    finished(trial_of(plan))
    config = replace(plan.run.config, inverse_temperatures=(1.0,), seeds=(4,))
    later = TrialPlan(
        run=replace(plan.run, config=config, run_folder=tmp_path / "later"),
        search_folder=tmp_path,
        critics_from=plan.run.run_folder,
    )
    finished(trial_of(later))
    source, _ = load_agent(plan.run.run_folder)
    agent, _ = load_agent(later.run.run_folder)
    assert torch.equal(agent.tensors()["value.0.weight"][0], source.tensors()["value.0.weight"][1]), "of seed 4"


def test_a_rung_keeps_the_best_share_of_all_that_were_there(tmp_path: Path):
    assert who_goes_on(rung_file(tmp_path, 5, "first"), [1.0, 2.0, 3.0], 3) == [2]
    assert who_goes_on(rung_file(tmp_path, 5, "second"), [0.5, 2.5], 3) == [1], "cutoff of 0.5 1 2 2.5 3 is 2.33"
    assert who_goes_on(rung_file(tmp_path, 5, "third"), [0.0], 3) == []
    assert who_goes_on(rung_file(tmp_path, 5, "third"), [9.0], 3) == [], "what was decided stays"
    assert who_goes_on(rung_file(tmp_path, 9, "third"), [0.0], 3) == [0], "another rung"
    assert who_goes_on(rung_file(tmp_path, 9, "fourth"), [float("nan"), 1.0], 3) == [1], "what has diverged leaves"
