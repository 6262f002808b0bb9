"""Return against expectile, and the choices on the lucky map, show the numbers they were given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from iql_ray.report.return_panels import METHOD_COLORS, LuckyMethod, ReturnCurve, draw_bars, draw_return_curves
from iql_ray.report.value_maps import IMPOSSIBLE

GREEDY = ReturnCurve(
    label="most likely action",
    expectiles=[0.5, 0.9, 0.99],
    returns=np.array([0.0, 0.5, 0.56]),
    lower=np.array([0.0, 0.4, 0.54]),
    upper=np.array([0.01, 0.55, 0.6]),
)
EXACT = ReturnCurve(label="exact", expectiles=[0.5, 0.99], returns=[0.0, 0.57])


def draw(curves, references) -> Any:
    axes = Figure(figsize=(4, 4)).add_subplot()
    draw_return_curves(axes, curves, references)
    return axes


def texts_of(axes):
    return [text.get_text().replace("\n", " ") for text in axes.texts]


def test_each_curve_goes_through_its_returns_and_shades_its_interval():
    axes = draw([GREEDY], {})
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[0.5, 0.0], [0.9, 0.5], [0.99, 0.56]])
    heights = np.asarray(axes.collections[0].get_paths()[0].vertices)[:, 1]
    assert {0.0, 0.4, 0.54, 0.01, 0.55, 0.6} == set(heights.tolist())


def test_an_exact_curve_is_dotted_and_has_no_band():
    axes = draw([GREEDY, EXACT], {})
    assert [line.get_linestyle() for line in axes.lines] == ["-", ":"]
    assert len(axes.collections) == 1


def test_methods_are_never_drawn_in_the_colour_of_the_impossible():
    colors = {to_hex(line.get_color()) for line in draw([GREEDY] * len(METHOD_COLORS), {}).lines}
    assert len(colors) == len(METHOD_COLORS)
    assert IMPOSSIBLE.lower() not in colors


def test_equal_references_share_a_line_and_a_label():
    axes = draw([GREEDY], {"V*": 0.57, "BC": 0.0, "10% BC": 0.00004})
    dashed = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == [0.57, 0.0]
    assert texts_of(axes) == ["V* 0.57", "BC, 10% BC 0.00", "most likely action"]


def test_a_tenth_of_the_distance_to_the_maximum_is_always_as_long():
    axes = draw([GREEDY], {})
    places = axes.transData.transform([(0.9, 0.0), (0.99, 0.0), (0.0, 0.0)])[:, 0]
    assert places[1] - places[0] == pytest.approx(places[0] - places[2])
    assert [label.get_text() for label in axes.get_xticklabels()] == [".5", ".9", ".99"]


def test_the_view_holds_all_intervals_and_references():
    assert draw([GREEDY], {"V*": 0.57}).get_ylim()[1] > 0.6
    assert draw([EXACT], {"better": 2.0}).get_ylim()[1] > 2.0
    assert draw([ReturnCurve(label="nothing", expectiles=[0.5], returns=[0.0])], {}).get_ylim()[1] > 0


def test_labels_of_close_lines_stand_apart():
    axes = draw([GREEDY, EXACT], {"V*": 0.565})
    heights = sorted(text.xyann[1] * axes.get_window_extent().height / axes.figure.dpi for text in axes.texts)
    assert min(np.diff(heights)) > 0.27


def test_bars_show_centres_intervals_and_numbers_up_to_the_limit():
    axes: Any = Figure().add_subplot()
    draw_bars(axes, "probability", ["single-Q", "IQL"], [(0.9, 0.8, 1.0), (0.1, 0.0, 0.15)], 1.0)
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.1]
    ends = [segment[:, 0].tolist() for segment in axes.collections[0].get_segments()]
    np.testing.assert_allclose(ends, [[0.8, 1.0], [0.0, 0.15]], atol=1e-12)
    assert texts_of(axes) == ["0.90", "0.10"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["single-Q", "IQL"]
    assert axes.get_ylim() == (1.5, -0.5)


@pytest.mark.parametrize(
    "changes", [{"returns": [0.0]}, {"lower": None}, {"expectiles": [], "returns": [], "lower": [], "upper": []}]
)
def test_a_curve_of_unequal_lengths_or_half_an_interval_is_refused(changes):
    whole: dict[str, Any] = {"expectiles": [0.5, 0.9], "returns": [0.0, 1.0], "lower": [0.0, 1.0], "upper": [0.0, 1.0]}
    with pytest.raises(ValueError, match=r"'IQL'.*one length above 0, and both ends or neither"):
        ReturnCurve(label="IQL", **(whole | changes))


@pytest.mark.parametrize("expectile", [0.0, 1.0])
def test_an_expectile_outside_0_and_1_has_no_place(expectile):
    with pytest.raises(ValueError, match=r"expected numbers in \(0, 1\)"):
        ReturnCurve(label="IQL", expectiles=[expectile], returns=[0.0])


def test_an_interval_beside_its_centre_is_refused():
    with pytest.raises(ValueError, match=r"'IQL': earned is \(1.0, 2.0, 3.0\)"):
        LuckyMethod(label="IQL", probability=(0.1, 0.0, 0.2), earned=(1.0, 2.0, 3.0))
