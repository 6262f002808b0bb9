"""A run's beginning: what a resumed run is configured as, and what is refused before anything is spent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from iql_ray import config as config_io
from iql_ray.data.prepared import read_manifest
from iql_ray.data.transforms import TransformConfig
from iql_ray.distributed import training
from iql_ray.distributed.checking import check, resumed_config
from iql_ray.distributed.learner import train
from iql_ray.distributed.train_config import TrainConfig
from tests.distributed.examples import Notes, different, final_tensors, learner_of, plan_of, tiny_dataset, train_config
from tests.distributed.in_step import trained_in_step


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
