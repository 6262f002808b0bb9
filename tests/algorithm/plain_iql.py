"""IQL once more, as plainly as torch allows: one network at a time, autograd throughout, no ensembles, no buffers.

It shares no code with the agent; it starts from an agent's parameters and takes the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Normal

from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.experience import Spaces, TransitionBatch

SPACES = Spaces(observation_dim=3, action_dim=2, action_low=(-1.0, -1.0), action_high=(1.0, 1.0))

Layers = list[Tensor]
"""Weight, bias, weight, bias, ... of one network."""


def random_batch(seed: int, size: int = 16, dtype: torch.dtype = torch.float64) -> TransitionBatch:
    """Transitions of `SPACES`, a quarter of them terminations; the same numbers in every precision."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return TransitionBatch(
        observations=normal(size, 3),
        actions=normal(size, 2).tanh(),
        rewards=normal(size),
        next_observations=normal(size, 3),
        terminations=(torch.rand(size, generator=generator) < 0.25).to(dtype),
    )


def layers_of(tensors: Mapping[str, Tensor], network: str, member: int) -> Layers:
    """One member's layers among `IQLAgent.tensors()`, as leaves of their own."""
    num_layers = sum(name.startswith(f"{network}.") and name.endswith(".weight") for name in tensors)
    names = [f"{network}.{layer}.{kind}" for layer in range(num_layers) for kind in ("weight", "bias")]
    return [tensors[name][member].clone().requires_grad_() for name in names]


def forward(layers: Layers, inputs: Tensor) -> Tensor:
    for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        inputs = torch.relu(inputs @ weight + bias)
    return inputs @ layers[-2] + layers[-1]


class PlainIQL:
    """One run, by the paper and the order of the authors' code."""

    def __init__(self, tensors: Mapping[str, Tensor], config: IQLConfig, num_updates: int) -> None:
        self.config, self.num_updates, self.update_count = config, num_updates, 0
        self.value = layers_of(tensors, "value", 0)
        self.policy = layers_of(tensors, "policy", 0)
        self.log_std = tensors["policy.log_std"][0].clone().requires_grad_()
        self.twins = [layers_of(tensors, "critic", twin) for twin in (0, 1)]
        self.targets = [layers_of(tensors, "target_critic", twin) for twin in (0, 1)]
        rate = config.learning_rate
        self.value_optimiser = torch.optim.Adam(self.value, lr=rate)
        self.policy_optimiser = torch.optim.Adam([*self.policy, self.log_std], lr=rate)
        self.critic_optimiser = torch.optim.Adam([*self.twins[0], *self.twins[1]], lr=rate)

    def update(self, batch: TransitionBatch) -> None:
        pairs = torch.cat([batch.observations, batch.actions], -1)
        target_values = torch.minimum(*(forward(each, pairs).squeeze(-1) for each in self.targets)).detach()
        self._step(self.value_optimiser, self._value_loss(batch, target_values))
        self._set_policy_rate()
        self._step(self.policy_optimiser, self._policy_loss(batch, target_values))
        self._step(self.critic_optimiser, self._critic_loss(batch, pairs))
        with torch.no_grad():
            for target, layers in zip(self.targets, self.twins, strict=True):
                for old, new in zip(target, layers, strict=True):
                    old.copy_((1 - self.config.target_update_rate) * old + self.config.target_update_rate * new)
        self.update_count += 1

    def _value_loss(self, batch: TransitionBatch, target_values: Tensor) -> Tensor:
        differences = target_values - forward(self.value, batch.observations).squeeze(-1)
        weights = (self.config.expectile - (differences < 0).double()).abs()
        return (weights * differences**2).mean()

    def _policy_loss(self, batch: TransitionBatch, target_values: Tensor) -> Tensor:
        values = forward(self.value, batch.observations).squeeze(-1).detach()
        weights = torch.exp(self.config.inverse_temperature * (target_values - values)).clamp(max=100.0)
        means = forward(self.policy, batch.observations).tanh()
        density = Normal(means, self.log_std.clamp(-5.0, 2.0).exp())
        return -(weights * density.log_prob(batch.actions).sum(-1)).mean()

    def _critic_loss(self, batch: TransitionBatch, pairs: Tensor) -> Tensor:
        next_values = forward(self.value, batch.next_observations).squeeze(-1).detach()
        targets = batch.rewards + self.config.discount * (1 - batch.terminations) * next_values
        first, second = (((forward(each, pairs).squeeze(-1) - targets) ** 2).mean() for each in self.twins)
        return first + second

    def _set_policy_rate(self) -> None:
        progress = self.update_count / self.num_updates
        for group in self.policy_optimiser.param_groups:
            group["lr"] = self.config.learning_rate * (1 + math.cos(math.pi * progress)) / 2

    @staticmethod
    def _step(optimiser: torch.optim.Adam, loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
