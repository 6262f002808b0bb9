"""A block of experience: filled step by step by environments side by side, merged with the blocks of others.

The order of a block does not depend on which worker had which environments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from iql_ray.experience import Collected, Experience


class Block:
    """Room for `num_steps` of every environment, (num_steps, environments, ...).

    A row counts where whoever fills it sets `is_recorded`.
    """

    def __init__(self, num_steps: int, environments: Sequence[int], observation_dim: int, action_dim: int) -> None:
        shape = (num_steps, len(environments))
        self.observations = np.zeros((*shape, observation_dim), np.float32)
        self.next_observations = np.zeros((*shape, observation_dim), np.float32)
        self.actions = np.zeros((*shape, action_dim), np.float32)
        self.rewards = np.zeros(shape, np.float32)
        self.terminations = np.zeros(shape, bool)
        self.truncations = np.zeros(shape, bool)
        self.episodes = np.zeros(shape, np.int32)
        self.steps = np.zeros(shape, np.int32)
        self.is_recorded = np.zeros(shape, bool)
        self._environments = np.broadcast_to(np.array(environments, np.int32), shape)

    def experience(self, policy_version: int) -> Experience:
        """What was recorded: rows by step, then by environment."""
        arrays = {name: values for name, values in vars(self).items() if name in _FIELDS}
        arrays["environments"] = self._environments
        arrays["policy_versions"] = np.full(self.rewards.shape, policy_version, np.int64)
        if self.is_recorded.all():
            return Experience(**{name: _rows(values) for name, values in arrays.items()})
        return Experience(**{name: values[self.is_recorded] for name, values in arrays.items()})


_FIELDS = {field.name for field in fields(Experience)}


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *values.shape[2:])


def merge(parts: Sequence[Collected]) -> Collected:
    """What several workers collected at the same time from different environments, as if one had.

    Rows are ordered by their place among those of their environment, then by environment. Without failures that is by
    step of the block; the rows after a failed step move up.
    """
    experience = Experience.joined([part.experience for part in parts])
    order = _order(experience)
    # Every finished episode has its last row, in the same order: so the episodes follow the rows.
    lasts = np.flatnonzero(experience.terminations | experience.truncations)
    finished = [result for part in parts for result in part.finished]
    assert len(lasts) == len(finished), f"{len(finished)} finished episodes, {len(lasts)} last rows"
    return Collected(
        experience=experience.rows(order),
        finished=tuple(finished[index] for index in np.argsort(np.argsort(order)[lasts])),
        failures=tuple(sorted((one for part in parts for one in part.failures), key=_environment)),
        stands=tuple(sorted((one for part in parts for one in part.stands), key=_environment)),
        quarantined=tuple(sorted(one for part in parts for one in part.quarantined)),
    )


def _environment(item: Any) -> int:
    return item.environment


def _order(experience: Experience) -> np.ndarray:
    environments = experience.environments
    by_environment = np.argsort(environments, kind="stable")
    _, starts, counts = np.unique(environments[by_environment], return_index=True, return_counts=True)
    places = np.empty(len(environments), np.int64)
    places[by_environment] = np.arange(len(environments)) - np.repeat(starts, counts)
    return np.lexsort((environments, places))
