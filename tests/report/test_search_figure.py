"""The picture of a search shows every configuration, whatever was searched over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from iql_ray.evaluation.leaderboard import MemberScore, rank
from iql_ray.evaluation.setting_effects import effects
from iql_ray.report.search_figure import draw_search, search_figure
from iql_ray.report.search_panels import BEST
from tests.evaluation.search_scores import configuration, fitted, grid

SAMPLED = np.linspace(0.5, 0.95, 20).tolist()


def panels(scores: list[MemberScore], **wanted: Any) -> list[Any]:
    return search_figure(rank(scores), effects(scores), "A search", **wanted).axes


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def labels(axes: list[Any]) -> list[str]:
    return [each.get_xlabel() for each in axes if each.axison]


def test_every_cell_says_its_score_and_interval():
    heat_map, *_ = panels(grid((0.5, 0.9), (1, 3)))
    assert texts(heat_map) == ["49.0", "[48.0, 50.0]", "47.0", "[46.0, 48.0]", "89.0", "[88.0, 90.0]", "87.0",
                               "[86.0, 88.0]"]  # fmt: skip
    assert [label.get_text() for label in heat_map.get_xticklabels()] == ["1", "3"]
    assert [label.get_text() for label in heat_map.get_yticklabels()] == ["0.5", "0.9"]


def test_the_best_is_framed_and_the_darkest():
    heat_map, *_ = panels(grid((0.5, 0.9), (1, 3)))
    (frame,) = [patch for patch in heat_map.patches if to_hex(patch.get_edgecolor()) == BEST.lower()]
    assert frame.get_xy() == (-0.5, 0.5)
    cells = {patch.get_xy(): sum(patch.get_facecolor()[:3]) for patch in heat_map.patches if patch is not frame}
    assert min(cells, key=cells.__getitem__) == (-0.5, 0.5)


def test_a_stopped_cell_is_hatched_and_says_when():
    scores = [*grid((0.5, 0.9), (1,)), *fitted(configuration(0.5, 3), 40, is_stopped=True)]
    heat_map, *_ = panels(scores)
    assert "stopped at 20k" in texts(heat_map)
    assert [patch.get_xy() for patch in heat_map.patches if patch.get_hatch()] == [(0.5, -0.5)]


def test_effects_go_through_their_means():
    _, expectile, inverse_temperature = panels(grid((0.5, 0.9), (1, 3), num_seeds=2))
    np.testing.assert_allclose(expectile.lines[0].get_xydata(), [[0.5, 48.5], [0.9, 88.5]])
    np.testing.assert_allclose(inverse_temperature.lines[0].get_xydata(), [[1, 69.5], [3, 67.5]])
    assert expectile.get_legend().get_texts()[0].get_text() == "mean of all, 95% over seeds"


def test_wide_inverse_temperatures_stand_on_a_logarithmic_axis_with_room_for_zero():
    scales = [
        panels(grid((0.7,), values))[0].get_xscale() for values in ((1, 3, 10), (0.1, 3, 10), (0, 0.1, 10), (0, 3))
    ]
    assert scales == ["linear", "log", "symlog", "linear"]


def test_one_value_of_a_setting_makes_no_grid():
    assert labels(panels(grid((0.5, 0.9), (3,)))) == ["expectile alone"]
    assert labels(panels(grid((0.5,), (1, 3)))) == ["inverse temperature alone"]
    assert labels(panels(grid((0.5,), (3,)))) == ["expectile alone"]


def test_a_few_combinations_have_a_grid_each_and_many_share_one():
    few = [score for discount in (0.9, 0.99) for score in grid((0.5, 0.9), (1, 3), discount=discount)]
    assert labels(panels(few)) == ["inverse temperature", "inverse temperature", "expectile alone",
                                   "inverse temperature alone", "discount alone"]  # fmt: skip
    many = [
        score for discount in (0.9, 0.95, 0.97, 0.98, 0.99) for score in grid((0.5, 0.9), (1, 3), discount=discount)
    ]
    heat_map, *others = panels(many)
    assert heat_map.get_title(loc="left").startswith("best over 5 combinations of discount")
    assert len(others) == 3


def test_sampled_expectiles_are_points():
    points, color_bar, expectile, inverse_temperature = panels(grid(SAMPLED, (1, 3)), score_name="normalized score")
    assert points.get_ylabel() == "expectile"
    assert len(points.lines) == 2 * 20 + 1
    assert color_bar.get_ylabel() == "normalized score"
    assert expectile.lines[0].get_linestyle() == "None"
    assert inverse_temperature.lines[0].get_linestyle() == "-"


def test_a_grid_that_is_mostly_empty_is_points():
    diagonal = [score for value in (0.5, 0.6, 0.7, 0.8) for score in fitted(configuration(value, 10 * value), 1.0)]
    assert panels(diagonal)[0].get_title(loc="left").startswith("every configuration")


@pytest.mark.parametrize(
    "scores",
    [
        grid(np.linspace(0.5, 0.99, 8).tolist(), (0, 0.5, 1, 2, 3, 5, 10, 30)),
        [score for each in (0.5, 0.9) for score in fitted(configuration(each), -1e6 * each, -2e6)],
        fitted(configuration(), 5, is_stopped=True),
        fitted(configuration(), 0.0, 0.0),
        [score for kind in ("cosine", "constant") for score in grid((0.7,), (3,), policy_schedule=kind)],
    ],
    ids=["8 x 8", "negative", "stopped", "1 x 1", "names"],
)
def test_it_is_drawn_whatever_was_searched_over(tmp_path: Path, scores):
    path = draw_search(tmp_path / "search.png", rank(scores), effects(scores), "A search with a long title " * 5)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_no_standings_are_no_picture():
    with pytest.raises(ValueError, match="at least one standing"):
        search_figure([], {}, "A search")
