"""The equations of implicit Q-learning (Kostrikov et al. 2021, arXiv:2110.06169), one pure function each.

Every function takes (..., batch) tensors, averages over the batch and keeps the leading member axes, so that each
member has the gradient it would have alone. A loss comes with its gradient written out: at these sizes the engine of
autograd costs a tenth of an update. The losses are ordinary differentiable torch, and a test holds the two equal.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_ADVANTAGE_WEIGHT = 100.0
"""Cap on exp(beta * advantage), the authors' guard against a few transitions taking over the policy."""


def expectile_loss(advantages: Tensor, expectile: Tensor | float) -> tuple[Tensor, Tensor]:
    """Asymmetric squared error |tau - 1(u < 0)| u^2, averaged over the batch (IQL, L_V).

    Args:
        advantages: u = Q(s, a) - V(s), shape (..., batch).
        expectile: tau in (0, 1), a number or a tensor (..., 1); 0.5 is half the mean squared error, towards 1
            approaches the maximum.

    Returns:
        The loss, shape (...), and its gradient in V(s), shape (..., batch).
    """
    weighted = torch.where(advantages < 0, 1 - expectile, expectile) * advantages
    return (weighted * advantages).mean(-1), weighted * (-2 / advantages.shape[-1])


def critic_target(rewards: Tensor, terminations: Tensor, next_values: Tensor, discount: float) -> Tensor:
    """r + discount * (1 - termination) * V(s'): a termination cuts the bootstrap, a truncation does not.

    All shapes broadcast to (..., batch).
    """
    return rewards + discount * (1 - terminations) * next_values


def critic_loss(
    action_values: Tensor, targets: Tensor, expectile: Tensor | float | None = None
) -> tuple[Tensor, Tensor]:
    """Mean squared error of each critic of an ensemble, summed over the ensemble (IQL, L_Q).

    Args:
        action_values: Q_i(s, a), shape (..., ensemble, batch).
        targets: shape (..., batch).
        expectile: with one, a number or a tensor (..., 1, 1), the error is asymmetric: 2 |tau - 1(u < 0)| u^2 of
            u = target - Q_i; 0.5 is the mean squared error.

    Returns:
        The loss, shape (...), and its gradient in the action values, shape (..., ensemble, batch).
    """
    errors = targets.unsqueeze(-2) - action_values
    weighted = errors if expectile is None else 2 * torch.where(errors < 0, 1 - expectile, expectile) * errors
    return (weighted * errors).mean(-1).sum(-1), weighted * (-2 / errors.shape[-1])


def advantage_weights(advantages: Tensor, inverse_temperature: Tensor | float) -> Tensor:
    """min(exp(beta * advantage), 100), shape (..., batch); beta = 0 weighs all alike: behaviour cloning."""
    return torch.exp(inverse_temperature * advantages).clamp(max=MAX_ADVANTAGE_WEIGHT)


def policy_loss(log_probabilities: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Advantage-weighted regression: -E[w log pi(a | s)].

    Args:
        log_probabilities, weights: shape (..., batch).

    Returns:
        The loss, shape (...), and its gradient in the log-probabilities, shape (..., batch).
    """
    return -(weights * log_probabilities).mean(-1), weights * (-1 / weights.shape[-1])
