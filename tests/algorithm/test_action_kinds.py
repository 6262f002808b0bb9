"""Densities and the critic's reading of an action: torch's own distributions, and numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Normal

from iql_ray.algorithm.action_kinds import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    action_kind,
    categorical_log_probability,
    gaussian_log_probability,
)
from iql_ray.experience import Spaces

BATCH = 6
DISCRETE = Spaces(observation_dim=4, action_dim=1, num_actions=3)


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_gaussian_log_probability_is_torchs():
    means, actions = random_tensor(2, BATCH, 3), random_tensor(2, BATCH, 3, seed=1).tanh()
    log_stds = random_tensor(2, 3, seed=2)
    means.requires_grad_()
    log_stds.requires_grad_()
    expected = Normal(means.tanh(), log_stds.exp().unsqueeze(1)).log_prob(actions).sum(-1)
    ours, mean_derivatives, log_std_derivatives = gaussian_log_probability(means, log_stds, actions)
    assert log_std_derivatives is not None
    assert ours.shape == (2, BATCH)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    by_mean, by_log_std = torch.autograd.grad(expected.sum(), (means, log_stds))
    torch.testing.assert_close(mean_derivatives, by_mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_std_derivatives.sum(1), by_log_std, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("log_std", "clipped"), [(-9.0, LOG_STD_MIN), (6.0, LOG_STD_MAX)])
def test_the_log_std_is_clipped_and_is_not_pushed_further(log_std: float, clipped: float):
    means, actions = torch.zeros(1, 1, 1), torch.full((1, 1, 1), 0.01)
    outside, at_bound = (
        gaussian_log_probability(means, torch.tensor([[each]]), actions) for each in (log_std, clipped)
    )
    assert torch.equal(outside[0], at_bound[0])
    assert outside.log_std_derivatives is not None
    assert outside.log_std_derivatives.item() == 0.0


def test_the_categorical_log_probability_is_torchs():
    logits = random_tensor(2, BATCH, 3).requires_grad_()
    actions = torch.arange(2 * BATCH).reshape(2, BATCH, 1) % 3
    expected = Categorical(logits=logits).log_prob(actions.squeeze(-1))
    ours = categorical_log_probability(logits, actions.float())
    torch.testing.assert_close(ours.values, expected, rtol=1e-12, atol=1e-12)
    (by_logits,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(ours.output_derivatives, by_logits, rtol=1e-12, atol=1e-12)
    assert ours.log_std_derivatives is None


def test_equal_logits_are_equal_chances():
    ours = categorical_log_probability(torch.full((1, 1, 4), 7.0), torch.tensor([[[2.0]]]))
    assert ours.values.item() == pytest.approx(math.log(1 / 4))
    assert ours.output_derivatives.flatten().tolist() == pytest.approx([-0.25, -0.25, 0.75, -0.25])


def test_a_discrete_critic_sees_the_observation_alone_and_answers_for_the_action():
    kind = action_kind(DISCRETE)
    observations, actions = random_tensor(1, 2, 4), torch.tensor([[[2.0], [0.0]]])
    outputs = torch.tensor([[[10.0, 11.0, 12.0], [20.0, 21.0, 22.0]]])
    assert (kind.critic_inputs, kind.critic_outputs, kind.policy_outputs) == (4, 3, 3)
    assert torch.equal(kind.critic_input(observations, actions), observations)
    assert kind.chosen(outputs, actions).tolist() == [[12.0, 20.0]]
    assert kind.output_gradients(torch.tensor([[5.0, 7.0]]), actions).tolist() == [[[0, 0, 5.0], [7.0, 0, 0]]]


def test_a_box_critic_takes_the_action_in():
    kind = action_kind(Spaces(observation_dim=2, action_dim=1, action_low=(-1.0,), action_high=(1.0,)))
    joined = kind.critic_input(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[0.5]]]))
    assert joined.tolist() == [[[1.0, 2.0, 0.5]]]
    assert kind.chosen(torch.tensor([[[9.0]]]), torch.tensor([[[0.5]]])).tolist() == [[9.0]]
