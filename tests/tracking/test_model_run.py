"""From a registered policy back to its run, and what is refused on the way; a changed policy is not fetched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from iql_ray import checkpoint, run_folder
from iql_ray.tracking.model_run import run_of_model
from iql_ray.tracking.registry import download_policy, log_policy_model
from tests.tracking.examples import small_policy
from tests.tracking.registered import NAME, Registry

UPDATES = 40


@pytest.fixture
def registry(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path, tmp_path_factory)


@pytest.fixture
def run(registry: Registry) -> Path:
    """A run of one checkpoint whose policy is registered as version 1, the champion."""
    run_id = registry.client.create_run(registry.client.create_experiment("runs")).info.run_id
    folder = registry.storage / run_id
    folder.mkdir()
    (folder / run_folder.CONFIG_FILE).write_text("{}")
    registry.client.set_tag(run_id, "iql_ray.run_folder", str(folder))
    state = checkpoint.Checkpoint(update_count=UPDATES, tensors={}, random_states=({},), dataset_digest="")
    saved = checkpoint.save(folder, state, small_policy())
    tags = {"num_updates": str(UPDATES)}
    log_policy_model(registry.client, run_id, saved / "policy", register_as=NAME, tags=tags)
    registry.crown("1")
    return folder


@pytest.mark.parametrize("uri", [f"models:/{NAME}/1", f"models:/{NAME}@champion"])
def test_a_registered_policy_leads_to_its_checkpoint(registry: Registry, run: Path, uri: str):
    found = run_of_model(uri, registry.tracking_uri, registry.storage)
    assert (found.folder, found.num_updates) == (run, UPDATES)


def test_a_run_that_was_moved_is_found_where_runs_are_kept(registry: Registry, run: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere" / run.name
    moved.parent.mkdir()
    shutil.move(run, moved)
    with pytest.raises(ValueError, match="which is not within reach"):
        run_of_model(f"models:/{NAME}/1", registry.tracking_uri, registry.storage)
    assert run_of_model(f"models:/{NAME}/1", registry.tracking_uri, moved.parent).folder == moved


def test_a_checkpoint_that_is_gone_is_named_with_those_there_are(registry: Registry, run: Path):
    shutil.move(run_folder.checkpoint_folder(run, UPDATES), run_folder.checkpoint_folder(run, UPDATES + 1))
    with pytest.raises(ValueError, match=rf"which is gone; there are \[{UPDATES + 1}\]"):
        run_of_model(f"models:/{NAME}/1", registry.tracking_uri, registry.storage)


def test_a_checkpoint_with_another_policy_is_not_gone_on_from(registry: Registry, run: Path):
    small_policy(seed=1).save(run_folder.checkpoint_folder(run, UPDATES) / "policy")
    with pytest.raises(ValueError, match="the files there have changed since"):
        run_of_model(f"models:/{NAME}/1", registry.tracking_uri, registry.storage)


def test_an_unknown_alias_is_refused_with_what_there_is(registry: Registry, run: Path):
    with pytest.raises(ValueError, match="aliases champion"):
        run_of_model(f"models:/{NAME}@best", registry.tracking_uri, registry.storage)


def test_a_policy_that_was_replaced_after_it_was_registered_is_not_fetched(registry: Registry):
    version = registry.register(small_policy())
    assert download_policy(f"models:/{NAME}/{version}", registry.tracking_uri).is_dir()
    files = registry.files_of(version)
    for each in files.iterdir():
        if each.suffix != ".py":
            each.unlink()
    small_policy(seed=1).save(files)
    with pytest.raises(ValueError, match="was changed since it was registered"):
        download_policy(f"models:/{NAME}/{version}", registry.tracking_uri)
