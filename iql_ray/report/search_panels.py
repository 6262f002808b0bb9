"""The panels of a search's picture: a heat map of a grid, points of what was sampled, the effect of one setting.

It fills axes that it is given; which of them there are is for `search_figure` to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from iql_ray.evaluation.leaderboard import Standing, setting_in_words, settings_in_words
from iql_ray.evaluation.leaderboard_words import decimal, num_decimals
from iql_ray.evaluation.setting_effects import Effect
from iql_ray.report.figures import COLORS, FAINT, INK, MUTED
from iql_ray.report.return_panels import scale_expectiles
from iql_ray.report.value_maps import SHADES

TEXT_POINTS, VALUE_POINTS, INTERVAL_POINTS = 9, 10.5, 7.5
BEST = COLORS[1]
"""Vermilion, which the shades never come near."""
STOPPED, HATCH, CROSS = "#F4F4F4", "#D8D8D8", "#B0B0B0"
DARK = 0.5
"""Brightness below which a cell's text is white."""
WIDEST_LINEAR = 10.0
"""Largest over smallest: inverse temperatures that span more stand on a logarithmic axis."""
MOST_MARKS = 12
"""Values of a setting that each have their mark on the axis."""
SAMPLED_EXPECTILES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Marks of the axis where there are too many of their own."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The configurations of one combination of other settings, by their place in the grid."""

    title: str
    """The combination in words; empty where nothing else varies."""
    expectiles: tuple[float, ...]
    inverse_temperatures: tuple[float, ...]
    """Of the whole search, ascending."""
    cells: Mapping[tuple[float, float], Standing]
    """By expectile and inverse temperature; the best where there are several. Not all need have been tried."""

    @classmethod
    def of(cls, title: str, standings: Sequence[Standing], everything: Sequence[Standing]) -> Grid:
        """Of some of a search's standings, on the axes of all of them; both best first."""
        cells: dict[tuple[float, float], Standing] = {}
        for standing in standings:
            place = (standing.configuration.expectile, standing.configuration.inverse_temperature)
            cells.setdefault(place, standing)
        return cls(
            title=title,
            expectiles=tuple(sorted({standing.configuration.expectile for standing in everything})),
            inverse_temperatures=tuple(sorted({standing.configuration.inverse_temperature for standing in everything})),
            cells=cells,
        )


def score_colors(standings: Sequence[Standing]) -> ScalarMappable:
    """Light to dark from the worst score to the best, of those that ran in full.

    A configuration that diverged may lie many times further down than the rest are apart, and would leave them one
    colour: the scale reaches three times as far below the best as the median does, if the worst lies below that.
    """
    scores = np.array([standing.iqm for standing in standings if not standing.is_stopped] or [0.0])
    best = scores.max()
    low = max(scores.min(), best - 3 * (best - np.median(scores)))
    scale = Normalize(low if low < best else best - 1, best, clip=True)
    return ScalarMappable(scale, LinearSegmentedColormap.from_list("score", SHADES[1:]))


def draw_heat_map(axes: Axes, grid: Grid, best: Standing, colors: ScalarMappable, score_name: str = "") -> None:
    """Expectiles upwards, inverse temperatures to the right; every cell says its score and interval.

    Args:
        axes: empty.
        grid: what to show.
        best: framed, if it is in this grid.
        colors: from score to colour.
        score_name: for the line that says how to read a cell; empty where another grid's says it.
    """
    numbers = [number for each in grid.cells.values() for number in (each.iqm, *each.interval)]
    digits = num_decimals(numbers)
    for row, expectile in enumerate(grid.expectiles):
        for column, inverse_temperature in enumerate(grid.inverse_temperatures):
            standing = grid.cells.get((expectile, inverse_temperature))
            if standing is not None:
                _draw_cell(axes, column, row, standing, colors, digits)
            if standing is best:
                frame = {"edgecolor": BEST, "linewidth": 3.5, "fill": False, "zorder": 4, "clip_on": False}
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **frame))
    axes.set_xlim(-0.5, len(grid.inverse_temperatures) - 0.5)
    axes.set_ylim(-0.5, len(grid.expectiles) - 0.5)
    for set_ticks, values in ((axes.set_xticks, grid.inverse_temperatures), (axes.set_yticks, grid.expectiles)):
        set_ticks(range(len(values)), labels=list(map(setting_in_words, values)))
    _dress(axes, "inverse temperature", "expectile")
    axes.spines[:].set_visible(False)
    lines = [grid.title, f"{score_name}, 95% interval; framed: the best" if score_name else ""]
    axes.set_title("\n".join(filter(None, lines)), loc="left", fontsize=TEXT_POINTS, color=INK)


def _draw_cell(axes: Axes, column: int, row: int, standing: Standing, colors: ScalarMappable, digits: int) -> None:
    color = to_rgb(STOPPED) if standing.is_stopped else _color(standing, colors)
    hatched: dict[str, Any] = {"hatch": "////", "edgecolor": HATCH} if standing.is_stopped else {"edgecolor": "white"}
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, linewidth=1.5, **hatched))
    ink = MUTED if standing.is_stopped else _ink_on(color)
    low, high = (decimal(end, digits) for end in standing.interval)
    below = f"stopped at {_short(standing.num_updates)}" if standing.is_stopped else f"[{low}, {high}]"
    style: dict[str, Any] = {"ha": "center", "va": "center", "color": ink, "zorder": 5, "textcoords": "offset points"}
    value = decimal(standing.iqm, digits)
    axes.annotate(value, (column, row), (0, 5), fontsize=VALUE_POINTS, fontweight="bold", **style)
    axes.annotate(below, (column, row), (0, -8), fontsize=INTERVAL_POINTS, **style)


def _color(standing: Standing, colors: ScalarMappable) -> tuple[float, float, float]:
    red, green, blue, _ = map(float, colors.to_rgba(np.array([standing.iqm]))[0])
    return red, green, blue


def _ink_on(color: tuple[float, float, float]) -> str:
    """Dark on light, white on dark, by what the eye takes for brightness."""
    return INK if float(np.dot(color, (0.299, 0.587, 0.114))) > DARK else "white"


def _short(num_updates: int) -> str:
    """20,000 as 20k."""
    return f"{num_updates / 1000:g}k" if num_updates >= 1000 else str(num_updates)


def draw_points(axes: Axes, standings: Sequence[Standing], score_name: str) -> None:
    """Every configuration as a point, the darker the better; crosses were stopped, the best has a ring.

    Args:
        axes: empty, with room for a colour bar at its right.
        standings: best first.
        score_name: what the colours mean.
    """
    colors = score_colors(standings)
    places = [(each.configuration.inverse_temperature, each.configuration.expectile) for each in standings]
    for place, standing in reversed(list(zip(places, standings, strict=True))):  # the better, the further in front
        if standing.is_stopped:
            axes.plot(*place, marker="x", color=CROSS)
        else:
            axes.plot(*place, marker="o", markersize=9, color=_color(standing, colors), markeredgecolor=MUTED)
    axes.plot(*places[0], marker="o", markersize=15, fillstyle="none", markeredgecolor=BEST, markeredgewidth=2.5)
    _scale(axes, "inverse_temperature", sorted({place[0] for place in places}))
    axes.margins(x=0.08, y=0.1)
    _dress(axes, "inverse temperature", "expectile")
    axes.grid(color=FAINT, linewidth=0.8)
    stopped = "; crosses: stopped early" if any(standing.is_stopped for standing in standings) else ""
    axes.set_title(f"every configuration; ringed: the best{stopped}", loc="left", fontsize=TEXT_POINTS, color=INK)
    _add_color_bar(axes, colors, score_name)


def _add_color_bar(axes: Axes, colors: ScalarMappable, score_name: str) -> None:
    assert axes.figure is not None
    bar = axes.figure.colorbar(colors, ax=axes, pad=0.02, aspect=30)
    bar.set_label(score_name, fontsize=TEXT_POINTS, color=MUTED)
    bar.ax.tick_params(labelsize=TEXT_POINTS, colors=MUTED, length=0)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}".replace("-", "\N{MINUS SIGN}")))
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]


def draw_effect(axes: Axes, setting: str, effects: Sequence[Effect], score_name: str = "") -> None:
    """Score against one setting: the mean over all others with its interval, and the best of the others.

    Args:
        axes: empty.
        setting: its dotted path.
        effects: by value, ascending.
        score_name: for the key to the lines; empty where another panel has it.
    """
    places = _scale(axes, setting, [effect.value for effect in effects])
    means = np.array([effect.mean for effect in effects])
    low, high = np.array([effect.interval for effect in effects]).T
    ends = [np.maximum(means - low, 0), np.maximum(high - means, 0)]
    line = "none" if len(effects) > MOST_MARKS else "-"  # between sampled values it would only zigzag
    mean = {"color": COLORS[0], "marker": "o", "markersize": 5, "linewidth": 2, "elinewidth": 1.3, "capsize": 3}
    num_full = max(effect.num_configurations for effect in effects)
    said = f"{'mean of all' if num_full > 1 else 'score'}, 95% over {effects[0].interval_over}"
    lines: list[Any] = [axes.errorbar(places, means, ends, label=said, linestyle=line, zorder=3, **mean)]
    lacking = [index for index, effect in enumerate(effects) if effect.num_configurations < num_full]
    if lacking:
        hollow = {"marker": "o", "markersize": 5, "markerfacecolor": "white", "color": COLORS[0], "linestyle": ""}
        lines += axes.plot(np.array(places)[lacking], means[lacking], label="of fewer", zorder=4, **hollow)
    if num_full > 1:
        best = {"color": COLORS[4], "marker": "D", "markersize": 4.5, "linewidth": 1.5, "zorder": 2}
        dashes = "none" if line == "none" else (0, (4, 2))
        lines += axes.plot(places, [effect.best for effect in effects], label="best", linestyle=dashes, **best)
    _dress(axes, *(f"{name} alone" for name in settings_in_words({setting: None})))
    axes.margins(x=0.1, y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}".replace("-", "\N{MINUS SIGN}")))
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    if score_name:
        axes.set_title(score_name, loc="left", fontsize=TEXT_POINTS, color=INK, pad=20)
        key = {"loc": "lower left", "bbox_to_anchor": (-0.02, 0.98), "ncols": 3, "borderpad": 0.2, "handlelength": 1.6}
        axes.legend(handles=lines, frameon=False, fontsize=TEXT_POINTS - 1, labelcolor=MUTED, columnspacing=1, **key)


def _scale(axes: Axes, setting: str, values: Sequence[Any]) -> list[float]:
    """Make the horizontal axis one of this setting.

    Returns:
        Where the values stand on it.
    """
    if setting == "expectile":
        is_marked = len(values) <= MOST_MARKS
        marks = [mark for mark in SAMPLED_EXPECTILES if values[0] <= mark <= values[-1]]
        scale_expectiles(axes, values if is_marked else marks)
    elif setting == "inverse_temperature":
        _scale_inverse_temperatures(axes, values)
    else:
        is_sampled = len(values) > MOST_MARKS and all(isinstance(value, (int, float)) for value in values)
        if not is_sampled:
            axes.set_xticks(range(len(values)), labels=list(map(setting_in_words, values)))
            return list(map(float, range(len(values))))
    return list(map(float, values))


def _scale_inverse_temperatures(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic where they span more than ten times; 0, which has no logarithm, stands left of the smallest."""
    positive = [value for value in values if value > 0]
    if positive and positive[-1] > WIDEST_LINEAR * positive[0]:
        if values[0] > 0:
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=positive[0], linscale=0.4)
    axes.xaxis.set_minor_locator(NullLocator())
    if len(values) <= MOST_MARKS:
        axes.set_xticks(values, labels=list(map(setting_in_words, values)))
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: setting_in_words(float(value))))


def _dress(axes: Axes, x_label: str, y_label: str = "") -> None:
    axes.set_xlabel(x_label, fontsize=TEXT_POINTS, color=MUTED)
    axes.set_ylabel(y_label, fontsize=TEXT_POINTS, color=MUTED)
    axes.tick_params(labelsize=TEXT_POINTS, colors=MUTED, length=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
