"""Which box the data's actions lie in, and how they reach the environment's own units; discrete indices are checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iql_ray.data.schema import Locate
from iql_ray.data.sources import Layout
from iql_ray.experience import Spaces

BOUND_TOLERANCE = 1e-4
"""Relative to the box's width: an action beyond its bound by less is float noise, and is clipped and counted."""

BOX_AGREEMENT = 1e-5
"""Two boxes whose bounds differ by less, relative to their width, are one box."""


@dataclass(frozen=True, kw_only=True)
class BoxActions:
    """Actions in a box, mapped linearly on another."""

    data_low: tuple[float, ...]
    data_high: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    is_assumed: bool = False
    """Neither an option nor an environment nor the source said what the box is."""

    def spaces(self, observation_dim: int, largest_index: int) -> Spaces:
        """The spaces of the prepared data."""
        return Spaces(
            observation_dim=observation_dim, action_dim=len(self.low), action_low=self.low, action_high=self.high
        )

    def apply(self, actions: np.ndarray, first_row: int, locate: Locate) -> tuple[np.ndarray, int]:
        """Actions in the environment's units, and how many numbers were clipped as float noise.

        Args:
            actions: (rows, action_dim) float32 in the data's box.

        Raises:
            ValueError: an action lies outside the data's box.
        """
        data_low, data_high = np.asarray(self.data_low), np.asarray(self.data_high)
        tolerance = BOUND_TOLERANCE * (data_high - data_low)
        is_outside = (actions < data_low - tolerance) | (actions > data_high + tolerance)
        if is_outside.any():
            row, element = np.argwhere(is_outside)[0]
            raise ValueError(self._refusal(float(actions[row, element]), int(element), locate(first_row + int(row))))
        num_clipped = int(((actions < data_low.astype(np.float32)) | (actions > data_high.astype(np.float32))).sum())
        low, high = np.asarray(self.low), np.asarray(self.high)
        if self.data_low == self.low and self.data_high == self.high:
            return _clip(actions, low, high), num_clipped
        fraction = (actions - data_low) / (data_high - data_low)
        return _clip(low + fraction * (high - low), low, high), num_clipped

    def _refusal(self, value: float, element: int, where: str) -> str:
        box = f"[{self.data_low[element]:g}, {self.data_high[element]:g}]"
        if self.is_assumed:
            return (
                f"action {value:g} at {where}, element {element}, lies outside {box}, and nothing says which box the"
                " actions lie in; give it with --action-bounds LOW HIGH, or name the environment with --env"
            )
        return (
            f"action {value:g} at {where}, element {element}, lies outside its bounds {box};"
            " if the data's actions lie in another box, say which with --action-bounds LOW HIGH"
        )


@dataclass(frozen=True, kw_only=True)
class DiscreteActions:
    """Indices of choices, stored as one float32."""

    num_actions: int | None = None
    """None where only the data can tell: then the largest index does."""

    def spaces(self, observation_dim: int, largest_index: int) -> Spaces:
        """The spaces of the prepared data."""
        return Spaces(observation_dim=observation_dim, action_dim=1, num_actions=self.num_actions or largest_index + 1)

    def apply(self, actions: np.ndarray, first_row: int, locate: Locate) -> tuple[np.ndarray, int]:
        """The same indices, checked; see `BoxActions.apply`.

        Raises:
            ValueError: a negative index, or one that is not below the number of actions.
        """
        is_outside = (actions < 0) | (actions >= (self.num_actions or np.inf))
        if is_outside.any():
            row = int(np.argwhere(is_outside)[0][0])
            expected = f"one of 0 to {self.num_actions - 1}" if self.num_actions else "0 or more"
            where = locate(first_row + row)
            raise ValueError(f"action {actions[row, 0]:g} at {where} is no choice, expected {expected}")
        return actions, 0


def _clip(actions: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.clip(actions.astype(np.float32), low.astype(np.float32), high.astype(np.float32))


Actions = BoxActions | DiscreteActions


def resolve_actions(
    layout: Layout, recorded: Spaces | None, environment: Spaces | None, bounds: tuple[float, float] | None
) -> Actions:
    """How this source's actions become the environment's.

    Args:
        recorded: the spaces that the source says it was recorded in.
        environment: the spaces of the environment that the user named.
        bounds: the box that the user says the data's actions lie in, the same for every element.

    Raises:
        ValueError: the environment's spaces are not the data's, or the bounds are no box.
    """
    if environment is not None:
        check_environment(layout, environment)
    if layout.is_discrete:
        if bounds is not None:
            raise ValueError(f"--action-bounds {bounds} given, but the actions are discrete; leave it out")
        known = environment or recorded
        return DiscreteActions(num_actions=known.num_actions if known else None)
    return _resolve_box(layout.action_dim, recorded, environment, bounds)


def check_environment(layout: Layout, environment: Spaces) -> None:
    """Refuse an environment that the data cannot have come from.

    Raises:
        ValueError: other observation width, or another kind or number of actions.
    """
    ours = (layout.observation_dim, layout.action_dim, layout.is_discrete)
    if ours != (environment.observation_dim, environment.action_dim, environment.is_discrete):
        kinds = {True: "discrete", False: "continuous"}
        raise ValueError(
            f"the data has {ours[0]} observations and {ours[1]} {kinds[ours[2]]} actions, the environment has"
            f" {environment.observation_dim} and {environment.action_dim} {kinds[environment.is_discrete]};"
            " name the environment that the data came from with --env, or the right columns with --columns"
        )


def _resolve_box(
    action_dim: int, recorded: Spaces | None, environment: Spaces | None, bounds: tuple[float, float] | None
) -> BoxActions:
    if bounds is not None and not (np.isfinite(bounds).all() and bounds[0] < bounds[1]):
        raise ValueError(f"--action-bounds {bounds[0]:g} {bounds[1]:g} is no box, expected LOW below HIGH, both finite")
    target = environment or recorded
    if bounds is None and environment and recorded:
        _check_same_box(recorded, environment)
    low, high = (-1.0, 1.0) if bounds is None else (float(bounds[0]), float(bounds[1]))
    given = ((low,) * action_dim, (high,) * action_dim)
    box = given if target is None else (target.action_low, target.action_high)
    if not np.isfinite(box).all():
        raise ValueError(f"the environment's action bounds {box} are not finite; expected a finite box")
    data = box if bounds is None else given
    return BoxActions(
        data_low=data[0], data_high=data[1], low=box[0], high=box[1], is_assumed=bounds is None and target is None
    )


def _check_same_box(recorded: Spaces, environment: Spaces) -> None:
    low, high = np.array(environment.action_low), np.array(environment.action_high)
    tolerance = BOX_AGREEMENT * (high - low)
    distance = np.maximum(np.abs(low - recorded.action_low), np.abs(high - recorded.action_high))
    if (distance > tolerance).any():
        raise ValueError(
            f"the source recorded actions in {recorded.action_low} to {recorded.action_high}, the environment takes"
            f" {environment.action_low} to {environment.action_high}; name the right environment, or say in which"
            " box the data's actions lie with --action-bounds LOW HIGH"
        )
