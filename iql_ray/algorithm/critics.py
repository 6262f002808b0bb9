"""What a critic can learn: the objective of IQL and those that the paper compares it with, as choices of one agent.

With Q the minimum of the twin target critics (equations of Kostrikov et al. 2021, arXiv:2110.06169):

    implicit   8     r + discount * V(s')            mean squared error; V is the expectile of Q over the data's actions
    sarsa      3     r + discount * Q(s', a')        mean squared error; a' is what the data did next
    single-q   5, 6  r + discount * Q(s', a')        the expectile's error; a lucky s' counts like a good action
    td         1     r + discount * max_a Q(s', a)   mean squared error; the maximum sees actions outside the data

Every one of them has a V, learned from its own Q; outside implicit Q-learning it is only what the policy's advantage is
measured against. It is the member's expectile of Q, but the mean in single-q, whose expectile is the critic's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iql_ray.algorithm import losses
from iql_ray.algorithm.iql_config import NEXT_ACTION_OBJECTIVES, CriticObjective, Population
from iql_ray.experience import Spaces


class CriticObjectives:
    """The objectives of a population's critics, as masks and columns over their leading axis.

    Args:
        objectives: one per critic.
        expectiles: (critics, 1), of the members that the critics belong to.
    """

    def __init__(self, objectives: Sequence[CriticObjective], expectiles: Tensor) -> None:
        self.needs_next_actions = any(each in NEXT_ACTION_OBJECTIVES for each in objectives)
        self.needs_best_actions = "td" in objectives
        self._takes_next_action = _mask([each in NEXT_ACTION_OBJECTIVES for each in objectives], expectiles)
        self._takes_best_action = _mask([each == "td" for each in objectives], expectiles)
        is_single = _mask([each == "single-q" for each in objectives], expectiles)
        middle = torch.full_like(expectiles, 0.5)
        self.value_expectiles = torch.where(is_single, middle, expectiles)
        self._critic_expectiles = None
        if "single-q" in objectives:
            self._critic_expectiles = torch.where(is_single, expectiles, middle).unsqueeze(-1)

    def bootstraps(self, next_values: Tensor, of_next_actions: Tensor | None, of_best_actions: Tensor | None) -> Tensor:
        """What each critic's target continues with, (critics, batch).

        Args:
            next_values: V(s'), (critics, batch).
            of_next_actions: Q(s', a') of the data's next actions; None where nobody needs it.
            of_best_actions: max_a Q(s', a); None where nobody needs it.
        """
        if of_next_actions is not None:
            next_values = torch.where(self._takes_next_action, of_next_actions, next_values)
        if of_best_actions is not None:
            next_values = torch.where(self._takes_best_action, of_best_actions, next_values)
        return next_values

    def loss(self, action_values: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Of (critics, twins, batch) against (critics, batch), with its gradient; see `losses.critic_loss`."""
        return losses.critic_loss(action_values, targets, self._critic_expectiles)


def check_objectives(population: Population, spaces: Spaces) -> None:
    """Refuse an objective that these actions cannot have.

    Raises:
        ValueError: td over box actions.
    """
    if "td" in population.objectives and not spaces.is_discrete:
        raise ValueError(
            "critic td takes a maximum over all actions, which needs discrete ones; the dataset has "
            f"{spaces.action_dim}-dimensional box actions: use implicit, sarsa or single-q"
        )


def _mask(values: list[bool], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).unsqueeze(-1)
