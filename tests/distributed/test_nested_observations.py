"""What was learned from nested observations acts on the environment's own: from a Minari dataset to a policy's file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces

from iql_ray.data.prepared import read_manifest
from iql_ray.policy import Policy
from tests.data.examples import prepare_here
from tests.data.test_sources_minari import NESTED_SPACE, write
from tests.distributed.examples import learner_of, plan_of, train_config


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    write("test/nested-v0", NESTED_SPACE, lengths=(20, 20))
    prepare_here("minari:test/nested-v0", tmp_path / "prepared")
    return tmp_path / "prepared"


def test_a_policy_from_nested_data_takes_the_environments_own_observations(dataset, tmp_path):
    learner_of(plan_of(train_config(dataset), tmp_path / "run")).policy().save(tmp_path)
    policy = Policy.load(tmp_path)
    NESTED_SPACE.seed(1)
    for _ in range(10):
        observation = NESTED_SPACE.sample()
        flat = np.asarray(spaces.flatten(NESTED_SPACE, observation), np.float32)
        np.testing.assert_array_equal(policy.inputs(observation), flat)
        np.testing.assert_array_equal(policy.act(observation), policy.act(flat))


def test_the_manifest_names_the_parts_and_its_digest_does_not_depend_on_them(dataset):
    manifest = read_manifest(dataset)
    parts = {part.keys: (part.shape, part.choices) for part in manifest.spaces.observation_parts}
    assert parts == {
        ("a",): ((2,), ((0, 2), (0, 3))),
        ("b", "x"): ((), ()),
        ("b", "y"): ((2,), ()),
        ("z", 0): ((), ((1, 3),)),
        ("z", 1): ((2, 2), ()),
    }
    values = json.loads((dataset / "manifest.json").read_text())
    del values["spaces"]["observation_parts"]
    (dataset / "manifest.json").write_text(json.dumps(values))  # as it was before there were parts
    assert read_manifest(dataset).digest == manifest.digest
    assert read_manifest(dataset).spaces.observation_parts == ()
