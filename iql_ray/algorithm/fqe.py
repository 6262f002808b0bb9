"""Fitted Q evaluation (Le et al. 2019, arXiv:1903.08738): the value of a policy, learned from logged transitions.

    Q_k(s, a)  <-  r + discount * (1 - termination) * Q_target_k(s', pi(s'))        k: members of an ensemble

Every member has initial weights of its own and a bootstrap over *episodes* of its own (Hao et al. 2021,
arXiv:2102.03607: rows of one episode are no independent draws). Which policy it is enters only as what it does in every
row's next state, worked out beforehand, so nothing here knows policies, files or environments.

Q is learned in units of the data, (value - center) / spread, but every number that goes in or out is in the rewards'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from iql_ray.algorithm import losses
from iql_ray.algorithm.action_kinds import action_kind
from iql_ray.algorithm.fqe_config import FQEConfig
from iql_ray.algorithm.networks import FlatParameters, initial_layers, stack_members
from iql_ray.algorithm.normed_mlp import NormedMLP
from iql_ray.experience import Spaces, TransitionBatch
from iql_ray.seeding import child_seed

ROWS_PER_READING = 4096
CURVE_POINTS = 20
"""Readings of the estimate while it is learned, evenly spaced, the last one at the end."""


@dataclass(frozen=True, kw_only=True)
class PolicyAt:
    """What a policy does in a number of states."""

    observations: Tensor
    """(rows, observation_dim)."""
    choices: Tensor
    """Box actions: (samples, rows, action_dim), that many draws per state, one is enough where the policy does not
    draw. Discrete actions: (1, rows, num_actions) probabilities, so that expectations are exact."""


@dataclass(frozen=True, kw_only=True)
class ValueScale:
    """Units and limits of values, all in the rewards' units."""

    center: float
    spread: float
    low: float
    """No sum of discounted rewards is below."""
    high: float

    @classmethod
    def of(cls, returns: Tensor, rewards: Tensor, discount: float, has_terminations: bool) -> ValueScale:
        """From discounted returns-to-go and the rewards that they add up.

        Where nothing terminates, every sum has all its terms; a termination leaves one of them at least.
        """
        worst, best = float(rewards.min()), float(rewards.max())
        low, high = worst / (1 - discount), best / (1 - discount)
        if has_terminations:
            low, high = min(low, worst), max(high, best)
        spread = float(returns.std(correction=0))
        return cls(center=float(returns.mean()), spread=spread if spread > 0 else 1.0, low=low, high=high)


class EpisodeBootstrap:
    """Minibatches of row indices, for every member uniform over the rows of its own resampled episodes.

    Args:
        episodes: (rows,) which episode each row is of, 0 .. num_episodes - 1.
        seed: equal seeds draw equal episodes, whichever rows of them there are.
    """

    def __init__(self, episodes: Tensor, num_episodes: int, num_members: int, seed: int) -> None:
        rows = torch.arange(len(episodes), device=episodes.device)
        generator = torch.Generator().manual_seed(child_seed(seed, "fqe", "episodes"))
        self._rows = []
        for _ in range(num_members):
            draws = torch.randint(num_episodes, (num_episodes,), generator=generator)
            counts = torch.bincount(draws, minlength=num_episodes).to(episodes.device)
            drawn = rows.repeat_interleave(counts[episodes])
            self._rows.append(drawn if len(drawn) else rows)  # a few episodes, and none of those with a row was drawn
        self._generator = torch.Generator(episodes.device).manual_seed(child_seed(seed, "fqe", "minibatches"))

    def draw(self, batch_size: int) -> Tensor:
        """(members, batch) row indices."""
        return torch.stack([rows[self._randint(len(rows), batch_size)] for rows in self._rows])

    def _randint(self, high: int, size: int) -> Tensor:
        return torch.randint(high, (size,), generator=self._generator, device=self._generator.device)


class QEnsemble:
    """Q networks of all members, each with its target.

    Args:
        scale: units in which Q is learned, and the limits that targets are held within.
        seed: of the initial weights; every member has others.
        start: an ensemble of the same sizes and units to go on from.
    """

    def __init__(
        self,
        spaces: Spaces,
        config: FQEConfig,
        scale: ValueScale,
        seed: int,
        device: torch.device | str = "cpu",
        start: QEnsemble | None = None,
    ) -> None:
        self.kind = action_kind(spaces)
        self.scale = scale
        sizes = (self.kind.critic_inputs, *config.fqe_hidden_sizes, self.kind.critic_outputs)
        members = [initial_layers(sizes, seed, "fqe", member) for member in range(config.fqe_members)]
        tensors = stack_members(members, torch.float32, torch.device(device))
        self.critic, self.target = FlatParameters(tensors), FlatParameters(tensors)
        if start is not None:
            self.critic.values.copy_(start.critic.values)
            self.target.values.copy_(start.target.values)
        self._network = NormedMLP(self.critic, len(sizes) - 1)
        self._target_network = NormedMLP(self.target, len(sizes) - 1)
        self.optimiser = torch.optim.Adam([self.critic.values], lr=config.fqe_learning_rate, fused=True)
        self.critic.values.grad = self.critic.gradients
        self._target_rate = config.fqe_target_rate
        self._num_members = config.fqe_members
        self._is_discrete = spaces.is_discrete

    @torch.no_grad()
    def update(self, batch: TransitionBatch, next_choices: Tensor, discount: float) -> Tensor:
        """One step of every member on its own minibatch, then of its target; the target is fixed meanwhile.

        Args:
            batch: (members, batch, ...).
            next_choices: what the policy does in the next states, (members, batch, action_dim or num_actions).

        Returns:
            Mean squared error in units of the spread, (members,).
        """
        targets = self._targets(batch, next_choices, discount)
        inputs = self.kind.critic_input(batch.observations, batch.actions)
        values = self.kind.chosen(self._network.traced(inputs), batch.actions)
        loss, gradients = losses.critic_loss(values.unsqueeze(-2), targets)
        self._network.backward(self.kind.output_gradients(gradients.squeeze(-2), batch.actions))
        self.optimiser.step()
        self.target.values.lerp_(self.critic.values, self._target_rate)
        return loss

    @torch.no_grad()
    def values(self, policy: PolicyAt) -> Tensor:
        """(members, rows) values of the states under the policy, in the rewards' units, by the targets: they are the
        networks' running means."""
        parts = []
        for start in range(0, len(policy.observations), ROWS_PER_READING):
            part = slice(start, start + ROWS_PER_READING)
            observations = policy.observations[part].expand(self._num_members, -1, -1)
            draws = [
                self._under_policy(observations, choices[part].expand(self._num_members, -1, -1))
                for choices in policy.choices
            ]
            parts.append(torch.stack(draws).mean(0))
        return self.scale.center + self.scale.spread * torch.cat(parts, 1)

    def _targets(self, batch: TransitionBatch, next_choices: Tensor, discount: float) -> Tensor:
        """Of Q in units of the spread; held within what rewards can add up to, so that an error cannot feed itself."""
        scale = self.scale
        next_values = scale.center + scale.spread * self._under_policy(batch.next_observations, next_choices)
        targets = losses.critic_target(batch.rewards, batch.terminations, next_values, discount)
        return (targets.clamp(scale.low, scale.high) - scale.center) / scale.spread

    def _under_policy(self, observations: Tensor, choices: Tensor) -> Tensor:
        """Q_target(s, pi(s)) in units of the spread, (members, rows)."""
        outputs = self._target_network(self.kind.critic_input(observations, choices))
        return (outputs * choices).sum(-1) if self._is_discrete else outputs.squeeze(-1)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What was learned, and how its estimate got there."""

    ensemble: QEnsemble
    curve: Tensor
    """(CURVE_POINTS, members) mean value of the initial states, read while it was learned."""


class PackedTransitions:
    """Transitions with what the policy does after each, as one matrix, so that a minibatch is one gather.

    Args:
        transitions: (rows, ...) rewards raw, everything else in the networks' units.
        next_choices: what the policy does in each row's next state; see `PolicyAt.choices`.
    """

    def __init__(self, transitions: TransitionBatch, next_choices: Tensor) -> None:
        parts = [
            each.unsqueeze(-1) if each.dim() == 1 else each for each in vars(transitions).values() if each is not None
        ]
        self._widths = [part.shape[-1] for part in (*parts, *next_choices)]
        self._rows = torch.cat([*parts, *next_choices], -1)

    def take(self, indices: Tensor, draw: int) -> tuple[TransitionBatch, Tensor]:
        """(members, batch) rows, and what the policy does after them in that draw, in turn."""
        rows = self._rows.index_select(0, indices.flatten()).unflatten(0, indices.shape)
        observations, actions, rewards, next_observations, terminations, *choices = rows.split(self._widths, -1)
        batch = TransitionBatch(
            observations=observations,
            actions=actions,
            rewards=rewards.squeeze(-1),
            next_observations=next_observations,
            terminations=terminations.squeeze(-1),
        )
        return batch, choices[draw % len(choices)]


def fit(
    ensemble: QEnsemble,
    rows: PackedTransitions,
    bootstrap: EpisodeBootstrap,
    initial: PolicyAt,
    *,
    config: FQEConfig,
    discount: float,
) -> Fit:
    """Train the ensemble for the configured number of updates.

    Args:
        rows: to train on.
        initial: held-out first states and what the policy does there; they are read, never trained on.
        discount: in [0, 1).
    """
    curve: list[Tensor] = []
    for update in range(config.fqe_updates):
        ensemble.optimiser.param_groups[0]["lr"] = _decayed(config.fqe_learning_rate, update / config.fqe_updates)
        batch, next_choices = rows.take(bootstrap.draw(config.fqe_batch_size), update)
        ensemble.update(batch, next_choices, discount)
        if (update + 1) * CURVE_POINTS // config.fqe_updates > len(curve):
            curve.append(ensemble.values(initial).mean(-1))
    return Fit(ensemble=ensemble, curve=torch.stack(curve))


def remaining_share(config: FQEConfig, discount: float) -> float:
    """How much of a wrong start a fit leaves in its estimate, at most, however well every minibatch is learned.

    An error that all states share shrinks by its (1 - discount) in whatever part of Q has moved into the target.
    """
    return math.exp(-config.fqe_updates * config.fqe_target_rate * (1 - discount))


def _decayed(learning_rate: float, progress: float) -> float:
    """Cosine decay to 0."""
    return learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
