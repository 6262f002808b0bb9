"""Population based training without Ray: what a trial takes over, and what is decided whatever comes between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from iql_ray import checkpoint, run_folder
from iql_ray import config as config_io
from iql_ray.distributed.learner import train
from iql_ray.distributed.search_generations import (
    first_undecided,
    read_generation,
    schedules,
    with_settings,
    write_generation,
)
from iql_ray.distributed.search_plan import planned_trials
from iql_ray.distributed.search_trial import HISTORY_FILE, TrialPlan, TrialRun
from iql_ray.evaluation.schedules import Change
from tests.distributed.examples import (
    Notes,
    all_rows,
    different,
    learner_of,
    plan_of,
    search_config,
    tiny_dataset,
    train_config,
)
from tests.distributed.test_search_trial import Crash, FirstAction, crashing, finished

NAMES = ("expectile", "inverse_temperature", "agent.learning_rate")
TAKEN = {"expectile": 0.6, "inverse_temperature": 5.0, "agent.learning_rate": 0.003}
CHANGE = Change(num_updates=10, source="good", settings=TAKEN)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


def plan_named(dataset: Path, folder: Path, name: str, expectile: float) -> TrialPlan:
    config = train_config(
        dataset, seeds=(3, 4), expectiles=(expectile,), inverse_temperatures=(2.0,), checkpoint_interval_updates=100
    )
    run = plan_of(config, folder / "trials" / name)
    return TrialPlan(run=run, search_folder=folder, generations=(5, 10, 15), setting_names=NAMES)


def trial_of(plan: TrialPlan, judge: Any = None) -> TrialRun:
    rows = torch.from_numpy(all_rows(Path(plan.run.config.dataset), plan.run.transforms))
    return TrialRun(plan, rows, judge or FirstAction())


def met(plan: TrialPlan, num_updates: int) -> TrialRun:
    """The trial where it waits for what is decided after so many updates."""
    trial = trial_of(plan)
    while not trial.is_waiting:
        trial.advance()
    assert trial.state()["num_updates"] == num_updates
    return trial


@pytest.fixture
def plans(dataset: Path, tmp_path: Path) -> tuple[TrialPlan, TrialPlan]:
    """Of two trials that stand at the second generation, where the poor one is to take the good one over."""
    both = plan_named(dataset, tmp_path, "poor", 0.8), plan_named(dataset, tmp_path, "good", 0.7)
    for num_updates, changes in ((5, {}), (10, {"poor": CHANGE})):
        for plan in both:
            met(plan, num_updates)
        write_generation(tmp_path, num_updates, changes)
    return both


def test_a_trial_waits_until_it_is_decided(dataset: Path, tmp_path: Path):
    trial = met(plan_named(dataset, tmp_path, "one", 0.8), 5)
    before = trial.state()
    assert trial.advance() == before
    assert first_undecided(tmp_path, (5, 10)) == 5
    write_generation(tmp_path, 5, {})
    assert (read_generation(tmp_path, 5), first_undecided(tmp_path, (5, 10))) == ({}, 10)
    assert trial.advance()["num_updates"] == 10
    write_generation(tmp_path, 10, {})
    assert first_undecided(tmp_path, (5, 10)) is None


def ended(plans: tuple[TrialPlan, TrialPlan], folder: Path) -> None:
    for plan in plans:
        met(plan, 15)
    write_generation(folder, 15, {})
    for plan in plans:
        finished(trial_of(plan))


def test_it_goes_on_from_the_other_ones_agents_with_the_settings_decided(
    plans: tuple[TrialPlan, TrialPlan], tmp_path: Path
):
    poor, good = plans
    there = checkpoint.load(good.run.run_folder, 10)
    ended(plans, tmp_path)
    config = with_settings(poor.run.config, TAKEN)
    assert (config.agent.learning_rate, config.population.expectiles) == (0.003, (0.6,))
    alone = learner_of(replace(poor.run, config=config, run_folder=tmp_path / "alone"))
    alone.restore(replace(there, configuration=config_io.to_dict(config)))
    train(alone, alone.sampler, Notes())
    assert different(checkpoint.load(poor.run.run_folder, 20).tensors, alone.agent.tensors()) == []
    assert different(checkpoint.load(good.run.run_folder, 20).tensors, alone.agent.tensors()) != []


def test_its_history_has_one_name_for_a_member_and_the_settings_of_each_part(
    plans: tuple[TrialPlan, TrialPlan], tmp_path: Path
):
    ended(plans, tmp_path)
    lines = run_folder.read_lines(plans[0].run.run_folder / HISTORY_FILE)
    assert {(each["seed"], each["expectile"]) for line in lines for each in line["members"]} == {(3, 0.8), (4, 0.8)}
    evaluations = {line["num_updates"]: line["settings"] for line in lines if line["kind"] == "evaluation"}
    began = {"expectile": 0.8, "inverse_temperature": 2.0, "agent.learning_rate": 0.01}
    assert evaluations == {5: began, 10: began, 15: TAKEN, 20: TAKEN}


@pytest.mark.parametrize("num_judged", [0, 1, 3])
def test_killed_after_it_took_over_it_ends_as_if_undisturbed(
    plans: tuple[TrialPlan, TrialPlan], tmp_path: Path, num_judged: int
):
    write_generation(tmp_path, 15, {})
    poor, good = plans
    finished(trial_of(good))
    with pytest.raises(Crash):
        finished(trial_of(poor, crashing(num_judged)))
    finished(trial_of(poor))
    interrupted = checkpoint.load(poor.run.run_folder, 20).tensors
    for num_updates in (15, 20):
        folder = run_folder.checkpoint_folder(poor.run.run_folder, num_updates)
        folder.rename(folder.with_name(f"{folder.name}.aside"))
    finished(trial_of(poor))
    assert different(checkpoint.load(poor.run.run_folder, 20).tensors, interrupted) == []


def test_who_is_taken_over_stays_as_it_was_until_the_next_generation(
    plans: tuple[TrialPlan, TrialPlan], tmp_path: Path
):
    _, good = plans
    met(good, 15)
    assert run_folder.checkpoint_updates(good.run.run_folder) == [10, 15]


def test_schedules_are_read_from_what_was_decided(dataset: Path, tmp_path: Path):
    config = search_config(dataset, tmp_path, scheduler="pbt", num_updates=20, perturbation_interval_updates=5)
    first, second, *_ = planned_trials(config, 1)
    settings = {"expectile": 0.6, "inverse_temperature": 1.0}
    write_generation(tmp_path, 5, {first.name: Change(num_updates=5, source=second.name, settings=settings)})
    found = schedules(config, tmp_path, [first, second])
    assert (config.generations, len(planned_trials(config, 1))) == ((5, 10, 15), 4)
    assert found[first.name].changes == (Change(num_updates=5, source=second.name, settings=settings),)
    assert found[second.name].changes == ()
