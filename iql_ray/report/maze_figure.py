"""The maze's story in one picture: for each dataset its value maps and what is earned, at the foot the lucky map.

It puts panels at fixed places in inches, so that text keeps its size whatever is shown; it computes nothing.

    start, goal, arrow, colours
    ---------------------------------------------------
    finding of the first dataset
    map  map  map  map  map    return against expectile
    map  map  map  map  map
    ---------------------------------------------------
    finding of the second dataset ...
    ---------------------------------------------------
    finding on the lucky map
    what happens there
    map  map    probability of the lucky action    return
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from iql_ray.report.figures import INK, MUTED
from iql_ray.report.return_panels import LuckyMethod, ReturnCurve, draw_bars, draw_return_curves
from iql_ray.report.value_maps import (
    GOAL_MARK,
    IMPOSSIBLE,
    START_WIDTH,
    TEXT_POINTS,
    ValueMap,
    draw_value_maps,
    room_above,
    value_scale,
)

WIDTH = 9.4
"""Inches, as all sizes here: on a page that shows the picture 900 pixels wide, text has about its size in points."""
DOTS_PER_INCH = 170
MARGIN = 0.14
KEY, FINDING = 0.56, 0.42
FINDING_POINTS = 12
MAPS_PER_LINE = 5
MAP, MAP_PITCH, AFTER_MAPS = 1.16, 1.26, 0.12
CURVES_LEFT, CURVES_WIDTH, CURVES_HEAD, CURVES_FOOT = 6.78, 1.42, 0.32, 0.34
LOWEST_CURVES = 1.25
EXPLANATION_CHARACTERS, EXPLANATION_LINE = 150, 0.155
BARS_LEFT, RETURNS_LEFT, BARS_WIDTH, BARS_HEAD, BARS_FOOT = 3.95, 6.85, 2.1, 0.32, 0.2


@dataclass(frozen=True, kw_only=True, eq=False)
class MazeRow:
    """One dataset: its finding, its maps and its returns."""

    finding: str
    """One sentence above the row, up to 85 characters: 'From 1 good and 99 random trajectories: ...'."""
    maps: Sequence[ValueMap]
    """In reading order, five in a line."""
    curves: Sequence[ReturnCurve]
    """The first one's expectiles are the marks of the axis."""
    references: Mapping[str, float] = field(default_factory=dict)
    """Returns by name, such as V*'s, behaviour cloning's and the best in the data, as dashed lines."""
    best: float
    """V* at the start: the return of the best policy."""
    ceiling: float
    """The highest value of V*, where the scale of colours ends."""

    def __post_init__(self) -> None:
        if not self.maps or not self.curves:
            raise ValueError(
                f"row '{self.finding}': got {len(self.maps)} maps and {len(self.curves)} curves, expected at least one "
                "of each"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class LuckyPanel:
    """The lucky map: a finding, what happens there in a few sentences, two maps, and two bars for each method."""

    finding: str
    explanation: str
    """Broken into lines of 150 characters."""
    choice: str
    """What the probabilities are of, up to 38 characters, such as 'probability of going for the luck'."""
    maps: Sequence[ValueMap] = ()
    """At most two."""
    methods: Sequence[LuckyMethod]
    best: float
    """V* at the start."""

    def __post_init__(self) -> None:
        if not self.methods or len(self.maps) > 2:
            raise ValueError(
                f"lucky panel: got {len(self.methods)} methods and {len(self.maps)} maps, expected at least one method "
                "and at most two maps"
            )


def maze_figure(path: str | Path, rows: Sequence[MazeRow], lucky: LuckyPanel | None = None) -> Path:
    """Write the story as a picture 1598 pixels wide; the suffix of `path` (png, svg, pdf) says which kind.

    Args:
        path: the file to write; its folder must exist.
        rows: one for each dataset; all maps share one scale of colours, which ends at the highest ceiling.
        lucky: the panel at the foot.
    """
    figure = draw_maze_figure(rows, lucky)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return Path(path)


def draw_maze_figure(rows: Sequence[MazeRow], lucky: LuckyPanel | None = None) -> Figure:
    """The story as a figure."""
    if not rows:
        raise ValueError("a maze figure needs at least one row, got none")
    heights = [FINDING + _body_height(row) for row in rows]
    height = KEY + sum(heights) + (FINDING + _lucky_height(lucky) if lucky else 0)
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    FigureCanvasAgg(figure)
    scale = value_scale(max(row.ceiling for row in rows))
    _draw_key(figure, scale)
    tops = list(itertools.accumulate(heights, initial=KEY))
    for row, top in zip(rows, tops, strict=False):
        _write_finding(figure, top, row.finding)
        _draw_row(figure, top + FINDING, row, scale)
    if lucky:
        _write_finding(figure, tops[-1], lucky.finding)
        _draw_lucky(figure, tops[-1] + FINDING, lucky, scale)
    return figure


def _place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes whose upper left corner is that far from the figure's."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def _write(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    """Text whose upper left corner is that far from the figure's."""
    across, down = figure.get_size_inches()
    usual = {"va": "top", "color": INK, "fontsize": TEXT_POINTS}
    figure.text(left / across, 1 - top / down, text, **(usual | style))


def _write_finding(figure: Figure, top: float, finding: str) -> None:
    """A rule across the page and the sentence under it."""
    rule = _place(figure, MARGIN, top, WIDTH - 2 * MARGIN, 0.01)
    rule.set_axis_off()
    rule.axhline(0, color=MUTED, linewidth=0.8)
    _write(figure, MARGIN, top + 0.1, finding, fontsize=FINDING_POINTS, fontweight="bold")


def _draw_key(figure: Figure, scale: ScalarMappable) -> None:
    """What the marks and the colours mean, once for all maps."""
    width, height = 4.2, 0.3
    axes = _place(figure, MARGIN, 0.08, width, height)
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    middle = height / 2
    box = {"marker": "s", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": INK}
    axes.plot(0.08, middle, markeredgewidth=START_WIDTH, **box)
    axes.plot(0.76, middle, **GOAL_MARK)
    axes.annotate("", (1.6, middle), (1.38, middle), arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.5})
    for left, text in ((0.22, "start"), (0.9, "goal"), (1.67, "the policy's most likely action")):
        axes.text(left, middle, text, va="center_baseline", fontsize=TEXT_POINTS, color=INK)
    _draw_color_bar(figure, scale, 0.08 + middle)


def _draw_color_bar(figure: Figure, scale: ScalarMappable, middle: float) -> None:
    left, width, swatch = 4.4, 2.2, 0.15
    axes = _place(figure, left, middle - 0.075, width, 0.15)
    bar = figure.colorbar(scale, cax=axes, orientation="horizontal")
    bar.outline.set(edgecolor=MUTED, linewidth=0.6)  # pyright: ignore[reportCallIssue]
    low, high = scale.get_clim()
    decades = 10.0 ** np.arange(np.ceil(np.log10(low)), np.log10(high))
    bar.set_ticks(decades, labels=[f"{value:g}" for value in decades])
    bar.minorticks_off()
    axes.tick_params(labelsize=TEXT_POINTS, labelcolor=INK, length=2, pad=1.5, color=MUTED)
    _write(figure, left - 0.08, middle, "value V", va="center_baseline", ha="right")
    left += width + 0.2
    _place(figure, left, middle - swatch / 2, swatch, swatch).set(xticks=[], yticks=[], facecolor=IMPOSSIBLE)
    beside = {"va": "center_baseline", "color": IMPOSSIBLE, "fontweight": "bold"}
    _write(figure, left + swatch + 0.06, middle, "more than any policy can earn", **beside)


def _lines(maps: Sequence[ValueMap]) -> Iterator[Sequence[ValueMap]]:
    return (maps[first : first + MAPS_PER_LINE] for first in range(0, len(maps), MAPS_PER_LINE))


def _body_height(row: MazeRow) -> float:
    maps_height = sum(room_above(line) + MAP + AFTER_MAPS for line in _lines(row.maps))
    return max(maps_height, CURVES_HEAD + LOWEST_CURVES + CURVES_FOOT)


def _draw_row(figure: Figure, top: float, row: MazeRow, scale: ScalarMappable) -> None:
    """Maps at the left, returns over the same height at the right."""
    height = _body_height(row) - CURVES_HEAD - CURVES_FOOT
    curves = _place(figure, CURVES_LEFT, top + CURVES_HEAD, CURVES_WIDTH, height)
    draw_return_curves(curves, row.curves, row.references)
    for line in _lines(row.maps):
        _draw_line(figure, top, line, scale, row.best)
        top += room_above(line) + MAP + AFTER_MAPS


def _draw_line(figure: Figure, top: float, maps: Sequence[ValueMap], scale: ScalarMappable, best: float) -> None:
    top += room_above(maps)
    places = [_place(figure, MARGIN + column * MAP_PITCH, top, MAP, MAP) for column in range(len(maps))]
    draw_value_maps(places, maps, scale, best)


def _explanation(lucky: LuckyPanel) -> list[str]:
    return textwrap.wrap(lucky.explanation, EXPLANATION_CHARACTERS)


def _lucky_height(lucky: LuckyPanel) -> float:
    return EXPLANATION_LINE * len(_explanation(lucky)) + room_above(lucky.maps) + MAP + AFTER_MAPS


def _draw_lucky(figure: Figure, top: float, lucky: LuckyPanel, scale: ScalarMappable) -> None:
    """The explanation; under it the maps and two groups of bars that share the methods' names."""
    _write(figure, MARGIN, top - 0.06, "\n".join(_explanation(lucky)), linespacing=1.2)
    top += EXPLANATION_LINE * len(_explanation(lucky))
    _draw_line(figure, top, lucky.maps, scale, lucky.best)
    height = room_above(lucky.maps) + MAP - BARS_HEAD - BARS_FOOT
    names = [method.label for method in lucky.methods]
    chosen = [method.probability for method in lucky.methods]
    earned = [method.earned for method in lucky.methods]
    places = [_place(figure, left, top + BARS_HEAD, BARS_WIDTH, height) for left in (BARS_LEFT, RETURNS_LEFT)]
    draw_bars(places[0], lucky.choice, names, chosen, 1.0)
    draw_bars(places[1], "return from the start", [""] * len(names), earned, lucky.best)
