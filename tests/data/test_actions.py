"""Which box holds the actions, what is refused, and that what is mapped lands where it should."""

from __future__ import annotations

import numpy as np
import pytest

from iql_ray.data.actions import BoxActions, DiscreteActions, resolve_actions
from iql_ray.data.sources import Layout
from iql_ray.experience import Spaces

TORQUE = Spaces(observation_dim=3, action_dim=1, action_low=(-2.0,), action_high=(2.0,))
UNIT = Spaces(observation_dim=3, action_dim=1, action_low=(-1.0,), action_high=(1.0,))
CHOICES = Spaces(observation_dim=3, action_dim=1, num_actions=2)


def layout(*, observation_dim: int = 3, is_discrete: bool = False) -> Layout:
    return Layout(observation_dim=observation_dim, action_dim=1, is_discrete=is_discrete)


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_stated_bounds_map_linearly_on_the_environments_own() -> None:
    actions = resolve_actions(layout(), None, TORQUE, (-1.0, 1.0))
    mapped, num_clipped = actions.apply(column(-1, -0.25, 0, 1), 0, str)
    assert mapped.tolist() == [[-2], [-0.5], [0], [2]]
    assert mapped.dtype == np.float32
    assert num_clipped == 0


def test_without_stated_bounds_the_environments_box_holds() -> None:
    actions = resolve_actions(layout(), None, TORQUE, None)
    assert actions.apply(column(-2, 1.5), 0, str)[0].tolist() == [[-2], [1.5]]


def test_without_an_environment_the_recorded_box_holds() -> None:
    assert resolve_actions(layout(), TORQUE, None, None).spaces(3, 0) == TORQUE


def test_stated_bounds_alone_are_the_box() -> None:
    actions = resolve_actions(layout(), None, None, (0.0, 10.0))
    assert isinstance(actions, BoxActions)
    assert (actions.low, actions.high, actions.is_assumed) == ((0.0,), (10.0,), False)


def test_with_nothing_said_actions_within_one_pass_and_others_ask() -> None:
    actions = resolve_actions(layout(), None, None, None)
    assert actions.apply(column(-1, 1), 0, str)[0].tolist() == [[-1], [1]]
    with pytest.raises(ValueError, match=r"action 1\.5 at row 8.*--action-bounds LOW HIGH.*--env"):
        actions.apply(column(0, 1.5), 7, lambda row: f"row {row}")


def test_an_action_outside_its_bounds_is_named() -> None:
    actions = resolve_actions(layout(), None, TORQUE, None)
    with pytest.raises(ValueError, match=r"action -2\.1 at row 1, element 0, lies outside its bounds \[-2, 2\]"):
        actions.apply(column(0, -2.1), 0, lambda row: f"row {row}")


def test_float_noise_beyond_a_bound_is_clipped_and_counted() -> None:
    actions = resolve_actions(layout(), None, TORQUE, (-1.0, 1.0))
    mapped, num_clipped = actions.apply(column(1 + 1e-4, -1 - 1e-5, 0.5), 0, str)
    assert mapped.tolist() == [[2], [-2], [1]]
    assert num_clipped == 2


def test_actions_in_their_own_box_are_kept_bit_for_bit() -> None:
    values = np.random.default_rng(0).uniform(-2, 2, (1000, 1)).astype(np.float32)
    assert (resolve_actions(layout(), None, TORQUE, None).apply(values, 0, str)[0] == values).all()


def test_discrete_actions_are_checked_against_their_number() -> None:
    actions = resolve_actions(layout(is_discrete=True), None, CHOICES, None)
    assert actions.apply(column(0, 1), 0, str)[0].tolist() == [[0], [1]]
    with pytest.raises(ValueError, match="action 2 at row 1 is no choice, expected one of 0 to 1"):
        actions.apply(column(0, 2), 0, lambda row: f"row {row}")
    with pytest.raises(ValueError, match="action -1 at row 0 is no choice"):
        DiscreteActions().apply(column(-1), 0, lambda row: f"row {row}")


def test_with_nothing_said_the_largest_index_tells_how_many_choices_there_are() -> None:
    assert resolve_actions(layout(is_discrete=True), None, None, None).spaces(3, largest_index=4).num_actions == 5


@pytest.mark.parametrize(
    ("data", "environment"),
    [(layout(observation_dim=4), TORQUE), (layout(is_discrete=True), TORQUE), (layout(), CHOICES)],
)
def test_an_environment_of_other_spaces_is_refused(data: Layout, environment: Spaces) -> None:
    with pytest.raises(ValueError, match=r"the data has . observations and 1 .* the environment has 3 and 1"):
        resolve_actions(data, None, environment, None)


def test_a_recorded_box_that_is_not_the_environments_is_refused_unless_bounds_are_stated() -> None:
    with pytest.raises(ValueError, match=r"recorded actions in \(-1\.0,\).*the environment takes \(-2\.0,\)"):
        resolve_actions(layout(), UNIT, TORQUE, None)
    actions = resolve_actions(layout(), UNIT, TORQUE, (-1.0, 1.0))
    assert actions.apply(column(1), 0, str)[0].tolist() == [[2]]


@pytest.mark.parametrize("bounds", [(1.0, -1.0), (0.0, 0.0), (-np.inf, 1.0)])
def test_bounds_that_are_no_box_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="is no box, expected LOW below HIGH"):
        resolve_actions(layout(), None, None, bounds)


def test_bounds_of_discrete_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="the actions are discrete; leave it out"):
        resolve_actions(layout(is_discrete=True), None, None, (-1.0, 1.0))
