"""A value map shows each cell's value on one scale, the policy's arrows, and what cannot be true in its own colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from iql_ray.report.value_maps import (
    IMPOSSIBLE,
    SHADES,
    ValueMap,
    draw_value_maps,
    impossible_cells,
    room_above,
    value_scale,
)

WALL = np.nan
VALUES = np.array([[0.5, WALL, 0.0], [1.0, WALL, 9.0], [2.0, 4.0, 8.0]])
"""A U from the upper left to the upper right."""
ARROWS = np.array([[2, -1, -1], [2, -1, 0], [1, 1, 0]])


def a_map(**changes):
    return ValueMap(**({"title": "IQL", "values": VALUES, "arrows": ARROWS, "start": (0, 0), "goal": (0, 2)} | changes))


def draw(*maps, ceiling=10.0, best=0.57) -> Any:
    figure = Figure()
    places = [figure.add_subplot(1, len(maps), index + 1) for index in range(len(maps))]
    draw_value_maps(places, maps, value_scale(ceiling), best)
    return places[0]


def arrows_of(axes) -> Any:
    return next(artist for artist in axes.collections if isinstance(artist, Quiver))


def color_of(values, ceiling=10.0):
    return value_scale(ceiling).to_rgba(np.asarray(values))


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def test_each_free_cell_is_one_square_and_the_goal_is_white():
    faces = draw(a_map()).collections[0].get_facecolor()
    assert faces.shape == (7, 4)
    # Row by row: (0, 0), then the goal (0, 2).
    np.testing.assert_array_equal(faces[1], (1, 1, 1, 1))
    assert faces[0].tolist() == pytest.approx(color_of(0.5))


def test_arrows_stand_in_their_cells_and_point_where_the_action_leads():
    arrows = arrows_of(draw(a_map()))
    # Offsets are (column, row) and rows grow downwards: (0, 0) goes down, (2, 0) right, (1, 2) up.
    steps = {
        tuple(place): step for place, step in zip(arrows.get_offsets(), np.stack([arrows.U, arrows.V], 1), strict=True)
    }
    assert set(steps) == {(0, 0), (0, 1), (2, 1), (0, 2), (1, 2), (2, 2)}
    assert np.sign([steps[0, 0], steps[0, 2], steps[2, 1]]).tolist() == [[0, 1], [1, 0], [0, -1]]


def test_arrows_are_white_on_dark_cells_and_dark_on_light_ones():
    arrows = arrows_of(draw(a_map(values=np.where(VALUES == 0.5, 0.01, VALUES))))
    shades = dict(zip(map(tuple, arrows.get_offsets()), arrows.get_facecolor().tolist(), strict=True))
    assert shades[2, 1] == list(to_rgba("white"))
    assert shades[0, 0] == list(to_rgba("#222222"))


def test_a_policy_without_arrows_is_drawn():
    axes = draw(a_map(arrows=np.full((3, 3), -1)))
    assert not [artist for artist in axes.collections if isinstance(artist, Quiver)]


def test_a_diamond_takes_the_place_of_the_lucky_cells_arrow():
    axes = draw(a_map(lucky=(1, 0)))
    assert (0, 1) not in set(map(tuple, arrows_of(axes).get_offsets()))
    assert [line.get_marker() for line in axes.lines] == ["*", "D"]


def test_the_scale_spans_three_decades_below_the_ceiling():
    assert color_of(0.01) == pytest.approx(to_rgba(SHADES[0]))
    assert color_of(10.5) == pytest.approx(to_rgba(SHADES[-1]))


def test_shades_darken_all_the_way():
    brightness = color_of(np.geomspace(0.01, 10.5, 50))[:, :3] @ (0.299, 0.587, 0.114)
    assert (np.diff(brightness) < 0).all()


def test_values_below_the_scale_and_negative_ones_have_the_lightest_shade():
    faces = draw(a_map(values=np.array([[-1.0, WALL, 0.0], [1e-9, WALL, 9.0], [0.0, 4.0, 8.0]]))).collections[0]
    np.testing.assert_allclose(faces.get_facecolor()[[0, 2, 4]], [to_rgba(SHADES[0])] * 3)


def test_a_value_beyond_the_scale_is_of_the_loud_colour_and_named_in_the_wall_if_it_is_the_starts():
    axes = draw(a_map(values=np.where(VALUES == 4.0, 31.0, VALUES), earned=0.0))
    assert axes.collections[0].get_facecolor()[5].tolist() == pytest.approx(to_rgba(IMPOSSIBLE))
    assert len(texts_of(axes)) == 5
    assert "V = 31.00" in texts_of(draw(a_map(values=np.where(VALUES == 0.5, 31.0, VALUES), earned=0.0)))


def test_a_cells_own_ceiling_counts_where_there_is_one_and_learned_values_scatter_around_it():
    values = np.array([[2.5, WALL, 99.0], [2.6, WALL, 9.0], [2.0, 4.0, 8.0]])
    value_map = a_map(values=values, ceilings=np.where(np.isnan(VALUES), WALL, 1.0))
    found = impossible_cells(value_map, value_scale(10.0))
    # The scale ends at 10.5, and 1 + 0.15 * 10.5 = 2.575; the goal's own value counts for nothing.
    assert found.tolist() == [[False, False, False], [True, False, True], [False, True, True]]


def test_a_few_percent_above_the_highest_ceiling_are_scatter():
    values = np.array([[10.4, WALL, 99.0], [10.6, WALL, 9.0], [2.0, 4.0, 8.0]])
    assert np.argwhere(impossible_cells(a_map(values=values), value_scale(10.0))).tolist() == [[1, 0]]


def test_the_wall_says_what_the_policy_earns_of_what_can_be_earned():
    assert texts_of(draw(a_map(earned=0.166)))[:3] == ["return", "0.17", "of 0.57"]


def test_without_a_return_or_without_a_wall_nothing_is_written_inside():
    assert texts_of(draw(a_map())) == ["IQL", ""]
    assert texts_of(draw(a_map(values=np.ones((3, 3)), earned=0.5))) == ["IQL", ""]


def test_sayings_are_broken_and_names_of_neighbours_stand_level():
    long = a_map(saying="believes what it never saw")
    assert long.saying_lines == ["believes what it", "never saw"]
    heights = [place.texts[0].xyann[1] for place in draw(a_map(), long).figure.axes]
    assert heights[0] == heights[1]
    assert room_above([a_map(), long]) == room_above([long]) > room_above([a_map()])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": VALUES[0]}, r"shape \(3,\).*one \(rows, columns\) grid"),
        ({"ceilings": VALUES[:2]}, "one .* grid for both, and for ceilings"),
        ({"arrows": ARROWS[:2]}, r"shape \(2, 3\).*one \(rows, columns\) grid"),
        ({"values": np.where(VALUES == 4.0, np.inf, VALUES)}, "diverged"),
        ({"arrows": ARROWS + 2}, r"arrows from \[1, 2, 3, 4\], expected 0 to 3"),
        ({"start": (0, 1)}, r"the start \(0, 1\).*no wall"),
        ({"goal": (3, 0)}, r"the goal \(3, 0\).*inside the grid"),
        ({"lucky": (-1, 0)}, r"the lucky cell \(-1, 0\)"),
    ],
)
def test_a_map_that_cannot_be_is_refused_by_its_name(changes, message):
    with pytest.raises(ValueError, match=f"value map 'IQL': got .*{message}"):
        a_map(**changes)


@pytest.mark.parametrize("ceiling", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_needs_a_positive_ceiling(ceiling):
    with pytest.raises(ValueError, match="expected the highest value of V"):
        value_scale(ceiling)
