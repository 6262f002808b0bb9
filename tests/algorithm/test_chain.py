"""A chain whose values are known in closed form: what the expectile means, learned by the agent itself.

    state 0 --right--> 1 --right--> 2 --right--> end, reward 1         left, from anywhere: end, reward 0

The behaviour goes right (+0.5) or left (-0.5) with equal chance. The tau-expectile of {Q(right), Q(left) = 0} is
tau Q(right), so V(2) = tau, V(1) = tau discount V(2), V(0) = tau discount V(1): for tau = 0.5 the behaviour's own
values, towards 1 those of the best action in the data.
"""

from __future__ import annotations

import pytest
import torch

from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import IQLConfig, Population
from iql_ray.experience import Spaces, TransitionBatch
from tests.algorithm.plain_iql import forward, layers_of

DISCOUNT = 0.9
EXPECTILES = (0.5, 0.95)
STATES = torch.eye(3)


def chain() -> TransitionBatch:
    """All six transitions: right from 0, 1, 2, then left from 0, 1, 2."""
    return TransitionBatch(
        observations=torch.cat([STATES, STATES]),
        actions=torch.tensor([[0.5]] * 3 + [[-0.5]] * 3),
        rewards=torch.tensor([0.0, 0, 1, 0, 0, 0]),
        next_observations=torch.cat([STATES[[1, 2, 0]], STATES]),
        terminations=torch.tensor([0.0, 0, 1, 1, 1, 1]),
    )


@pytest.fixture(scope="module")
def agent() -> IQLAgent:
    spaces = Spaces(observation_dim=3, action_dim=1, action_low=(-1.0,), action_high=(1.0,))
    config = IQLConfig(discount=DISCOUNT, hidden_sizes=(32, 32), learning_rate=5e-3, target_update_rate=0.2)
    population = Population(seeds=(0,), expectiles=EXPECTILES, inverse_temperatures=(0.0, 10.0))
    agent = IQLAgent(config, spaces, population=population, num_updates=500)
    for _ in range(500):
        agent.update(chain())
    return agent


@pytest.mark.parametrize("critic", [0, 1])
def test_values_are_the_expectiles_of_the_chain(agent: IQLAgent, critic: int):
    values = forward(layers_of(agent.tensors(), "value", critic), STATES).squeeze(-1).tolist()
    tau = EXPECTILES[critic]
    expected = [tau**3 * DISCOUNT**2, tau**2 * DISCOUNT, tau]
    assert values == pytest.approx(expected, abs=0.02)


def test_a_high_expectile_comes_near_the_best_in_the_data(agent: IQLAgent):
    values = forward(layers_of(agent.tensors(), "value", 1), STATES).squeeze(-1).tolist()
    best = [DISCOUNT**2, DISCOUNT, 1.0]
    assert all(0.8 * there < value < there for value, there in zip(values, best, strict=True))


def test_the_cloned_policy_averages_and_the_weighted_one_goes_right(agent: IQLAgent):
    cloned, weighted = (
        forward(layers_of(agent.tensors(), "policy", index), STATES).tanh().squeeze(-1).tolist() for index in (2, 3)
    )
    assert cloned == pytest.approx([0.0] * 3, abs=0.02)
    assert weighted == pytest.approx([0.5] * 3, abs=0.02)
