"""A population gives, member by member, what single agents give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import IQLConfig, Population
from iql_ray.algorithm.update_rule import NUM_CRITICS
from iql_ray.experience import TransitionBatch
from tests.algorithm.plain_iql import SPACES, random_batch

GRID = Population(seeds=(0, 7), expectiles=(0.6, 0.9), inverse_temperatures=(0.0, 1.0, 5.0))
SMALL = IQLConfig(hidden_sizes=(8, 8), learning_rate=1e-2, target_update_rate=0.1)
NUM_UPDATES = 6
FIELDS = ("observations", "actions", "rewards", "next_observations", "terminations")


def trained(config: IQLConfig, batches: list[TransitionBatch], seed: int = 0, population: Population | None = None):
    agent = IQLAgent(config, SPACES, seed=seed, population=population, num_updates=10, dtype=torch.float64)
    for batch in batches:
        agent.update(batch)
    return agent


def shared_batches() -> list[TransitionBatch]:
    return [random_batch(index) for index in range(NUM_UPDATES)]


def own_batches(seed_index: int) -> list[TransitionBatch]:
    return [random_batch(100 * seed_index + index) for index in range(NUM_UPDATES)]


def stacked_batches() -> list[TransitionBatch]:
    """One batch per seed, along a leading axis."""
    return [
        TransitionBatch(**{name: torch.stack([getattr(each, name) for each in pair]) for name in FIELDS})
        for pair in zip(own_batches(0), own_batches(1), strict=True)
    ]


def rows_of_member(tensors: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """The parameters of one policy of the grid and of the critic that it hangs on, as a single agent has them."""
    critic = index // len(GRID.inverse_temperatures)
    rows = {
        "value": slice(critic, critic + 1),
        "policy": slice(index, index + 1),
        "critic": slice(NUM_CRITICS * critic, NUM_CRITICS * (critic + 1)),
        "target_critic": slice(NUM_CRITICS * critic, NUM_CRITICS * (critic + 1)),
    }
    return {name: value[rows[name.split(".")[0]]] for name, value in tensors.items() if name.split(".")[0] in rows}


@pytest.mark.parametrize("dropout_rate", [0.0, 0.4])
@pytest.mark.parametrize("has_batch_per_seed", [False, True])
def test_members_are_what_single_agents_are(dropout_rate: float, has_batch_per_seed: bool):
    config = replace(SMALL, dropout_rate=dropout_rate)
    batches = stacked_batches() if has_batch_per_seed else shared_batches()
    tensors = trained(config, batches, population=GRID).tensors()
    for index, member in enumerate(GRID.members()):
        own = replace(config, expectile=member.expectile, inverse_temperature=member.inverse_temperature)
        batches = own_batches(GRID.seeds.index(member.seed)) if has_batch_per_seed else shared_batches()
        alone = trained(own, batches, seed=member.seed).tensors()
        for name, value in rows_of_member(tensors, index).items():
            torch.testing.assert_close(value, alone[name], rtol=1e-9, atol=1e-11, msg=f"{name} of {member}")


def test_there_is_one_critic_for_each_seed_and_expectile():
    tensors = trained(SMALL, [], population=GRID).tensors()
    assert tensors["value.0.weight"].shape[0] == 4
    assert tensors["critic.0.weight"].shape[0] == 4 * NUM_CRITICS
    assert tensors["policy.0.weight"].shape[0] == 12


def test_metrics_are_one_for_each_critic_or_each_policy():
    agent = trained(SMALL, [], population=GRID)
    shapes = {name: tuple(value.shape) for name, value in agent.update(random_batch(0)).items()}
    assert shapes["value_loss"] == shapes["critic_loss"] == (4,)
    assert shapes["policy_loss"] == (12,)


def test_each_member_hands_out_its_own_policy():
    agent = trained(SMALL, shared_batches(), population=GRID)
    weights = [agent.policy_weights(index)["mean.weight"] for index in range(GRID.num_policies)]
    assert torch.equal(weights[5], agent.tensors()["policy.2.weight"][5].float())
    assert not torch.equal(weights[0], weights[1])
