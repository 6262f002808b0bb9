"""The equations of one update of a population, over networks that are handed in: how those keep their numbers, and
whether this is run as it stands or compiled, is not its business.

    V       regresses onto the target Q
    policy  advantage: the target Q minus the NEW V
    Q       bootstraps from the NEW V
    target  follows Q
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from iql_ray.algorithm import losses
from iql_ray.algorithm.action_kinds import ActionKind
from iql_ray.algorithm.critics import CriticObjectives
from iql_ray.algorithm.iql_config import IQLConfig, Population
from iql_ray.algorithm.networks import MakeMask
from iql_ray.experience import TransitionBatch

NUM_CRITICS = 2
"""Twin critics: their minimum is the value that V and the policy see."""

Learns = Literal["everything", "critics", "policies"]
"""The critics never depend on the policies: they can be learned alone, and policies be extracted from them later."""


class Network(Protocol):
    """A population's networks of one role."""

    def __call__(self, inputs: Tensor, make_mask: MakeMask | None = None) -> Tensor:
        """(members, batch, in) -> (members, batch, out)."""
        ...

    def parameter(self, name: str) -> Tensor | None:
        """One that is not of a layer, (members, ...)."""
        ...

    def backward(self, output_gradients: Tensor, **others: Tensor) -> None:
        """Take the gradients of the last call's outputs and of parameters by name."""
        ...


class Networks(Protocol):
    """All networks, and how they move along the gradients that they were given."""

    @property
    def value(self) -> Network: ...
    @property
    def policy(self) -> Network: ...
    @property
    def critic(self) -> Network: ...
    @property
    def target(self) -> Network: ...

    def step(self, *names: str, policy_learning_rate: float = 0.0) -> None:
        """Adam's steps of value, policy or critic along their gradients, and the target's after the critic's."""
        ...


class UpdateRule:
    """One update in the authors' order.

    Args:
        make_mask: of the policy's dropout; None: no unit is dropped.
        like: of the networks' type and device.
        learns: critics alone (V, Q and its target), policies alone from critics that stay, or everything.
    """

    def __init__(
        self,
        config: IQLConfig,
        population: Population,
        kind: ActionKind,
        make_mask: MakeMask | None,
        like: Tensor,
        learns: Learns = "everything",
    ) -> None:
        self.moves_value = learns != "policies"
        moved = {"everything": ("policy", "critic"), "critics": ("critic",), "policies": ("policy",)}
        self.moved_together = moved[learns]
        self._discount = config.discount
        self._kind = kind
        self._make_mask = make_mask
        self._num_expectiles = len(population.expectiles)
        self._num_temperatures = len(population.inverse_temperatures)
        members = population.members()
        critic_members = members[:: self._num_temperatures]
        expectiles = _column([member.expectile for member in critic_members], like)
        self._objectives = CriticObjectives([member.critic for member in critic_members], expectiles)
        self._whole_inverse_temperatures = _column([member.inverse_temperature for member in members], like)
        self._inverse_temperatures = self._whole_inverse_temperatures.clone()

    def soften(self, share: float | Tensor) -> None:
        """Weigh by that share, (), of every inverse temperature from now on; in place, for graphs that hold them."""
        torch.mul(self._whole_inverse_temperatures, share, out=self._inverse_temperatures)

    def __call__(self, networks: Networks, batch: TransitionBatch, policy_learning_rate: float) -> dict[str, Tensor]:
        """Move what is to be learned once; policy and critic share no parameter, so they move at once.

        Args:
            batch: (seeds, batch, ...).

        Returns:
            Metrics, (critics,) or (policies,).
        """
        metrics, target_values = self.value_gradients(networks, batch)
        if self.moves_value:
            networks.step("value")
        metrics |= self.other_gradients(networks, batch, target_values)
        networks.step(*self.moved_together, policy_learning_rate=policy_learning_rate)
        return metrics

    def value_gradients(self, networks: Networks, batch: TransitionBatch) -> tuple[dict[str, Tensor], Tensor]:
        """The first stage, up to V's step: its gradients where it moves; metrics and min_i Q_i of the target."""
        target_values = self.action_values(batch, networks.target).amin(1)
        return self._value_gradients(networks, batch, target_values) if self.moves_value else {}, target_values

    def other_gradients(self, networks: Networks, batch: TransitionBatch, target_values: Tensor) -> dict[str, Tensor]:
        """The second stage, after V's step and up to that of `moved_together`: their gradients; metrics."""
        metrics: dict[str, Tensor] = {}
        if "critic" in self.moved_together:
            values, next_values = self._values_of_both(networks, batch)
        else:
            values, next_values = networks.value(self._per_critic(batch.observations)).squeeze(-1), None
        advantages = target_values - values
        if "policy" in self.moved_together:
            metrics |= self._policy_gradients(networks, batch, advantages)
        if next_values is not None:
            metrics |= self._critic_gradients(networks, batch, next_values)
        return {**metrics, "advantage": advantages.mean(-1)}

    def action_values(self, batch: TransitionBatch, critic: Network) -> Tensor:
        """Q_i(s, a), shape (critics, NUM_CRITICS, batch)."""
        inputs = self._per_twin(self._kind.critic_input(batch.observations, batch.actions))
        outputs = by_twin(critic(inputs.flatten(0, 1)))
        return self._kind.chosen(outputs, self._per_twin(batch.actions))

    def _value_gradients(self, networks: Networks, batch: TransitionBatch, target_values: Tensor) -> dict[str, Tensor]:
        values = networks.value(self._per_critic(batch.observations)).squeeze(-1)
        loss, gradients = losses.expectile_loss(target_values - values, self._objectives.value_expectiles)
        networks.value.backward(gradients.unsqueeze(-1))
        return {"value_loss": loss, "value": values.mean(-1)}

    def _policy_gradients(self, networks: Networks, batch: TransitionBatch, advantages: Tensor) -> dict[str, Tensor]:
        per_seed = self._num_expectiles * self._num_temperatures
        outputs = networks.policy(repeat_members(batch.observations, per_seed), self._make_mask)
        log_probabilities, derivatives, log_std_derivatives = self._kind.log_probability(
            outputs, networks.policy.parameter("log_std"), repeat_members(batch.actions, per_seed)
        )
        weights = losses.advantage_weights(
            repeat_members(advantages, self._num_temperatures), self._inverse_temperatures
        )
        loss, gradients = losses.policy_loss(log_probabilities, weights)
        per_row = gradients.unsqueeze(-1)
        others = {} if log_std_derivatives is None else {"log_std": (per_row * log_std_derivatives).sum(1)}
        networks.policy.backward(per_row * derivatives, **others)
        return {
            "policy_loss": loss,
            "advantage_weight": weights.mean(-1),
            "capped_weight_share": (weights >= losses.MAX_ADVANTAGE_WEIGHT).mean(-1, dtype=weights.dtype),
        }

    def _critic_gradients(self, networks: Networks, batch: TransitionBatch, next_values: Tensor) -> dict[str, Tensor]:
        targets = losses.critic_target(
            self._per_critic(batch.rewards),
            self._per_critic(batch.terminations),
            self._bootstraps(networks, batch, next_values),
            self._discount,
        )
        action_values = self.action_values(batch, networks.critic)
        loss, gradients = self._objectives.loss(action_values, targets)
        output_gradients = self._kind.output_gradients(gradients, self._per_twin(batch.actions))
        networks.critic.backward(output_gradients.flatten(0, 1))
        return {"critic_loss": loss, "action_value": action_values.mean((-2, -1))}

    def _bootstraps(self, networks: Networks, batch: TransitionBatch, next_values: Tensor) -> Tensor:
        """What each critic's target continues with: V(s') in implicit Q-learning, see `critics.py` for the others."""
        of_next_actions = of_best_actions = None
        if self._objectives.needs_next_actions:
            assert batch.next_actions is not None
            next_pairs = replace(batch, observations=batch.next_observations, actions=batch.next_actions)
            of_next_actions = self.action_values(next_pairs, networks.target).amin(1)
        if self._objectives.needs_best_actions:
            outputs = networks.target(self._per_twin(batch.next_observations).flatten(0, 1))
            of_best_actions = by_twin(outputs).amin(1).amax(-1)
        return self._objectives.bootstraps(next_values, of_next_actions, of_best_actions)

    def _values_of_both(self, networks: Networks, batch: TransitionBatch) -> tuple[Tensor, Tensor]:
        """V(s) and V(s'), each (critics, batch), in one product."""
        both = self._per_critic(torch.cat([batch.observations, batch.next_observations], 1))
        values, next_values = networks.value(both).squeeze(-1).chunk(2, -1)
        return values, next_values

    def _per_twin(self, per_seed: Tensor) -> Tensor:
        """(seeds, ...) -> (critics, NUM_CRITICS, ...)."""
        return by_twin(repeat_members(per_seed, self._num_expectiles * NUM_CRITICS))

    def _per_critic(self, per_seed: Tensor) -> Tensor:
        return repeat_members(per_seed, self._num_expectiles)


def by_twin(outputs: Tensor) -> Tensor:
    """(critics * NUM_CRITICS, ...) -> (critics, NUM_CRITICS, ...)."""
    return outputs.unflatten(0, (-1, NUM_CRITICS))


def repeat_members(per_seed: Tensor, repeats: int) -> Tensor:
    """(members, ...) -> (members * repeats, ...), each member `repeats` times in a row, without a copy of one."""
    if repeats == 1:
        return per_seed
    members, *rest = per_seed.shape
    return per_seed.unsqueeze(1).expand(members, repeats, *rest).reshape(members * repeats, *rest)


def _column(values: list[float], like: Tensor) -> Tensor:
    """One number per member, (members, 1), to broadcast over the batch."""
    return like.new_tensor(values).unsqueeze(1)
