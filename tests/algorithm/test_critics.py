"""Every critic objective learns what its equation says, on states where the answers are short sums.

    state 0 --action 0--> end, reward 0
    state 0 --action 1--> end, reward 4 once in four times, else 0      lucky: mean 1
    state 0 --action 2--> end, reward 2                                 never in the data
    state 1 --action 0--> state 0, reward 0

The data takes actions 0 and 1 equally often in state 0, so that (u, v being Q(0, 0) = 0 and Q(0, 1) = 1):

    implicit   V(0) = tau-expectile of {0, 1} = tau            Q(1, 0) = discount * tau
    sarsa      mean of {0, 1}                                  Q(1, 0) = discount / 2
    single-q   Q(0, 1) = tau-expectile of {4, 0, 0, 0}: above the mean 1
    td         Q(1, 0) = discount * max_a Q(0, a), with Q(0, 2) whatever the network makes up
"""

from __future__ import annotations

import pytest
import torch

from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.critics import check_objectives
from iql_ray.algorithm.iql_config import CriticObjective, IQLConfig, Population
from iql_ray.experience import Spaces, TransitionBatch

DISCOUNT, EXPECTILE = 0.9, 0.8
SPACES = Spaces(observation_dim=2, action_dim=1, num_actions=3)
OBJECTIVES: tuple[CriticObjective, ...] = ("implicit", "sarsa", "single-q", "td")
POPULATION = Population(seeds=(0,), expectiles=(EXPECTILE,) * 4, critics=OBJECTIVES, inverse_temperatures=(0.0, 3.0))


def every_transition() -> TransitionBatch:
    """Four times state 0 and action 0, action 1 with its four outcomes, and state 1 before each of them."""
    at_0, at_1 = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    actions = torch.tensor([0.0] * 4 + [1.0] * 4)
    return TransitionBatch(
        observations=torch.cat([at_0.expand(8, 2), at_1.expand(8, 2)]),
        actions=torch.cat([actions, torch.zeros(8)]).unsqueeze(-1),
        rewards=torch.tensor([0.0] * 4 + [4.0, 0, 0, 0] + [0.0] * 8),
        next_observations=at_0.expand(16, 2),
        terminations=torch.cat([torch.ones(8), torch.zeros(8)]),
        next_actions=torch.cat([torch.zeros(8), actions]).unsqueeze(-1),
    )


@pytest.fixture(scope="module")
def agent() -> IQLAgent:
    config = IQLConfig(discount=DISCOUNT, hidden_sizes=(32, 32), learning_rate=3e-3, target_update_rate=0.1)
    agent = IQLAgent(config, SPACES, population=POPULATION, num_updates=1500)
    batch = every_transition()
    for _ in range(1500):
        agent.update(batch)
    return agent


@pytest.fixture(scope="module")
def action_values(agent: IQLAgent) -> dict[str, list[list[float]]]:
    """Q by objective, state and action."""
    return dict(zip(OBJECTIVES, agent.all_action_values(torch.eye(2)).tolist(), strict=True))


def test_implicit_continues_with_the_expectile_over_actions(agent: IQLAgent, action_values: dict):
    assert action_values["implicit"][0][:2] == pytest.approx([0.0, 1.0], abs=0.03)
    assert agent.values(torch.eye(2))[0].tolist() == pytest.approx([EXPECTILE, DISCOUNT * EXPECTILE], abs=0.03)
    assert action_values["implicit"][1][0] == pytest.approx(DISCOUNT * EXPECTILE, abs=0.03)


def test_sarsa_continues_with_the_mean_over_actions(action_values: dict):
    assert action_values["sarsa"][0][:2] == pytest.approx([0.0, 1.0], abs=0.03)
    assert action_values["sarsa"][1][0] == pytest.approx(DISCOUNT * 0.5, abs=0.03)


def test_single_q_takes_luck_for_a_good_action(action_values: dict):
    """0.8 (4 - q) = 3 * 0.2 q at the expectile of {4, 0, 0, 0}: q = 16 / 7."""
    assert action_values["single-q"][0][1] == pytest.approx(16 / 7, abs=0.05)
    lucky = DISCOUNT * 16 / 7  # its expectile over the next actions' {0, 16/7}
    assert action_values["single-q"][1][0] == pytest.approx(EXPECTILE * lucky, abs=0.08)


def test_single_q_measures_the_policy_against_the_mean(agent: IQLAgent):
    assert agent.values(torch.eye(2))[2, 0].item() == pytest.approx(16 / 7 / 2, abs=0.05)


def test_td_continues_with_the_best_of_all_actions_seen_or_not(action_values: dict):
    td = action_values["td"]
    assert td[0][:2] == pytest.approx([0.0, 1.0], abs=0.03)
    assert td[1][0] == pytest.approx(DISCOUNT * max(td[0]), abs=0.03)


def test_the_policy_clones_the_data_or_prefers_the_better_action(agent: IQLAgent):
    def chances(member: int) -> list[float]:
        weights = agent.policy_weights(member)
        hidden = torch.tensor([[1.0, 0.0]])
        for layer in range(2):
            hidden = torch.relu(hidden @ weights[f"hidden.{layer}.weight"] + weights[f"hidden.{layer}.bias"])
        return (hidden @ weights["logits.weight"] + weights["logits.bias"]).softmax(-1)[0].tolist()

    assert chances(0) == pytest.approx([0.5, 0.5, 0.0], abs=0.03)
    weight = torch.tensor(3.0).exp().item()  # of an advantage that is larger by 1
    assert chances(1) == pytest.approx([1 / (1 + weight), weight / (1 + weight), 0.0], abs=0.03)


def test_single_q_at_one_half_is_sarsa():
    config = IQLConfig(hidden_sizes=(8,))
    twins = Population(seeds=(0,), expectiles=(0.5, 0.5), critics=("single-q", "sarsa"), inverse_temperatures=(1.0,))
    agent = IQLAgent(config, SPACES, population=twins, num_updates=10)
    for _ in range(5):
        agent.update(every_transition())
    single, sarsa = agent.all_action_values(torch.eye(2))
    assert torch.equal(single, sarsa)


def test_sarsa_over_box_actions_bootstraps_from_the_next_action():
    """One state that leads to itself, reward 1, until the action is 1 and ends it: alternating -1, 1."""
    spaces = Spaces(observation_dim=1, action_dim=1, action_low=(-1.0,), action_high=(1.0,))
    batch = TransitionBatch(
        observations=torch.ones(2, 1),
        actions=torch.tensor([[-1.0], [1.0]]),
        rewards=torch.ones(2),
        next_observations=torch.ones(2, 1),
        terminations=torch.tensor([0.0, 1.0]),
        next_actions=torch.tensor([[1.0], [0.0]]),
    )
    config = IQLConfig(
        critic="sarsa", expectile=0.5, discount=0.5, hidden_sizes=(32, 32), learning_rate=3e-3, target_update_rate=0.1
    )
    agent = IQLAgent(config, spaces, num_updates=500)
    for _ in range(500):
        metrics = agent.update(batch)
    assert metrics["action_value"].item() == pytest.approx(((1 + 0.5 * 1) + 1) / 2, abs=0.02)
    assert agent.values(torch.ones(1, 1)).item() == pytest.approx(1.25, abs=0.02)


def test_a_maximum_over_box_actions_is_refused():
    spaces = Spaces(observation_dim=1, action_dim=2, action_low=(-1.0, -1.0), action_high=(1.0, 1.0))
    population = Population.of_one(IQLConfig(critic="td"), seed=0)
    with pytest.raises(ValueError, match=r"td takes a maximum over all actions.*2-dimensional box"):
        check_objectives(population, spaces)
