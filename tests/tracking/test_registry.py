"""A policy is registered once, with its run, and found again by every kind of URI."""

from __future__ import annotations

from pathlib import Path

import pytest

from iql_ray.tracking.registry import download_policy
from iql_ray.tracking.store import default_tracking_uri, open_client
from tests.tracking.examples import new_storage, save_small_policy, start


class Registered:
    """A run that registered two policies as `pen`, and logged a third without a name."""

    def __init__(self, storage: Path) -> None:
        logger = start(storage)
        self.folders = [save_small_policy(logger.folder / "policies" / str(seed), seed) for seed in (1, 2, 3)]
        for step, folder in enumerate(self.folders[:2], start=1):
            metrics = {"return_mean": 10.0 * step, "return_ci": [1.0, 2.0], "is_good": True}
            logger.log_model(folder, step=step, register_as="pen", metrics=metrics, tags={"dataset.sha256": "abc"})
        logger.log_model(self.folders[2], step=3)
        assert logger.close()
        self.run_id = logger.run_id
        self.by_policy = logger.registered()
        self.uri = default_tracking_uri(storage)
        self.client = open_client(self.uri)

    def fetch(self, uri: str) -> bytes:
        return (download_policy(uri, self.uri) / "weights.safetensors").read_bytes()

    def weights(self, index: int) -> bytes:
        return (self.folders[index] / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    return Registered(new_storage(tmp_path_factory.mktemp("registry"), tmp_path_factory))


def test_a_version_knows_its_run_its_score_and_its_data(registered):
    version = registered.client.get_model_version("pen", "2")
    assert version.run_id == registered.run_id
    assert version.tags["return_mean"] == "20"
    assert version.tags["num_updates"] == "2"
    assert version.tags["dataset.sha256"] == "abc"
    assert "return_ci" not in version.tags
    assert "is_good" not in version.tags
    assert not version.aliases


def test_the_run_tells_what_its_policies_became(registered):
    assert registered.by_policy["policies/1"]["model_uri"] == "models:/pen/1"
    assert registered.by_policy["policies/2"]["version"] == "2"
    assert registered.by_policy["policies/3"]["version"] is None


def test_a_models_metrics_are_linked_to_it(registered):
    model = registered.client.get_logged_model(registered.by_policy["policies/1"]["model_id"])
    assert {metric.key: metric.value for metric in model.metrics} == {"return_mean": 10.0}
    assert model.source_run_id == registered.run_id
    assert model.status.value == "READY"


def test_a_policy_is_fetched_by_version_and_by_alias(registered):
    registered.client.set_registered_model_alias("pen", "champion", "1")
    assert registered.fetch("models:/pen/2") == registered.weights(1)
    assert registered.fetch("models:/pen@champion") == registered.weights(0)


def test_a_policy_is_fetched_by_model_id_and_the_newest_one_by_run(registered):
    model_id = registered.by_policy["policies/1"]["model_id"]
    assert registered.fetch(f"models:/{model_id}") == registered.weights(0)
    assert registered.fetch(f"runs:/{registered.run_id}/policy") == registered.weights(2)


def test_a_policy_folder_is_returned_as_it_is(registered):
    assert download_policy(str(registered.folders[0]), "sqlite:////nowhere/mlflow.db") == registered.folders[0]


def test_a_policy_can_be_fetched_to_a_chosen_place(registered, tmp_path):
    assert download_policy("models:/pen/1", registered.uri, tmp_path / "here").is_relative_to(tmp_path / "here")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/pen/9", "'pen' has the versions 1, 2 and the aliases"),
        ("models:/pen@nobody", "'pen' has the versions 1, 2 and the aliases"),
        ("models:/pencil/1", "no version of 'pencil' is registered.*pen"),
        ("models:/m-00000000000000000000000000000000", "does not exist"),
        ("models:/pen", "expected models:/NAME/VERSION"),
        ("runs:/00000000000000000000000000000000/policy", "no such run"),
        ("runs:/RUN_ID/critic", "has logged no model 'critic'"),
        ("s3://bucket/policy", "not understood"),
        ("nowhere", "holds no policy"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(registered, uri, message):
    with pytest.raises(ValueError, match=message):
        download_policy(uri.replace("RUN_ID", registered.run_id), registered.uri)


def test_a_missing_store_is_refused_and_not_created(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        download_policy("models:/pen/1", default_tracking_uri(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a@b", "it's"])
def test_a_name_that_no_uri_can_hold_is_refused(registered, tmp_path, tmp_path_factory, name):
    logger = start(new_storage(tmp_path, tmp_path_factory))
    folder = save_small_policy(logger.folder / "policies" / "1")
    with pytest.raises(ValueError, match="model name"):
        logger.log_model(folder, step=1, register_as=name)
    assert logger.close()
