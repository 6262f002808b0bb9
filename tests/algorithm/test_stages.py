"""Critics learned alone, policies extracted from them later, and members that leave their population."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import IQLConfig, Population
from tests.algorithm.plain_iql import SPACES, random_batch

SMALL = IQLConfig(hidden_sizes=(8, 8), learning_rate=1e-2, target_update_rate=0.1, dropout_rate=0.3)
GRID = Population(seeds=(0, 7), expectiles=(0.6, 0.9), inverse_temperatures=(0.0, 1.0, 5.0))


def agent_of(population: Population = GRID, **settings: Any) -> IQLAgent:
    return IQLAgent(SMALL, SPACES, population=population, num_updates=20, dtype=torch.float64, **settings)


def update(agent: IQLAgent, *indices: int) -> IQLAgent:
    for index in indices:
        agent.update(random_batch(index))
    return agent


def of(agent: IQLAgent, *networks: str) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in agent.tensors().items() if name.split(".")[0] in networks}


def is_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_critics_alone_are_what_they_are_beside_policies():
    together, alone = update(agent_of(), 1, 2, 3), update(agent_of(learns="critics"), 1, 2, 3)
    assert is_equal(of(together, "value", "critic", "target_critic"), of(alone, "value", "critic", "target_critic"))
    assert is_equal(of(alone, "policy"), of(agent_of(), "policy")), "and the policies have not moved"


def test_extraction_moves_policies_alone():
    agent = agent_of(learns="policies")
    critics, policies = of(agent, "value", "critic", "target_critic"), of(agent, "policy")
    update(agent, 1, 2)
    assert is_equal(of(agent, "value", "critic", "target_critic"), critics)
    assert not is_equal(of(agent, "policy"), policies)


def test_a_policy_is_extracted_along_the_advantages_of_its_critic_by_weights_that_grow():
    critics = update(agent_of(learns="critics"), *range(5))
    extracted = agent_of(learns="policies")
    extracted.adopt(critics, critics_alone=True)
    assert extracted.update_count == 0, "its own updates, not those of its critics"
    batch = random_batch(9)
    metrics = extracted.update(batch)
    inputs = torch.cat([batch.observations, batch.actions], -1).expand(8, -1, -1)
    target_values = critics.networks.target(inputs).squeeze(-1).unflatten(0, (4, 2)).amin(1)
    advantages = target_values - critics.values(batch.observations)
    torch.testing.assert_close(metrics["advantage"], advantages.mean(-1))
    torch.testing.assert_close(metrics["advantage_weight"][2], weights_of(5.0 / 20, advantages))
    update(extracted, *range(18))
    for _ in range(2):  # the last of its updates, and one beyond
        torch.testing.assert_close(extracted.update(batch)["advantage_weight"][2], weights_of(5.0, advantages))


def weights_of(inverse_temperature: float, advantages: torch.Tensor) -> torch.Tensor:
    """The mean over the first critic's batch."""
    return torch.exp(inverse_temperature * advantages[0]).clamp(max=100.0).mean()


@pytest.mark.parametrize(
    "kept",
    [
        Population(seeds=(0, 7), expectiles=(0.9,), inverse_temperatures=(5.0, 1.0)),
        Population(seeds=(7,), expectiles=(0.6, 0.9), inverse_temperatures=(0.0,)),
        Population(seeds=(7,), expectiles=(0.9,), inverse_temperatures=(5.0,)),
    ],
)
def test_members_that_leave_their_population_go_on_as_they_would_have_in_it(kept: Population):
    whole = update(agent_of(), 1, 2, 3)
    part = agent_of(kept)
    part.adopt(whole)
    update(whole, 4, 5)
    update(part, 4, 5)
    assert part.update_count == 5
    for index, member in enumerate(kept.members()):
        there = GRID.members().index(member)
        for name, value in part.policy_weights(index).items():
            torch.testing.assert_close(value, whole.policy_weights(there)[name])
    values = dict(
        zip([(each.seed, each.expectile) for each in GRID.members()[::3]], whole.values(observations()), strict=True)
    )
    own = [(each.seed, each.expectile) for each in kept.members()[:: len(kept.inverse_temperatures)]]
    for key, value in zip(own, part.values(observations()), strict=True):
        torch.testing.assert_close(value, values[key])


def observations() -> torch.Tensor:
    return random_batch(8).observations


def test_a_member_that_is_not_there_cannot_be_taken_over():
    stranger = replace(GRID, expectiles=(0.6, 0.8))
    with pytest.raises(ValueError, match=r"no member .*expectile=0\.8.* to take over; there are .*0\.9"):
        agent_of(stranger).adopt(agent_of())
