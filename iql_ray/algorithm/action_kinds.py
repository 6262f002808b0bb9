"""What differs between box and discrete actions: the layers' shapes, how Q reads an action, and the policy's density.

                 Q's input      Q's outputs      the policy's outputs     other parameters
    box          s, a           1                means before the tanh    log_std, state-independent
    discrete     s              one per action   logits                   -

Pure tensor functions and shapes; the networks themselves belong to the agent.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from iql_ray.experience import Spaces

LOG_STD_MIN = -5.0
LOG_STD_MAX = 2.0


class LogProbability(NamedTuple):
    """log pi(a | s) and its derivatives."""

    values: Tensor
    """(members, batch)."""
    output_derivatives: Tensor
    """In the policy network's outputs, (members, batch, outputs)."""
    log_std_derivatives: Tensor | None = None
    """(members, batch, action_dim); None where there is no log-std."""


class ActionKind(Protocol):
    """What the agent asks of a kind of actions, which come as they are in a batch: (..., batch, action_dim)."""

    critic_inputs: int
    critic_outputs: int
    policy_outputs: int
    policy_layer: str
    """The policy's last layer by the name that `iql_ray.policy.Policy` knows."""
    has_log_std: bool

    def critic_input(self, observations: Tensor, actions: Tensor) -> Tensor:
        """What Q's network is given, (..., batch, critic_inputs)."""
        ...

    def chosen(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Q(s, a) among Q's outputs (..., batch, critic_outputs): (..., batch)."""
        ...

    def output_gradients(self, gradients: Tensor, actions: Tensor) -> Tensor:
        """The way back: gradients in Q(s, a), (..., batch), as gradients in Q's outputs."""
        ...

    def log_probability(self, outputs: Tensor, log_stds: Tensor | None, actions: Tensor) -> LogProbability:
        """Of the actions under the policy network's outputs."""
        ...


class BoxActions:
    """Vectors in [-1, 1]: Q takes them as inputs, the policy is a Gaussian."""

    policy_layer = "mean"
    has_log_std = True
    critic_outputs = 1

    def __init__(self, spaces: Spaces) -> None:
        self.critic_inputs = spaces.observation_dim + spaces.action_dim
        self.policy_outputs = spaces.action_dim

    def critic_input(self, observations: Tensor, actions: Tensor) -> Tensor:
        return torch.cat([observations, actions], -1)

    def chosen(self, outputs: Tensor, actions: Tensor) -> Tensor:
        return outputs.squeeze(-1)

    def output_gradients(self, gradients: Tensor, actions: Tensor) -> Tensor:
        return gradients.unsqueeze(-1)

    def log_probability(self, outputs: Tensor, log_stds: Tensor | None, actions: Tensor) -> LogProbability:
        assert log_stds is not None
        return gaussian_log_probability(outputs, log_stds, actions)


class DiscreteActions:
    """Indices of choices: Q has an output for each, the policy is a softmax over logits."""

    policy_layer = "logits"
    has_log_std = False

    def __init__(self, num_actions: int, observation_dim: int) -> None:
        self.critic_inputs = observation_dim
        self.critic_outputs = self.policy_outputs = num_actions

    def critic_input(self, observations: Tensor, actions: Tensor) -> Tensor:
        return observations

    def chosen(self, outputs: Tensor, actions: Tensor) -> Tensor:
        return outputs.gather(-1, actions.long()).squeeze(-1)

    def output_gradients(self, gradients: Tensor, actions: Tensor) -> Tensor:
        zeros = gradients.new_zeros(*gradients.shape, self.critic_outputs)
        return zeros.scatter_(-1, actions.long(), gradients.unsqueeze(-1))

    def log_probability(self, outputs: Tensor, log_stds: Tensor | None, actions: Tensor) -> LogProbability:
        return categorical_log_probability(outputs, actions)


def action_kind(spaces: Spaces) -> ActionKind:
    """The kind of the actions of these spaces."""
    if spaces.num_actions is not None:
        return DiscreteActions(spaces.num_actions, spaces.observation_dim)
    return BoxActions(spaces)


def categorical_log_probability(logits: Tensor, actions: Tensor) -> LogProbability:
    """log softmax(logits) at the actions.

    Args:
        logits: shape (members, batch, num_actions).
        actions: indices, shape (members, batch, 1), of any type.

    Returns:
        Values, and derivatives in the logits: 1 at the action, less the probabilities.
    """
    log_probabilities = torch.log_softmax(logits, -1)
    indices = actions.long()
    derivatives = (-log_probabilities.exp()).scatter_add(-1, indices, torch.ones_like(actions, dtype=logits.dtype))
    return LogProbability(log_probabilities.gather(-1, indices).squeeze(-1), derivatives)


def gaussian_log_probability(means: Tensor, log_stds: Tensor, actions: Tensor) -> LogProbability:
    """log N(actions; tanh(means), exp(log_stds)), summed over action dimensions, with the log-std clipped.

    The Normal itself is not squashed: the authors' IQL evaluates actions in [-1, 1] under the plain density.

    Args:
        means: before the tanh, shape (members, batch, action_dim).
        log_stds: state-independent, shape (members, action_dim).
        actions: shape (members, batch, action_dim).

    Returns:
        Values and derivatives; the log-std's are 0 where it is clipped.
    """
    clipped = log_stds.clamp(LOG_STD_MIN, LOG_STD_MAX)
    precisions = torch.exp(-clipped).unsqueeze(1)
    squashed = torch.tanh(means)
    standardised = (actions - squashed) * precisions
    squares = standardised.square()
    constants = (clipped + 0.5 * math.log(2 * math.pi)).sum(-1, keepdim=True)
    mean_derivatives = standardised * precisions * (1 - squashed.square())
    log_std_derivatives = (squares - 1) * (clipped == log_stds).unsqueeze(1)
    return LogProbability(-0.5 * squares.sum(-1) - constants, mean_derivatives, log_std_derivatives)
