"""A run's beginning: what a resumed run is configured as, and what is refused before anything is spent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from iql_ray import config as config_io
from iql_ray import run_folder
from iql_ray.data.prepared import read_manifest
from iql_ray.data.transforms import TransformConfig
from iql_ray.distributed import training
from iql_ray.distributed.checking import check, resumed_config
from iql_ray.distributed.learner import train
from iql_ray.distributed.train_config import TrainConfig
from tests.data.examples import prepare_here, write_npz
from tests.distributed.examples import (
    Notes,
    different,
    final_tensors,
    learner_of,
    plan_of,
    tiny_columns,
    tiny_dataset,
    train_config,
)
from tests.distributed.in_step import trained_in_step
from tests.tracking.examples import new_storage


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tiny_dataset(tmp_path)


@pytest.fixture
def run(dataset: Path, tmp_path: Path) -> Path:
    """An interrupted run's folder with its configuration alone."""
    folder = tmp_path / "runs" / "r1"
    folder.mkdir(parents=True)
    config_io.save(train_config(dataset, seed=7, storage="elsewhere"), folder / "config.json")
    return folder


def test_a_resumed_run_has_its_own_configuration_and_the_storage_that_was_said(run: Path):
    asked = TrainConfig(resume="r1", storage=str(run.parent))
    resumed = resumed_config(asked, run)
    assert (resumed.seed, resumed.num_updates, resumed.agent.hidden_sizes) == (7, 20, (8, 8))
    assert (resumed.storage, resumed.tracking_uri) == (str(run.parent), None)


def test_a_resumed_runs_record_may_go_elsewhere(run: Path):
    asked = TrainConfig(resume="r1", storage=str(run.parent), tracking_uri="sqlite:////tmp/other.db")
    assert resumed_config(asked, run).tracking_uri == "sqlite:////tmp/other.db"


def test_a_resumed_run_may_be_placed_anew(run: Path):
    asked = TrainConfig(resume="r1", storage=str(run.parent), learner_resources=("iql_learner=0.5",), dry_run=True)
    resumed = resumed_config(asked, run)
    assert (resumed.learner_resources, resumed.rollout_resources) == (("iql_learner=0.5",), ())
    assert (resumed.seed, resumed.dry_run) == (7, True)


def test_a_checked_resume_knows_its_folder_and_a_new_run_has_none(run: Path, dataset: Path):
    assert check(TrainConfig(resume="r1", storage=str(run.parent))).resumed_folder == run
    assert check(train_config(dataset)).resumed_folder is None


def test_a_resume_without_a_checkpoint_begins_at_the_beginning(run: Path, dataset: Path):
    """The driver died before the first one was there."""
    checked = check(TrainConfig(resume="r1", storage=str(run.parent)))
    assert checked.manifest == read_manifest(dataset)


def test_transforms_are_fitted_to_the_dataset_before_ray_starts(dataset: Path):
    checked = check(train_config(dataset, transforms=TransformConfig(normalize_observations=True)))
    assert checked.transforms.observation_mean == checked.manifest.columns["observations"].mean


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({}, "fqe"),
        ({"env": "E-v0"}, "rollouts"),
        ({"env": "E-v0", "eval_method": "fqe"}, "fqe"),
        ({"eval_method": "none"}, None),
        ({"seeds": (1, 2)}, None),
    ],
)
def test_how_checkpoints_are_evaluated_follows_from_what_there_is(settings: dict, method: str | None):
    assert TrainConfig(dataset="d", **settings).evaluation_method == method


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eval_method": "rollouts"}, "needs an environment; give --env, or use --eval-method fqe"),
        ({"eval_method": "none", "env": "E-v0"}, "env = E-v0 would not be used"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        TrainConfig(dataset="d", **settings)


def one_episode(folder: Path) -> Path:
    """Ten steps."""
    prepare_here(write_npz(folder / "one.npz", tiny_columns(10)), folder / "one")
    return folder / "one"


def test_a_log_of_one_episode_is_trained_on_and_the_last_checkpoint_handed_on(tmp_path: Path):
    checked = check(train_config(one_episode(tmp_path)))
    assert checked.config.evaluation_method is None
    (warning,) = checked.warnings
    assert "has 1 episode, too few to judge checkpoints by" in warning


def test_a_log_of_one_episode_is_refused_where_it_is_asked_to_judge(tmp_path: Path):
    with pytest.raises(ValueError, match=r"has 1 episode; .* needs at least 2; use --eval-method none"):
        check(train_config(one_episode(tmp_path), eval_method="fqe"))


def test_two_episodes_are_enough_to_judge_by(dataset: Path):
    checked = check(train_config(dataset))
    assert (checked.config.evaluation_method, checked.warnings) == ("fqe", ())


def test_without_an_environment_the_checkpoint_of_the_highest_fitted_value_is_handed_on(
    ray_session: None, dataset: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    """Twenty updates, kept at 0, 10 and 20; the verdict's warnings are said, and are in the result."""
    said: list[str] = []
    config = train_config(dataset, storage=str(new_storage(tmp_path, tmp_path_factory)))
    result = training.train(check(config), lambda progress: said.extend(progress.messages))
    evaluations = run_folder.read_evaluations(Path(result["run_folder"]))
    assert list(evaluations) == [0, 10, 20]
    best = max(evaluations, key=lambda update: evaluations[update]["value"])
    assert (result["model_selected_by"], result["model_update"]) == ("fqe", best)
    assert (result["value"], result["value_ci"]) == (evaluations[best]["value"], evaluations[best]["value_ci"])
    assert {each["message"] for each in result["warnings"]} <= set(said)
    assert "few-held-out-episodes" in [each["kind"] for each in result["warnings"]]


def test_where_nothing_was_evaluated_the_last_checkpoint_is_handed_on(dataset: Path, tmp_path: Path):
    config = train_config(dataset, eval_method="none")
    learner = learner_of(plan_of(config, tmp_path / "run"))
    train(learner, learner.sampler, Notes())
    model = training._model(check(config), tmp_path / "run", {})
    assert model is not None
    assert (model.update_count, model.tags["checkpoint"], model.tags["selected_by"]) == (20, "last", "last")
    assert training._evaluation_of(tmp_path / "run", model) == {}


def test_more_learners_than_the_cluster_has_room_for_are_refused_before_anything_is_written(
    ray_session: None, dataset: Path, tmp_path: Path
):
    config = train_config(dataset, num_learners=8, storage=str(tmp_path / "runs"))
    with pytest.raises(ValueError, match=r"8 learners of 1 CPUs need more than the 4 CPUs"):
        training.train(check(config))
    assert not (tmp_path / "runs").exists()


def test_learners_in_step_on_threads_are_the_loop_itself(dataset: Path, tmp_path: Path):
    """What the resume tests compare with: one learner in step is the loop, two differ from it."""
    config = train_config(dataset)
    learner = learner_of(plan_of(config, tmp_path / "loop"))
    train(learner, learner.sampler, Notes())
    alone = trained_in_step(config, tmp_path / "alone")
    assert different(alone, final_tensors(tmp_path / "loop", 20)) == []
    assert different(trained_in_step(replace(config, num_learners=2), tmp_path / "two"), alone) != []
