"""The toy maze's comparison in numbers: what was learned, beside the exact solutions of the same data.

Plain arrays in, means with intervals over seeds out. It trains nothing and runs no episode: the return of a policy is
solved on the maze's own model, so that it has no error but that of the seeds. Two models answer three questions:

    what a policy earns       the maze's true model
    what could be earned      V*, on the true model
    what the data teach       the data's own frequencies (the empirical model): V of each expectile, and the policy that
                              follows from it, are what perfect learning would get
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from iql_ray.algorithm.iql_config import CriticObjective, Member
from iql_ray.envs.maze_map import ACTIONS, tabular_model
from iql_ray.envs.tabular import (
    TabularModel,
    action_values,
    advantage_weighted_policy,
    behaviour_values,
    expectile_values,
    greedy_policy,
    most_likely_policy,
    optimal_values,
    policy_values,
)
from iql_ray.envs.umaze_data import MazeData
from iql_ray.evaluation.statistics import bootstrap_interval


class Estimate(NamedTuple):
    """A mean over seeds and its 95% bootstrap interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def over_seeds(cls, values: Sequence[float] | np.ndarray) -> Estimate:
        """Of one number per seed. Equal numbers are their own interval; so is a single one, which shows no spread."""
        return cls(float(np.mean(values)), *bootstrap_interval(values))


class Overestimate(NamedTuple):
    """How much more a critic promises than any policy can earn: the positive part of Q(s, a) - V*(s)."""

    num_actions: int
    """Pairs of a state and an action that it is taken over."""
    mean: Estimate
    """Over these pairs."""
    highest: Estimate
    """At the worst of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """What the members of a run say of every state of the maze.

    Policies are ordered as `Population.members()`; critics are fewer, one for all inverse temperatures of a member.
    """

    members: Sequence[Member]
    values: np.ndarray
    """(critics, S) V."""
    action_values: np.ndarray
    """(critics, S, A) Q, the minimum of the twins."""
    probabilities: np.ndarray
    """(policies, S, A)."""

    def __post_init__(self) -> None:
        num_policies, num_critics = len(self.probabilities), len(self.values)
        if num_policies != len(self.members) or num_policies % num_critics or num_critics != len(self.action_values):
            raise ValueError(
                f"got {len(self.members)} members, {num_policies} policies, V of {num_critics} and Q of"
                f" {len(self.action_values)} critics; expected a policy for each member, and V and Q for each critic,"
                " a number that divides it"
            )

    def policies_of(self, method: Member) -> np.ndarray:
        """Indices of the policies that are this member but for the seed."""
        return np.array([index for index, member in enumerate(self.members) if member[1:] == method[1:]])

    def critics_of(self, policies: np.ndarray) -> np.ndarray:
        """Indices of the critics behind these policies."""
        return policies // (len(self.members) // len(self.values))


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """One method on one dataset, over its seeds."""

    earned: Estimate
    """Return of the most likely action, from the start."""
    sampled: Estimate
    """Return of actions sampled from the policy."""
    values: np.ndarray
    """(S,) the critic's V, mean over seeds."""
    actions: np.ndarray
    """(S,) the action that most seeds' policies think most likely; -1 at the goal."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MazeStudy:
    """A dataset with its exact solutions, and the measures of what was learned from it."""

    data: MazeData

    @cached_property
    def model(self) -> TabularModel:
        return tabular_model(self.data.maze)

    @cached_property
    def empirical_model(self) -> TabularModel:
        return self.data.empirical_model

    @cached_property
    def behaviour(self) -> np.ndarray:
        """(S, A) the data's frequencies of actions."""
        return self.data.behaviour

    @cached_property
    def optimal_values(self) -> np.ndarray:
        """(S,) V*."""
        return optimal_values(self.model)

    @cached_property
    def behaviour_values(self) -> np.ndarray:
        """(S,) what the data's own policy earns."""
        return behaviour_values(self.model, self.behaviour)

    @property
    def start(self) -> int:
        return self.data.maze.start_state

    @property
    def best(self) -> float:
        """V* of the start: what the best policy earns."""
        return float(self.optimal_values[self.start])

    @cached_property
    def is_action(self) -> np.ndarray:
        """(S, A) bool: what can be done at all; nothing is done at the goal."""
        return np.repeat(~self.model.is_terminal[:, None], len(ACTIONS), axis=1)

    @cached_property
    def is_shown(self) -> np.ndarray:
        """(S, A) bool: what the data have done somewhere."""
        return self.behaviour > 0

    @property
    def best_data(self) -> float:
        """Discounted return of the best trajectory that begins at the start; 0 where none does."""
        firsts = np.searchsorted(self.data.episodes, np.arange(self.data.num_episodes))
        from_start = self.data.states[firsts] == self.start
        return float(self.data.returns(self.model.discount)[from_start].max(initial=0.0))

    def earned(self, policy: np.ndarray) -> float:
        """The exact return of (S, A) probabilities from the start."""
        return float(policy_values(self.model, policy)[self.start])

    def exact_values(self, expectile: float) -> np.ndarray:
        """(S,) V of an expectile on the data's own frequencies."""
        return expectile_values(self.empirical_model, self.behaviour, expectile)

    def exact_policy(self, expectile: float, inverse_temperature: float) -> np.ndarray:
        """(S, A) the policy that follows from `exact_values`, at its most likely action."""
        values = self.exact_values(expectile)
        quality = action_values(self.empirical_model, values)
        return most_likely_policy(advantage_weighted_policy(values, quality, self.behaviour, inverse_temperature))

    def outcome(self, learned: Learned, method: Member) -> Outcome:
        """What a member's method earns and its critic says, whatever the member's seed."""
        policies = learned.policies_of(method)
        return self._outcome(learned.probabilities[policies], learned.values[learned.critics_of(policies)])

    def greedy_outcome(self, learned: Learned, critic: CriticObjective = "td") -> Outcome:
        """What earns who takes the critic's best action of all, seen or not, and what the critic promises for it."""
        quality = learned.action_values[self._critics(learned, critic)]
        return self._outcome(np.array([greedy_policy(each) for each in quality]), quality.max(axis=-1))

    def value_error(self, learned: Learned, expectile: float) -> Estimate:
        """Mean |V - exact V| over the states that the data visit, as a share of V*'s maximum."""
        values = learned.values[self._critics(learned, "implicit", expectile)]
        visited = self.behaviour.any(axis=1)
        errors = np.abs(values - self.exact_values(expectile))[:, visited].mean(axis=1)
        return Estimate.over_seeds(errors / self.optimal_values.max())

    def overestimate(self, learned: Learned, critic: CriticObjective, *, outside_data: bool) -> Overestimate | None:
        """Over all actions, or over those that the data never show; None where there are none."""
        pairs = self.is_action & ~self.is_shown if outside_data else self.is_action
        if not pairs.any():
            return None
        quality = learned.action_values[self._critics(learned, critic)]
        excess = np.maximum(quality - self.optimal_values[:, None], 0.0)[:, pairs]
        return Overestimate(
            num_actions=int(pairs.sum()),
            mean=Estimate.over_seeds(excess.mean(axis=1)),
            highest=Estimate.over_seeds(excess.max(axis=1)),
        )

    def choice(self, learned: Learned, method: Member, action: int) -> Estimate:
        """How likely a member's method takes an action in the start."""
        return Estimate.over_seeds(learned.probabilities[learned.policies_of(method), self.start, action])

    def _critics(self, learned: Learned, critic: CriticObjective, expectile: float | None = None) -> np.ndarray:
        """Indices of the critics of every seed."""
        matching = (each for each in learned.members if each.critic == critic and expectile in (None, each.expectile))
        return learned.critics_of(learned.policies_of(next(matching)))

    def _outcome(self, probabilities: np.ndarray, values: np.ndarray) -> Outcome:
        """Of (seeds, S, A) and (seeds, S)."""
        certain = np.array([most_likely_policy(each) for each in probabilities])
        actions = certain.sum(axis=0).argmax(axis=-1)
        return Outcome(
            earned=Estimate.over_seeds([self.earned(each) for each in certain]),
            sampled=Estimate.over_seeds([self.earned(each) for each in probabilities]),
            values=values.mean(axis=0),
            actions=np.where(self.model.is_terminal, -1, actions),
        )
