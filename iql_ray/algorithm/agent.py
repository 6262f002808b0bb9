"""The IQL agent: a population of implicit Q-learning runs updated together from batches of transitions.

It computes on tensors and knows no files, no environments and no Ray: data comes in as a `TransitionBatch`,
gradients of several learners are averaged by an injected function, policies leave as plain arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iql_ray.algorithm import networks
from iql_ray.algorithm.action_kinds import action_kind
from iql_ray.algorithm.compiled_update import CompiledUpdate, Precision, check_compilable
from iql_ray.algorithm.critics import check_objectives
from iql_ray.algorithm.held_networks import TRAINED, AverageGradients, HeldNetworks
from iql_ray.algorithm.iql_config import IQLConfig, Member, Population
from iql_ray.algorithm.update_rule import NUM_CRITICS, Learns, UpdateRule, by_twin, repeat_members
from iql_ray.experience import Spaces, TransitionBatch
from iql_ray.seeding import child_seed


class Scheduled(NamedTuple):
    """What an update depends on beside networks and data; numbers, or tensors () on the device."""

    policy_learning_rate: float | Tensor
    temperature_share: float | Tensor
    """Of every inverse temperature; for policies that are learned from critics that stay."""


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
        is_compiled: run the update compiled, see `compiled_update.py`.
        precision: of a compiled update's matrix products; tf32 is float32 to the agent, and a switch of the process.
        learns: everything, critics alone, or policies alone from critics that stay. Beside critics that are learning,
            advantages grow slowly; from critics that stay, the inverse temperature rises linearly over `num_updates`
            instead: sharp weights lead an untrained policy somewhere that it does not come back from.

    Raises:
        ValueError: an objective that these actions cannot have, an update that cannot be compiled, or a precision that
            only a compiled one has.
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
        is_compiled: bool = False,
        precision: Precision = "float32",
        learns: Learns = "everything",
    ) -> None:
        self.config = config
        self.spaces = spaces
        self.population = population or Population.of_one(config, seed)
        self.action_kind = action_kind(spaces)
        check_objectives(self.population, spaces)
        self.num_updates = num_updates
        self.update_count = 0
        self._device = torch.device(device)
        self._dropout_generators = [
            torch.Generator(self._device).manual_seed(child_seed(each, "dropout", rank))
            for each in self.population.seeds
        ]
        initial = {name: networks.stack_members(self._initial_members(name), dtype, self._device) for name in TRAINED}
        self.networks = HeldNetworks(initial, config, average_gradients)
        make_mask = self._dropout_mask if config.dropout_rate > 0 else None
        like = initial["value"]["0.bias"]
        self._rule = UpdateRule(config, self.population, self.action_kind, make_mask, like, learns)
        self._compiled = None
        if precision == "bf16" and not is_compiled:
            raise ValueError(f"precision {precision} is of compiled updates, and this one is not to be compiled")
        if is_compiled:
            check_compilable()
            self._compiled = CompiledUpdate(self._rule, self.networks, make_mask, precision)

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
        metrics = self.move(batch, self.scheduled(self.update_count))
        self.update_count += 1
        return metrics

    @torch.no_grad()
    def move(self, batch: TransitionBatch, scheduled: Scheduled) -> dict[str, Tensor]:
        """What `update` does on the device; it counts nothing, and may be captured where `is_one_graph`."""
        batch = self._with_seed_axis(batch)
        if not self._rule.moves_value:  # from critics that stay
            self._rule.soften(scheduled.temperature_share)
        if self._compiled is not None:
            return self._compiled(batch, scheduled.policy_learning_rate)
        return self._rule(self.networks, batch, float(scheduled.policy_learning_rate))

    def scheduled(self, update_count: int) -> Scheduled:
        """Of the update after so many."""
        share = min((update_count + 1) / self.num_updates, 1.0)
        return Scheduled(self._policy_learning_rate(update_count), share)

    @property
    def is_one_graph(self) -> bool:
        """Whether an update has run compiled, as one graph."""
        return self._compiled is not None and self._compiled.is_one_graph

    @property
    def generators(self) -> list[torch.Generator]:
        """That an update draws from, on the device."""
        return list(self._dropout_generators)

    @property
    def device(self) -> torch.device:
        return self._device

    @torch.no_grad()
    def values(self, observations: Tensor) -> Tensor:
        """V(s) of every critic, (critics, batch), for observations (batch, observation_dim)."""
        return self.networks.value(observations.expand(self.population.num_critics, -1, -1)).squeeze(-1)

    @torch.no_grad()
    def all_action_values(self, observations: Tensor) -> Tensor:
        """min_i Q_i(s, a) of every discrete action, (critics, batch, num_actions), for observations (batch, ...)."""
        assert self.spaces.is_discrete
        inputs = observations.expand(NUM_CRITICS * self.population.num_critics, -1, -1)
        return by_twin(self.networks.critic(inputs)).amin(1)

    def policy_weights(self, member: int = 0) -> dict[str, Tensor]:
        """One member's policy network under `iql_ray.policy.Policy`'s names (`hidden.K.weight`, ...), float32."""
        last = len(self.config.hidden_sizes)
        weights = {}
        for name, view in self.networks.parameters["policy"].views.items():
            layer, _, kind = name.partition(".")
            role = self.action_kind.policy_layer if layer == str(last) else f"hidden.{layer}"
            weights[f"{role}.{kind}" if kind else name] = view[member].to("cpu", torch.float32)
        return weights

    def tensors(self) -> dict[str, Tensor]:
        """Everything on the device that training changes, by name: networks, target, optimiser moments and steps.

        The tensors are the live ones: writing into one changes the agent.
        """
        return self.networks.tensors()

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

    def adopt(self, source: IQLAgent, *, critics_alone: bool = False) -> None:
        """Take every member over from an agent that has it among others, as it stands there.

        Args:
            source: of the same architecture.
            critics_alone: the policies, and the count of updates, stay what they are.

        Raises:
            ValueError: the source has no such member, or another architecture.
        """
        members, sources = self.population.members(), source.population.members()
        critics = _positions(_critics_of(self.population), _critics_of(source.population))
        twins = [critic * NUM_CRITICS + twin for critic in critics for twin in range(NUM_CRITICS)]
        rows = {"value": critics, "critic": twins, "target_critic": twins}
        if not critics_alone:
            rows["policy"] = _positions(members, sources)
            self.update_count = source.update_count
            of_seed = dict(zip(source.population.seeds, source._dropout_generators, strict=True))
            for seed, generator in zip(self.population.seeds, self._dropout_generators, strict=True):
                generator.set_state(of_seed[seed].get_state())
        for name, each in rows.items():
            self.networks.adopt(name, source.networks, each)

    def _policy_learning_rate(self, update_count: int) -> float:
        """Cosine decay to 0 over the run on the policy's rate alone, as the authors (optax.cosine_decay_schedule)."""
        if self.config.policy_schedule == "constant":
            return self.config.learning_rate
        progress = min(update_count / self.num_updates, 1.0)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def _dropout_mask(self, features: Tensor) -> Tensor:
        """Inverted dropout with one mask per seed, shared by that seed's members as if each ran alone."""
        keep_rate = 1 - self.config.dropout_rate
        masks = [
            torch.rand(features.shape[1:], generator=generator, device=self._device) < keep_rate
            for generator in self._dropout_generators
        ]
        return repeat_members(torch.stack(masks).to(features.dtype) / keep_rate, features.shape[0] // len(masks))

    def _with_seed_axis(self, batch: TransitionBatch) -> TransitionBatch:
        """A shared batch gets a leading seed axis, at no copy."""
        if batch.rewards.dim() == 2:
            return batch
        return batch.map(lambda tensor: tensor.expand(len(self.population.seeds), *tensor.shape))

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


def _critics_of(population: Population) -> list[Member]:
    """One member of each critic, with the policy's part left out."""
    of_each = population.members()[:: len(population.inverse_temperatures)]
    return [member._replace(inverse_temperature=0.0) for member in of_each]


def _positions(wanted: Sequence[Member], there: Sequence[Member]) -> list[int]:
    missing = [member for member in wanted if member not in there]
    if missing:
        raise ValueError(f"no member {missing[0]} to take over; there are {list(there)}")
    return [there.index(member) for member in wanted]
