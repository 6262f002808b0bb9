"""docs/serving.md: loading and exporting work as it says, typed word for word; its servers have their own tests."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from iql_ray.policy import Policy
from iql_ray.tracking.registry import log_policy_model
from iql_ray.tracking.store import default_tracking_uri
from pipelines import __main__ as dispatch
from tests.documented import blocks, commands
from tests.evaluation.toys import random_policy
from tests.tracking.examples import client_of, new_storage

PAGE = "serving.md"
POLICY = random_policy(3, 1, bound=2.0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a store whose model `pendulum` has a champion."""
    folder = tmp_path_factory.mktemp("place")
    storage = new_storage(folder, tmp_path_factory)
    client = client_of(storage)
    run_id = client.create_run(client.create_experiment("tests", str(storage / "mlartifacts"))).info.run_id
    (folder / "policy").mkdir()
    POLICY.save(folder / "policy")
    log_policy_model(client, run_id, folder / "policy", register_as="pendulum")
    client.set_registered_model_alias("pendulum", "champion", "1")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("MLFLOW_TRACKING_URI", default_tracking_uri(storage))
        for words in commands(PAGE, "iql-ray export"):
            assert dispatch.main(words[1:]) == 0
        yield folder


def typed(mention: str) -> dict:
    """What the block that mentions this leaves behind."""
    (block,) = [each for each in blocks(PAGE, "python") if mention in each]
    path, names = list(sys.path), {}
    try:
        exec(block, names)
    finally:
        sys.path[:] = path
        sys.modules.pop("policy", None)
    return names


def test_mlflow_loads_and_predicts(place):
    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])  # another test may have set another
    policy = typed("import mlflow")["policy"]
    np.testing.assert_array_equal(policy.predict(np.ones((2, 3))), POLICY.act(np.ones((2, 3))))


def test_the_exported_folder_acts(place):
    np.testing.assert_array_equal(typed("from policy import")["action"], POLICY.act([1.0, 0.0, 0.5]))


def test_the_exported_graph_acts(place):
    np.testing.assert_allclose(typed("import onnxruntime")["actions"], POLICY.act(np.zeros((2, 3))), atol=1e-5)


def test_rllib_runs_an_episode(place):
    assert len(typed("import rl_module_spec")["episode"]) == 200
    assert isinstance(Policy.load(place / "pendulum-policy"), Policy)
