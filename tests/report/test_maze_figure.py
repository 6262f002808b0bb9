"""The maze's story is one picture with a place for every map, of a width for a page, and nothing cut off."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.text import Text

from iql_ray.report.maze_figure import LuckyPanel, MazeRow, draw_maze_figure, maze_figure
from iql_ray.report.return_panels import LuckyMethod, ReturnCurve
from iql_ray.report.value_maps import ValueMap

VALUES = np.array([[0.5, np.nan, 0.0], [1.0, np.nan, 9.0], [2.0, 4.0, 8.0]])
ARROWS = np.array([[2, -1, -1], [2, -1, 0], [1, 1, 0]])
CURVE = ReturnCurve(
    label="IQL, most likely action", expectiles=[0.5, 0.9], returns=[0.0, 0.5], lower=[0, 0.4], upper=[0.1, 0.55]
)


def a_map(title="IQL 0.9", at_start=0.5):
    values = np.where(VALUES == 0.5, at_start, VALUES)
    return ValueMap(title=title, saying="sees far", values=values, arrows=ARROWS, start=(0, 0), goal=(0, 2), earned=0.5)


def a_row(num_maps=10, **changes):
    usual: dict[str, Any] = {
        "finding": "IQL joins the halves",
        "maps": [a_map(f"map {index}") for index in range(num_maps)],
    }
    usual |= {"curves": [CURVE], "references": {"V*": 0.57, "BC": 0.0}, "best": 0.57, "ceiling": 9.0}
    return MazeRow(**(usual | changes))


def lucky(**changes):
    methods = [
        LuckyMethod(label="single-Q 0.95", probability=(0.9, 0.8, 1.0), earned=(4.4, 4.3, 4.5)),
        LuckyMethod(label="IQL 0.95", probability=(0.1, 0.0, 0.2), earned=(7.3, 7.2, 7.4)),
    ]
    usual: dict[str, Any] = {
        "finding": "luck is no skill",
        "explanation": "a rare wind " * 20,
        "choice": "probability of left",
    }
    return LuckyPanel(**(usual | {"maps": [a_map(), a_map()], "methods": methods, "best": 7.37} | changes))


def maps_of(figure):
    return [axes for axes in figure.axes if axes.texts and axes.texts[-2].get_text().startswith("map ")]


def test_the_picture_fits_a_page_and_is_not_blank(tmp_path):
    path = maze_figure(tmp_path / "maze.png", [a_row(), a_row()], lucky())
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[1] == 1598
    assert 1500 < pixels.shape[0] < 2000
    assert 0.1 < (pixels[..., :3].min(axis=-1) < 0.9).mean() < 0.6


def test_maps_stand_five_in_a_line_in_reading_order_and_are_equally_large():
    places = [axes.get_position() for axes in maps_of(draw_maze_figure([a_row()]))]
    assert len(places) == 10
    assert len({round(place.y0, 6) for place in places[:5]}) == 1
    assert [place.x0 for place in places[:5]] == sorted(place.x0 for place in places[:5])
    assert places[5].x0 == places[0].x0
    assert places[5].y1 < places[0].y0
    assert len({(round(place.width, 6), round(place.height, 6)) for place in places}) == 1


def test_all_maps_share_the_scale_of_the_highest_ceiling():
    rows = [a_row(1, maps=[a_map("map 0", at_start=20.0)]), a_row(1, ceiling=30.0)]
    inside = [text.get_text() for text in maps_of(draw_maze_figure(rows))[0].texts]
    assert not [text for text in inside if text.startswith("V =")]
    alone = [text.get_text() for text in maps_of(draw_maze_figure(rows[:1]))[0].texts]
    assert "V = 20.00" in alone


def test_findings_stand_above_their_rows_and_the_lucky_one_at_the_foot():
    figure = draw_maze_figure([a_row(finding="first"), a_row(finding="second")], lucky(finding="third"))
    heights = {text.get_text(): text.get_position()[1] for text in figure.texts}
    assert heights["first"] > heights["second"] > heights["third"]


@pytest.mark.parametrize(("num_maps", "panel"), [(1, None), (5, lucky()), (11, lucky(maps=[]))])
def test_nothing_is_cut_off_whatever_is_shown(num_maps, panel):
    figure = draw_maze_figure([a_row(num_maps)], panel)
    width, height = figure.get_size_inches()
    drawn = figure.get_tightbbox()
    assert 0 <= drawn.x0 < drawn.x1 <= width
    assert 0 <= drawn.y0 < drawn.y1 <= height


def test_no_text_is_smaller_than_eight_points():
    figure = draw_maze_figure([a_row()], lucky())
    shown = [axes for axes in figure.axes if axes.axison]
    texts = [*figure.texts, *itertools.chain.from_iterable(axes.findobj(Text) for axes in shown)]
    assert min(float(text.get_fontsize()) for text in texts if text.get_text()) >= 8


def test_one_line_of_maps_leaves_the_curve_room():
    figure = draw_maze_figure([a_row(1)])
    curve = next(axes for axes in figure.axes if axes.get_xlabel() == "expectile")
    assert curve.get_position().height * figure.get_size_inches()[1] == pytest.approx(1.25)


@pytest.mark.parametrize("changes", [{"maps": []}, {"curves": []}])
def test_a_row_without_maps_or_curves_is_refused(changes):
    with pytest.raises(ValueError, match="expected at least one of each"):
        a_row(**changes)


@pytest.mark.parametrize("changes", [{"methods": []}, {"maps": [a_map()] * 3}])
def test_a_lucky_panel_without_methods_or_with_too_many_maps_is_refused(changes):
    with pytest.raises(ValueError, match="at least one method and at most two maps"):
        lucky(**changes)


def test_no_row_is_no_picture():
    with pytest.raises(ValueError, match="at least one row"):
        draw_maze_figure([])
