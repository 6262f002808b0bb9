"""Acting for environments that step side by side, so that each sees the same bits in whatever company.

A matrix product changes its last bits with its number of rows, and a chaotic environment makes different episodes of
them. So a policy always acts on full groups of GROUP_WIDTH rows, and every row has noise of its own. Nothing here
steps an environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from iql_ray.policy import Policy

GROUP_WIDTH = 8
"""Rows of every batch that a policy acts on. Another width, other last bits."""
SUCCESS_KEYS = ("success", "is_success", "goal_achieved")
"""Where environments report success in a step's info; the first one present counts."""


def success_after(before: bool | None, info: dict[str, Any]) -> bool | None:
    """Success at any step is success; None until the environment reports."""
    for key in SUCCESS_KEYS:
        if key in info:
            return bool(before) or bool(info[key])
    return before


class RowNoise:
    """A generator per row, behind those two methods of numpy's Generator that `Policy.act` draws with.

    Args:
        generators: by row; other rows get zeros.
        num_ahead: how many batches are drawn at a time. The numbers are the same as one by one, in a fraction of the
            time, as long as only one of the two methods is used, with one size.
    """

    def __init__(self, generators: Mapping[int, np.random.Generator], num_ahead: int = 1) -> None:
        self._generators = generators
        self._num_ahead = num_ahead
        self._drawn = iter(())

    def standard_normal(self, size: tuple[int, ...], dtype: Any) -> Any:
        return self._next(size, dtype, lambda generator, shape: generator.standard_normal(shape, dtype))

    def random(self, size: tuple[int, ...]) -> Any:
        return self._next(size, np.float64, lambda generator, shape: generator.random(shape))

    def _next(self, size: tuple[int, ...], dtype: Any, draw: Callable[..., Any]) -> Any:
        if (batch := next(self._drawn, None)) is not None:
            return batch
        batches = np.zeros((self._num_ahead, *size), dtype)
        for row, generator in self._generators.items():
            batches[:, row] = draw(generator, (self._num_ahead, *size[1:]))
        self._drawn = iter(batches)
        return next(self._drawn)


class Explorer:
    """A policy that acts for some of a run's environments for a number of steps, with exploration noise.

        environments 6, 7, 8, 9 of the run are       group 0: 0 0 0 0 0 0 6 7
        columns 0 to 3 of what comes and goes;       group 1: 8 9 0 0 0 0 0 0     the rest stays zero

    Args:
        policy: acts on raw observations.
        generators: the noise of each environment, by its number in the run; each is drawn on once per step.
        temperature: of `Policy.act`.
        epsilon: how likely an environment's action is any of the choices, all equally likely.
        num_steps: how many times `act` will be called, at most: noise is drawn that far ahead.

    Raises:
        ValueError: an epsilon above 0 for actions that are no choices.
    """

    def __init__(
        self,
        policy: Policy,
        generators: Mapping[int, np.random.Generator],
        *,
        temperature: float,
        epsilon: float,
        num_steps: int,
    ) -> None:
        self._num_choices = policy.description.num_actions
        if epsilon > 0.0 and self._num_choices is None:
            raise ValueError(
                f"epsilon is {epsilon} for a {policy.description.kind} policy, expected 0: it is for discrete actions; "
                "explore by temperature"
            )
        self._policy, self._temperature, self._epsilon = policy, temperature, epsilon
        groups = sorted({environment // GROUP_WIDTH for environment in generators})
        self._places = np.array([_place(environment, groups) for environment in generators])
        self._observations = np.zeros((len(groups), GROUP_WIDTH, policy.description.observation_dim), np.float32)
        # Two kinds of draws take turns where there is an epsilon.
        num_ahead = 1 if epsilon > 0.0 else num_steps
        self._noises = [
            cast(np.random.Generator, RowNoise(_of_group(group, generators), num_ahead)) for group in groups
        ]

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Actions for observations (environments, observation_dim), in the order of the generators.

        Returns:
            (environments, action_dim) float32, or (environments,) int64 for discrete actions.
        """
        if len(self._noises) == 1 and len(observations) == GROUP_WIDTH:  # as when nothing is to be put in place
            return self._act(observations, self._noises[0])
        self._observations.reshape(-1, observations.shape[1])[self._places] = observations
        actions = [self._act(*group) for group in zip(self._observations, self._noises, strict=True)]
        return np.concatenate(actions)[self._places]

    def _act(self, observations: np.ndarray, noise: np.random.Generator) -> np.ndarray:
        actions = self._policy.act(observations, temperature=self._temperature, generator=noise)
        if self._epsilon > 0.0:
            assert self._num_choices is not None
            whether, which = noise.random((GROUP_WIDTH, 2)).T
            actions = np.where(whether < self._epsilon, (which * self._num_choices).astype(np.int64), actions)
        return actions


def _place(environment: int, groups: Sequence[int]) -> int:
    return groups.index(environment // GROUP_WIDTH) * GROUP_WIDTH + environment % GROUP_WIDTH


def _of_group(group: int, generators: Mapping[int, np.random.Generator]) -> dict[int, np.random.Generator]:
    """Those generators whose environments are in the group, by row."""
    return {
        environment % GROUP_WIDTH: generator
        for environment, generator in generators.items()
        if environment // GROUP_WIDTH == group
    }
