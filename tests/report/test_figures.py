"""The learning curve shows what it was given, keeps its labels apart, and writes a picture."""

from __future__ import annotations

import itertools

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from iql_ray.report.figures import COLORS, Curve, draw_learning_curve, learning_curve, spread, view

IQL = Curve(updates=[0, 100, 200], means=[-900.0, -170.0, -150.0], lower=[-950, -180, -160], upper=[-850, -160, -140])
CLONING = Curve(
    updates=[0, 100, 200], means=[-900.0, -210.0, -204.0], lower=[-950, -230, -220], upper=[-850, -190, -188]
)


def draw(curves, references):
    return draw_learning_curve(curves, references, "Pendulum-v1", "return").axes[0]


def test_each_curve_is_a_line_through_its_means_with_its_interval_shaded():
    axes = draw({"IQL": IQL, "behaviour cloning": CLONING}, {})
    for line, band, curve, color in zip(axes.lines, axes.collections, (IQL, CLONING), COLORS, strict=False):
        np.testing.assert_array_equal(line.get_ydata(), curve.means)
        assert to_hex(line.get_color()) == color.lower()
        heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
        assert {*curve.lower, *curve.upper} <= set(heights.tolist())


def test_references_are_dashed_lines_across_the_whole_picture():
    line, *_ = draw({"IQL": IQL}, {"data, mean": -180.0}).lines
    assert set(np.asarray(line.get_ydata()).tolist()) == {-180.0}
    assert line.get_linestyle() == "--"


def test_lines_carry_their_names_and_last_values_instead_of_a_legend():
    axes = draw({"IQL": IQL, "behaviour cloning": CLONING}, {"data, mean": -180.0})
    texts = {text.get_text() for text in axes.texts}
    assert {"IQL \N{MINUS SIGN}150", "behaviour cloning \N{MINUS SIGN}204", "data, mean \N{MINUS SIGN}180"} <= texts
    assert axes.get_legend() is None


def test_an_untrained_start_far_below_does_not_flatten_the_rest():
    # The late half and the reference span [-180, -140]; half of that again is 20, and a margin of 6% of 60 is 3.6.
    assert view([IQL], [-180.0]) == pytest.approx((-203.6, -136.4))


def test_a_start_that_is_near_is_shown_in_full():
    near = Curve(updates=[0, 1], means=[0.0, 10.0], lower=[0.0, 10.0], upper=[0.0, 10.0])
    assert view([near], [5.0]) == pytest.approx((2.5 - 0.45, 10 + 0.45))


def test_a_single_flat_evaluation_still_has_a_picture(tmp_path):
    flat = Curve(updates=[0], means=[1.0], lower=[1.0], upper=[1.0])
    low, high = view([flat], [])
    assert low < 1.0 < high
    learning_curve(tmp_path / "flat.png", {"IQL": flat}, {}, "one evaluation")


def test_the_picture_is_wide_enough_for_a_page_and_not_blank(tmp_path):
    path = learning_curve(tmp_path / "curve.png", {"IQL": IQL}, {"data, mean": -180.0}, "Pendulum-v1")
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[:2] == (675, 1200)
    assert 0.01 < (pixels[..., :3].min(axis=-1) < 0.9).mean() < 0.5


def test_two_touching_labels_part_evenly_around_their_middle():
    assert spread([0.0, 1.0, 9.0], gap=2.0) == [-0.5, 1.5, 9.0]


@given(st.lists(st.floats(-1, 2), max_size=6), st.floats(0.01, 0.2))
def test_labels_end_up_a_gap_apart_in_the_order_of_their_lines(heights, gap):
    placed = spread(heights, gap)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for lower, upper in itertools.pairwise(order):
        assert placed[upper] - placed[lower] >= gap - 1e-9


@pytest.mark.parametrize("means", [[], [1.0]])
def test_a_curve_of_unequal_or_no_length_is_refused(means):
    with pytest.raises(ValueError, match="one length above 0"):
        Curve(updates=[0, 1] if means else [], means=means, lower=means, upper=means)


def test_no_curve_is_no_picture():
    with pytest.raises(ValueError, match="at least one curve"):
        draw({}, {"data, mean": 1.0})
