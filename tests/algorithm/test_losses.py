"""Each equation of IQL against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iql_ray.algorithm.losses import (
    MAX_ADVANTAGE_WEIGHT,
    advantage_weights,
    critic_loss,
    critic_target,
    expectile_loss,
    policy_loss,
)


@given(st.floats(0.01, 0.99))
def test_the_expectile_of_zero_and_one_is_tau(expectile: float):
    """The gradient of the loss at V = tau: tau (1 - tau) pulls up exactly as (1 - tau) tau pulls down."""
    value = torch.tensor(expectile, dtype=torch.float64, requires_grad=True)
    loss, _ = expectile_loss(torch.tensor([0.0, 1.0], dtype=torch.float64) - value, expectile)
    (gradient,) = torch.autograd.grad(loss, value)
    assert abs(float(gradient)) < 1e-7


def test_descending_the_expectile_loss_of_zero_and_one_ends_at_tau():
    value = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        loss, _ = expectile_loss(torch.tensor([0.0, 1.0]) - value, 0.8)
        (gradient,) = torch.autograd.grad(loss, value)
        value = (value - 0.5 * gradient).detach().requires_grad_()
    assert value.item() == pytest.approx(0.8, abs=1e-6)


def test_expectile_one_half_is_half_the_mean_squared_error():
    assert float(expectile_loss(torch.tensor([1.0, -2.0, 3.0]), 0.5)[0]) == pytest.approx(0.5 * (1 + 4 + 9) / 3)


def test_expectile_loss_weighs_being_below_by_tau_and_being_above_by_the_rest():
    assert expectile_loss(torch.tensor([[2.0], [-2.0]]), 0.75)[0].tolist() == [3.0, 1.0]


def test_every_member_has_its_own_expectile():
    advantages = torch.tensor([[1.0, -1.0], [3.0, -1.0]])
    # 0.5 (1 + 1) / 2 and (0.9 * 9 + 0.1 * 1) / 2
    assert expectile_loss(advantages, torch.tensor([[0.5], [0.9]]))[0].tolist() == pytest.approx([0.5, 4.1])


def test_advantage_zero_has_weight_one():
    """Then the policy's loss is that of behaviour cloning."""
    weights = advantage_weights(torch.zeros(3), 3.0)
    assert weights.tolist() == [1.0, 1.0, 1.0]
    assert float(policy_loss(torch.tensor([-1.0, -2.0, -6.0]), weights)[0]) == 3.0


@given(st.floats(-100, 100))
def test_inverse_temperature_zero_weighs_every_advantage_by_one(advantage: float):
    assert advantage_weights(torch.tensor([advantage]), 0.0).tolist() == [1.0]


@pytest.mark.parametrize("advantage", [2.0, 50.0, 1e4, 1e30, math.inf])
def test_a_huge_advantage_weighs_exactly_the_cap(advantage: float):
    assert advantage_weights(torch.tensor([advantage]), 3.0).tolist() == [MAX_ADVANTAGE_WEIGHT] == [100.0]


def test_weights_below_the_cap_are_the_exponential():
    assert advantage_weights(torch.tensor([1.0, -1.0]), 2.0).tolist() == pytest.approx([math.e**2, math.e**-2])


def test_a_termination_cuts_the_bootstrap_and_a_truncation_does_not():
    """A truncated transition arrives with terminations = 0, and V(s') counts."""
    targets = critic_target(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]), torch.tensor([10.0, 10.0]), 0.5)
    assert targets.tolist() == [1.0, 6.0]


def test_a_termination_cuts_a_huge_next_value_to_nothing():
    assert critic_target(torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([1e30]), 0.99).tolist() == [2.0]


def test_the_critics_loss_is_the_sum_over_twins_of_mean_squared_errors():
    action_values = torch.tensor([[1.0, 3.0], [0.0, 0.0]])  # twins x batch
    targets = torch.tensor([0.0, 1.0])
    # twin 0: (1 + 4) / 2, twin 1: (0 + 1) / 2; their mean would be 1.5
    assert float(critic_loss(action_values, targets)[0]) == 3.0


def test_the_critics_loss_keeps_the_member_axis():
    action_values = torch.zeros(4, 2, 3)
    targets = torch.arange(4.0).unsqueeze(1).expand(4, 3)
    assert critic_loss(action_values, targets)[0].tolist() == [0.0, 2.0, 8.0, 18.0]


def test_the_policys_loss_is_the_mean_of_weighted_log_probabilities_negated():
    assert policy_loss(torch.tensor([[-1.0, -2.0]]), torch.tensor([[3.0, 0.5]]))[0].tolist() == [2.0]


def test_the_written_gradients_are_autograds():
    """Of the sum over members, in what each loss says: V(s), the action values, the log-probabilities."""
    generator = torch.Generator().manual_seed(0)
    values, other, twins = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 8), (3, 8), (3, 2, 8))
    )
    expectiles = torch.tensor([[0.1], [0.5], [0.9]], dtype=torch.float64)
    for (loss, gradient), variable in (
        (expectile_loss(other.detach() - values, expectiles), values),
        (critic_loss(twins, other.detach()), twins),
        (policy_loss(values, other.detach()), values),
    ):
        (expected,) = torch.autograd.grad(loss.sum(), variable)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-15)


def test_an_asymmetric_critic_loss_at_one_half_is_the_mean_squared_error():
    action_values, targets = torch.tensor([[[1.0, 4.0]]]), torch.tensor([[2.0, 2.0]])
    plain, asymmetric = critic_loss(action_values, targets), critic_loss(action_values, targets, 0.5)
    assert plain[0].item() == asymmetric[0].item() == (1 + 4) / 2
    assert plain[1].tolist() == asymmetric[1].tolist() == [[[-1.0, 2.0]]]


def test_an_asymmetric_critic_loss_weighs_targets_above_by_the_expectile():
    loss, gradients = critic_loss(torch.tensor([[[1.0, 4.0]]]), torch.tensor([[2.0, 2.0]]), 0.9)
    assert loss.item() == pytest.approx((2 * 0.9 * 1 + 2 * 0.1 * 4) / 2)
    assert gradients.flatten().tolist() == pytest.approx([-2 * 0.9 * 1 * 2 / 2, 2 * 0.1 * 2 * 2 / 2])
