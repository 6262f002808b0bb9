"""What trained as a grid is read back member by member, without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from iql_ray import config as config_io
from iql_ray import run_folder
from iql_ray.algorithm.iql_config import Member
from iql_ray.data.transforms import TransformConfig
from iql_ray.distributed import learner as learner_module
from iql_ray.distributed.learner import Learner, train
from iql_ray.distributed.members import load_agent, load_member
from tests.distributed.examples import Notes, learner_of, plan_of, tiny_dataset, train_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Learner]:
    """A run of two seeds by two inverse temperatures, ten updates, observations normalised."""
    root = tmp_path_factory.mktemp("members")
    config = train_config(
        tiny_dataset(root),
        num_updates=10,
        seeds=(3, 4),
        inverse_temperatures=(0.0, 5.0),
        transforms=TransformConfig(normalize_observations=True),
    )
    folder = root / "runs" / "grid"
    learner = learner_of(plan_of(config, folder))
    train(learner, learner.sampler, Notes())
    config_io.save(config, folder / run_folder.CONFIG_FILE)
    return folder, learner


def test_the_agent_comes_back_whole(trained: tuple[Path, Learner]):
    folder, learner = trained
    agent, transforms = load_agent(folder)
    assert transforms == learner.plan.transforms
    assert agent.update_count == 10
    for name, value in learner.agent.tensors().items():
        assert torch.equal(agent.tensors()[name], value), name


@pytest.mark.parametrize(
    ("index", "member"), [(0, Member(3, 0.7, 0.0)), (1, Member(3, 0.7, 5.0)), (3, Member(4, 0.7, 5.0))]
)
def test_a_member_acts_as_it_was_trained(trained: tuple[Path, Learner], index: int, member: Member):
    folder, learner = trained
    observations = np.random.default_rng(0).normal(size=(5, 2))
    expected = learner_module.export_policy(
        learner.agent.policy_weights(index), learner.plan.spaces, learner.plan.transforms
    )
    policy, found, num_updates = load_member(folder, "last", index)
    assert (found, num_updates) == (member, 10)
    assert np.array_equal(policy.act(observations), expected.act(observations))


def test_the_members_of_a_run_differ(trained: tuple[Path, Learner]):
    actions = [load_member(trained[0], "last", index)[0].act(np.ones((1, 2))).item() for index in range(4)]
    assert len(set(actions)) == 4


def test_a_member_that_there_is_not_is_refused_with_those_there_are(trained: tuple[Path, Learner]):
    with pytest.raises(ValueError, match=r"has no member 4; it has 0: seed 3, expectile 0.7, inverse_temperature 0.0"):
        load_member(trained[0], "last", 4)
