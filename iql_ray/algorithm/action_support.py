"""How far a policy's actions are from those of the data in similar states: where they are, a value is made up.

Similar states are the nearest ones by Euclidean distance between standardised observations, in episodes other than
the state's own. The data's own actions are measured in the same way, so that the reader knows what is usual.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_NEIGHBOURS = 50
USUAL_SHARE = 0.95
"""Of the data's own box actions, this share counts as supported."""
ROWS_PER_SEARCH = 256


@dataclass(frozen=True, kw_only=True)
class ActionSupport:
    """Shares of states in [0, 1], of all states asked about."""

    policy_unsupported_share: float
    """Where the policy's action is unlike all those of similar states."""
    data_unsupported_share: float
    """The same of the action that was logged there."""
    policy_distance: float | None = None
    """Box actions: mean distance from the policy's action to the nearest one of similar states, over the data's own;
    1 is as near as the data are to themselves."""


def box_support(nearest_actions: Tensor, policy_actions: Tensor, logged_actions: Tensor) -> ActionSupport:
    """An action is unsupported if it is further from every action of the similar states than 95% of the logged ones.

    Args:
        nearest_actions: (states, neighbours, action_dim) what was done in similar states.
        policy_actions, logged_actions: (states, action_dim).
    """
    of_policy, of_data = (
        (nearest_actions - actions.unsqueeze(1)).square().sum(-1).amin(1).sqrt()
        for actions in (policy_actions, logged_actions)
    )
    usual = torch.quantile(of_data, USUAL_SHARE)
    tiny = torch.finfo(of_data.dtype).tiny
    return ActionSupport(
        policy_unsupported_share=float((of_policy > usual).float().mean()),
        data_unsupported_share=float((of_data > usual).float().mean()),
        policy_distance=float(of_policy.mean() / of_data.mean().clamp(min=tiny)),
    )


def discrete_support(nearest_actions: Tensor, probabilities: Tensor, logged_actions: Tensor) -> ActionSupport:
    """An action is unsupported if it was taken in none of the similar states; shares are of the policy's probability.

    Args:
        nearest_actions: (states, neighbours, 1) indices of what was done in similar states.
        probabilities: (states, num_actions) of the policy.
        logged_actions: (states, 1) indices.
    """
    is_taken = torch.zeros_like(probabilities).scatter_(1, nearest_actions.squeeze(-1).long(), 1.0)
    return ActionSupport(
        policy_unsupported_share=float((probabilities * (1 - is_taken)).sum(-1).mean()),
        data_unsupported_share=float(1 - is_taken.gather(1, logged_actions.long()).mean()),
    )


def nearest_rows(observations: Tensor, among: Tensor, num_neighbours: int = NUM_NEIGHBOURS) -> Tensor:
    """(states, neighbours) indices into `among` of the nearest rows, both (rows, observation_dim)."""
    num_neighbours = min(num_neighbours, len(among))
    parts = [
        torch.cdist(part, among).topk(num_neighbours, largest=False).indices
        for part in observations.split(ROWS_PER_SEARCH)
    ]
    return torch.cat(parts)
