"""The IQL agent: a population of implicit Q-learning runs updated together from batches of transitions.

It computes on tensors and knows no files, no environments and no Ray: data comes in as a `TransitionBatch`,
gradients of several learners are averaged by an injected function, policies leave as plain arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from iql_ray.algorithm import losses, networks
from iql_ray.algorithm.action_kinds import action_kind
from iql_ray.algorithm.critics import CriticObjectives, check_objectives
from iql_ray.algorithm.iql_config import IQLConfig, Population
from iql_ray.algorithm.networks import EnsembleMLP, FlatParameters
from iql_ray.experience import Spaces, TransitionBatch
from iql_ray.seeding import child_seed

NUM_CRITICS = 2
"""Twin critics: their minimum is the value that V and the policy see."""

TRAINED = ("value", "policy", "critic")
"""Networks with an optimiser; the target critic follows by Polyak averaging."""

AverageGradients = Callable[[Tensor], None]
"""Replaces a flat gradient buffer by its mean over all learners, in place."""


class IQLAgent:
    """A population of IQL runs.

    Args:
        config: hyperparameters; `expectile` and `inverse_temperature` hold where `population` is None.
        spaces: of the environment; actions in batches are in [-1, 1].
        seed: run seed where `population` is None.
        population: several seeds, expectiles and inverse temperatures side by side.
        num_updates: length of the policy's cosine schedule, in updates.
        rank: which learner this is; each draws its own dropout masks.
        average_gradients: the seam for distribution, called on each flat gradient before its optimiser step.
    """

    def __init__(
        self,
        config: IQLConfig,
        spaces: Spaces,
        *,
        seed: int = 0,
        population: Population | None = None,
        num_updates: int = 1_000_000,
        rank: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        average_gradients: AverageGradients | None = None,
    ) -> None:
        self.config = config
        self.spaces = spaces
        self.population = population or Population.of_one(config, seed)
        self.action_kind = action_kind(spaces)
        check_objectives(self.population, spaces)
        self.num_updates = num_updates
        self.update_count = 0
        self._device = torch.device(device)
        self._average_gradients = average_gradients or (lambda gradients: None)
        self._build_networks(dtype)
        self._optimisers = {name: self._adam(getattr(self, name)) for name in TRAINED}
        members = self.population.members()
        critic_members = members[:: len(self.population.inverse_temperatures)]
        self._objectives = CriticObjectives(
            [member.critic for member in critic_members], self._column([member.expectile for member in critic_members])
        )
        self._inverse_temperatures = self._column([member.inverse_temperature for member in members])
        self._dropout_generators = [
            torch.Generator(self._device).manual_seed(child_seed(each, "dropout", rank))
            for each in self.population.seeds
        ]

    @torch.no_grad()
    def update(self, batch: TransitionBatch) -> dict[str, Tensor]:
        """One update in the authors' order: V, then the policy and Q, then the target.

        V regresses onto the target Q. The policy's advantage is the target Q minus the NEW V; the critic's target
        bootstraps from the NEW V. Policy and critic share no parameter, so their gradients are averaged over
        learners at once.

        Args:
            batch: shapes (batch, ...) shared by every seed, or (seeds, batch, ...), one batch per seed; with
                `next_actions` where an objective needs them.

        Returns:
            Metrics of this update as tensors on the device, (critics,) or (policies,); reading one synchronises.
        """
        batch = self._with_seed_axis(batch)
        target_values = self._action_values(batch, self._target_network).amin(1)
        metrics = self._update_value(batch, target_values)
        values, next_values = self._values_of_both(batch)
        metrics |= self._update_policy_and_critic(batch, target_values - values, next_values)
        self.target_critic.values.lerp_(self.critic.values, self.config.target_update_rate)
        self.update_count += 1
        return metrics

    @torch.no_grad()
    def values(self, observations: Tensor) -> Tensor:
        """V(s) of every critic, (critics, batch), for observations (batch, observation_dim)."""
        return self._value_network(observations.expand(self.population.num_critics, -1, -1)).squeeze(-1)

    @torch.no_grad()
    def all_action_values(self, observations: Tensor) -> Tensor:
        """min_i Q_i(s, a) of every discrete action, (critics, batch, num_actions), for observations (batch, ...)."""
        assert self.spaces.is_discrete
        inputs = observations.expand(NUM_CRITICS * self.population.num_critics, -1, -1)
        return self._by_twin(self._critic_network(inputs)).amin(1)

    def policy_weights(self, member: int = 0) -> dict[str, Tensor]:
        """One member's policy network under `iql_ray.policy.Policy`'s names (`hidden.K.weight`, ...), float32."""
        last = len(self.config.hidden_sizes)
        weights = {}
        for name, view in self.policy.views.items():
            layer, _, kind = name.partition(".")
            role = self.action_kind.policy_layer if layer == str(last) else f"hidden.{layer}"
            weights[f"{role}.{kind}" if kind else name] = view[member].to("cpu", torch.float32)
        return weights

    def tensors(self) -> dict[str, Tensor]:
        """Everything on the device that training changes, by name: networks, target, optimiser moments and steps.

        The tensors are the live ones: writing into one changes the agent.
        """
        state = {
            f"{network}.{name}": view
            for network in (*TRAINED, "target_critic")
            for name, view in getattr(self, network).views.items()
        }
        for name, optimiser in self._optimisers.items():
            (moments,) = optimiser.state.values()
            state |= {f"optimiser.{name}.{key}": value for key, value in moments.items()}
        return state

    def random_states(self) -> dict[str, Tensor]:
        """States of this learner's own generators, uint8 tensors by name."""
        return {f"dropout.{index}": each.get_state() for index, each in enumerate(self._dropout_generators)}

    def load(self, tensors: Mapping[str, Tensor], random_states: Mapping[str, Tensor], update_count: int) -> None:
        """Continue exactly where `tensors()`, `random_states()` and `update_count` were taken, on that kind of device.

        Raises:
            ValueError: as `check_fits`.
        """
        self.check_fits(tensors)
        for name, value in self.tensors().items():
            value.copy_(tensors[name])
        for index, generator in enumerate(self._dropout_generators):
            generator.set_state(random_states[f"dropout.{index}"].cpu())
        self.update_count = update_count

    def check_fits(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse tensors that are not of this architecture.

        Raises:
            ValueError: a tensor is missing, unknown or of another shape.
        """
        own = self.tensors()
        if own.keys() != tensors.keys():
            different = sorted(own.keys() ^ tensors.keys())
            raise ValueError(f"checkpoint of another architecture: {different[:4]} are not in both")
        for name, value in own.items():
            if value.shape != tensors[name].shape:
                raise ValueError(
                    f"checkpoint of another architecture: {name} has shape {tuple(tensors[name].shape)}, "
                    f"this agent's has {tuple(value.shape)}"
                )

    def _update_value(self, batch: TransitionBatch, target_values: Tensor) -> dict[str, Tensor]:
        values = self._value_network(self._per_critic(batch.observations)).squeeze(-1)
        loss, gradients = losses.expectile_loss(target_values - values, self._objectives.value_expectiles)
        self._value_network.backward(gradients.unsqueeze(-1))
        self._average_gradients(self.value.gradients)
        self._optimisers["value"].step()
        return {"value_loss": loss, "value": values.mean(-1)}

    def _update_policy_and_critic(
        self, batch: TransitionBatch, advantages: Tensor, next_values: Tensor
    ) -> dict[str, Tensor]:
        metrics = {
            **self._policy_gradients(batch, advantages),
            **self._critic_gradients(batch, next_values),
            "advantage": advantages.mean(-1),
        }
        self._average_gradients(self._policy_and_critic_gradients)
        self._optimisers["policy"].param_groups[0]["lr"] = self._policy_learning_rate()
        self._optimisers["policy"].step()
        self._optimisers["critic"].step()
        return metrics

    def _policy_gradients(self, batch: TransitionBatch, advantages: Tensor) -> dict[str, Tensor]:
        per_seed = self.population.num_policies // len(self.population.seeds)
        outputs = self._policy_network(
            _repeat(batch.observations, per_seed), self._dropout_mask if self.config.dropout_rate > 0 else None
        )
        log_probabilities, derivatives, log_std_derivatives = self.action_kind.log_probability(
            outputs, self.policy.views.get("log_std"), _repeat(batch.actions, per_seed)
        )
        weights = losses.advantage_weights(
            _repeat(advantages, len(self.population.inverse_temperatures)), self._inverse_temperatures
        )
        loss, gradients = losses.policy_loss(log_probabilities, weights)
        self._policy_network.backward(gradients.unsqueeze(-1) * derivatives)
        if log_std_derivatives is not None:
            torch.sum(gradients.unsqueeze(-1) * log_std_derivatives, 1, out=self.policy.gradient_views["log_std"])
        return {
            "policy_loss": loss,
            "advantage_weight": weights.mean(-1),
            "capped_weight_share": (weights >= losses.MAX_ADVANTAGE_WEIGHT).mean(-1, dtype=weights.dtype),
        }

    def _critic_gradients(self, batch: TransitionBatch, next_values: Tensor) -> dict[str, Tensor]:
        bootstraps = self._bootstraps(batch, next_values)
        targets = losses.critic_target(
            self._per_critic(batch.rewards), self._per_critic(batch.terminations), bootstraps, self.config.discount
        )
        action_values = self._action_values(batch, self._critic_network)
        loss, gradients = self._objectives.loss(action_values, targets)
        output_gradients = self.action_kind.output_gradients(gradients, self._per_twin(batch.actions))
        self._critic_network.backward(output_gradients.flatten(0, 1))
        return {"critic_loss": loss, "action_value": action_values.mean((-2, -1))}

    def _bootstraps(self, batch: TransitionBatch, next_values: Tensor) -> Tensor:
        """What each critic's target continues with: V(s') in implicit Q-learning, see `critics.py` for the others."""
        of_next_actions = of_best_actions = None
        if self._objectives.needs_next_actions:
            assert batch.next_actions is not None
            next_pairs = replace(batch, observations=batch.next_observations, actions=batch.next_actions)
            of_next_actions = self._action_values(next_pairs, self._target_network).amin(1)
        if self._objectives.needs_best_actions:
            outputs = self._target_network(self._per_twin(batch.next_observations).flatten(0, 1))
            of_best_actions = self._by_twin(outputs).amin(1).amax(-1)
        return self._objectives.bootstraps(next_values, of_next_actions, of_best_actions)

    def _policy_learning_rate(self) -> float:
        """Cosine decay to 0 over the run on the policy's rate alone, as the authors (optax.cosine_decay_schedule)."""
        if self.config.policy_schedule == "constant":
            return self.config.learning_rate
        progress = min(self.update_count / self.num_updates, 1.0)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def _action_values(self, batch: TransitionBatch, critic: EnsembleMLP) -> Tensor:
        """Q_i(s, a), shape (critics, NUM_CRITICS, batch)."""
        inputs = self._per_twin(self.action_kind.critic_input(batch.observations, batch.actions))
        outputs = self._by_twin(critic(inputs.flatten(0, 1)))
        return self.action_kind.chosen(outputs, self._per_twin(batch.actions))

    def _by_twin(self, outputs: Tensor) -> Tensor:
        """(critics * NUM_CRITICS, ...) -> (critics, NUM_CRITICS, ...)."""
        return outputs.unflatten(0, (-1, NUM_CRITICS))

    def _per_twin(self, per_seed: Tensor) -> Tensor:
        """(seeds, ...) -> (critics, NUM_CRITICS, ...)."""
        return self._by_twin(_repeat(per_seed, len(self.population.expectiles) * NUM_CRITICS))

    def _values_of_both(self, batch: TransitionBatch) -> tuple[Tensor, Tensor]:
        """V(s) and V(s'), each (critics, batch), in one product."""
        both = self._per_critic(torch.cat([batch.observations, batch.next_observations], 1))
        values, next_values = self._value_network(both).squeeze(-1).chunk(2, -1)
        return values, next_values

    def _dropout_mask(self, features: Tensor) -> Tensor:
        """Inverted dropout with one mask per seed, shared by that seed's members as if each ran alone."""
        keep_rate = 1 - self.config.dropout_rate
        masks = [
            torch.rand(features.shape[1:], generator=generator, device=self._device) < keep_rate
            for generator in self._dropout_generators
        ]
        return _repeat(torch.stack(masks).to(features.dtype) / keep_rate, features.shape[0] // len(masks))

    def _with_seed_axis(self, batch: TransitionBatch) -> TransitionBatch:
        """A shared batch gets a leading seed axis, at no copy."""
        if batch.rewards.dim() == 2:
            return batch
        return batch.map(lambda tensor: tensor.expand(len(self.population.seeds), *tensor.shape))

    def _per_critic(self, per_seed: Tensor) -> Tensor:
        return _repeat(per_seed, len(self.population.expectiles))

    def _column(self, values: list[float]) -> Tensor:
        """One number per member, (members, 1), to broadcast over the batch."""
        return torch.tensor(values, device=self._device, dtype=self.value.values.dtype).unsqueeze(1)

    def _build_networks(self, dtype: torch.dtype) -> None:
        """Every network in a flat buffer; policy and critic share one for gradients, so that one average does."""
        initial = {name: networks.stack_members(self._initial_members(name), dtype, self._device) for name in TRAINED}
        sizes = [sum(tensor.numel() for tensor in initial[name].values()) for name in ("policy", "critic")]
        self._policy_and_critic_gradients = torch.zeros(sum(sizes), dtype=dtype, device=self._device)
        policy_gradients, critic_gradients = self._policy_and_critic_gradients.split(sizes)
        self.value = FlatParameters(initial["value"])
        self.policy = FlatParameters(initial["policy"], policy_gradients)
        self.critic = FlatParameters(initial["critic"], critic_gradients)
        self.target_critic = FlatParameters(initial["critic"])
        num_layers, workspace = len(self.config.hidden_sizes) + 1, networks.Workspace()
        self._value_network = EnsembleMLP(self.value, num_layers, workspace)
        self._policy_network = EnsembleMLP(self.policy, num_layers, workspace)
        self._critic_network = EnsembleMLP(self.critic, num_layers, workspace)
        self._target_network = EnsembleMLP(self.target_critic, num_layers, workspace)

    def _initial_members(self, name: str) -> list[dict[str, Tensor]]:
        """Initial layers of one network for every member; members of one seed start from the same numbers."""
        hidden, observation_dim, kind = self.config.hidden_sizes, self.spaces.observation_dim, self.action_kind
        seeds = [member.seed for member in self.population.members()]
        critic_seeds = seeds[:: len(self.population.inverse_temperatures)]
        if name == "value":
            return [networks.initial_layers((observation_dim, *hidden, 1), seed, name) for seed in critic_seeds]
        if name == "critic":
            sizes = (kind.critic_inputs, *hidden, kind.critic_outputs)
            return [
                networks.initial_layers(sizes, seed, name, twin) for seed in critic_seeds for twin in range(NUM_CRITICS)
            ]
        sizes = (observation_dim, *hidden, kind.policy_outputs)
        log_std = {"log_std": torch.zeros(kind.policy_outputs, dtype=torch.float64)} if kind.has_log_std else {}
        return [networks.initial_layers(sizes, seed, name) | log_std for seed in seeds]

    def _adam(self, parameters: FlatParameters) -> torch.optim.Adam:
        """Adam over one flat buffer; a first step on zero gradients moves nothing and creates its state."""
        optimiser = torch.optim.Adam([parameters.values], lr=self.config.learning_rate, fused=True)
        parameters.values.grad = parameters.gradients
        optimiser.step()
        (moments,) = optimiser.state.values()
        moments["step"].zero_()
        return optimiser


def _repeat(per_seed: Tensor, repeats: int) -> Tensor:
    """(members, ...) -> (members * repeats, ...), each member `repeats` times in a row, without a copy of one."""
    if repeats == 1:
        return per_seed
    members, *rest = per_seed.shape
    return per_seed.unsqueeze(1).expand(members, repeats, *rest).reshape(members * repeats, *rest)
