"""Returns beside the value maps: what is earned at which expectile, and what is chosen on the lucky map.

It fills axes that it is given; where they stand is for `maze_figure` to say.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from iql_ray.report.figures import COLORS, FAINT, INK, MUTED, spread
from iql_ray.report.value_maps import IMPOSSIBLE, TEXT_POINTS

METHOD_COLORS = tuple(color for color in COLORS if color != IMPOSSIBLE)
"""Vermilion means one thing in this picture."""
LABEL_CHARACTERS = 15
LABEL_INCHES = 0.28
"""Two labels of two lines stay that far apart."""
BAR_ROOM = 1.3
"""The axis of a bar goes so far beyond its longest value, for the number at its end."""

Numbers = Sequence[float] | np.ndarray

Interval = tuple[float, float, float]
"""Centre, lower and upper end of a 95% interval."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReturnCurve:
    """What a method earns at each expectile; an exact solution has no interval and is drawn dotted."""

    label: str
    expectiles: Numbers
    returns: Numbers
    lower: Numbers | None = None
    upper: Numbers | None = None
    """Ends of the 95% intervals: both or neither."""

    def __post_init__(self) -> None:
        ends = [values for values in (self.lower, self.upper) if values is not None]
        lengths = [len(values) for values in (self.expectiles, self.returns, *ends)]
        if len(ends) == 1 or len(set(lengths)) != 1 or lengths[0] == 0:
            raise ValueError(
                f"return curve '{self.label}': got expectiles, returns and ends of intervals of lengths {lengths}, "
                "expected one length above 0, and both ends or neither"
            )
        if not all(0 < expectile < 1 for expectile in self.expectiles):
            raise ValueError(
                f"return curve '{self.label}': got expectiles {list(self.expectiles)}, expected numbers in (0, 1)"
            )

    @property
    def highest(self) -> float:
        """The highest point drawn, interval included."""
        return float(max(self.returns if self.upper is None else self.upper))


@dataclass(frozen=True, kw_only=True)
class LuckyMethod:
    """What one method does on the lucky map."""

    label: str
    probability: Interval
    """That it takes the lucky action in the lucky cell."""
    earned: Interval
    """The return that its policy really has from the start."""

    def __post_init__(self) -> None:
        for name, (centre, lower, upper) in (("probability", self.probability), ("earned", self.earned)):
            if not lower <= centre <= upper:
                raise ValueError(
                    f"lucky method '{self.label}': {name} is {(centre, lower, upper)}, expected "
                    "(centre, lower end, upper end)"
                )


def draw_return_curves(axes: Axes, curves: Sequence[ReturnCurve], references: Mapping[str, float]) -> None:
    """Return against expectile; lines carry their names at the right.

    Args:
        axes: empty, with about an inch of page to its right.
        curves: the first one's expectiles are the marks of the axis.
        references: returns by name, drawn as dashed lines; equal ones share a line and a label.
    """
    labels: list[tuple[str, float, str]] = []
    for names, value in _grouped(references):
        axes.axhline(value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        labels.append((f"{names} {value:.2f}", value, MUTED))
    colors = iter(METHOD_COLORS)
    for curve in curves:
        color = INK if curve.lower is None else next(colors)
        _draw_curve(axes, curve, color)
        labels.append((curve.label, curve.returns[-1], color))
    _dress(axes, curves[0].expectiles)
    top = max([*references.values(), *(curve.highest for curve in curves)]) or 1.0
    axes.set_ylim(-0.04 * top, 1.06 * top)
    _label_at_right(axes, labels)


def _grouped(references: Mapping[str, float]) -> list[tuple[str, float]]:
    """References that round to the same number share one line and one label."""
    groups: dict[str, list[str]] = {}
    for name, value in references.items():
        groups.setdefault(f"{value:.2f}", []).append(name)
    return [(", ".join(names), references[names[0]]) for names in groups.values()]


def _draw_curve(axes: Axes, curve: ReturnCurve, color: str) -> None:
    if curve.lower is None or curve.upper is None:
        axes.plot(curve.expectiles, curve.returns, color=color, linewidth=1.5, linestyle=":", zorder=4)
        return
    axes.fill_between(curve.expectiles, curve.lower, curve.upper, color=color, alpha=0.2, linewidth=0, zorder=2)
    axes.plot(curve.expectiles, curve.returns, color=color, linewidth=2, marker="o", markersize=4, zorder=3)


def _dress(axes: Axes, expectiles: Numbers) -> None:
    scale_expectiles(axes, expectiles)
    axes.set_xlabel("expectile", fontsize=TEXT_POINTS, color=INK, labelpad=1)
    axes.set_title("return from the start\n(shaded: 95% interval)", loc="left", fontsize=TEXT_POINTS, color=INK)
    axes.tick_params(labelsize=TEXT_POINTS, colors=INK, length=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def scale_expectiles(axes: Axes, expectiles: Numbers) -> None:
    """Make the horizontal axis one of expectiles, with marks at these."""
    axes.set_xscale("function", functions=(_decades_to_maximum, _expectile_at))
    axes.set_xticks(expectiles, labels=[f"{expectile:g}".removeprefix("0") for expectile in expectiles])


def _decades_to_maximum(expectile: np.ndarray) -> np.ndarray:
    """The axis: 0.9 to 0.99 is as long as 0 to 0.9, since what counts is how near 1 an expectile is."""
    return -np.log10(np.fmax(1 - np.asarray(expectile), 1e-9))


def _expectile_at(decades: np.ndarray) -> np.ndarray:
    return 1 - 10.0 ** -np.asarray(decades)


def _label_at_right(axes: Axes, labels: Sequence[tuple[str, float, str]]) -> None:
    bottom, top = axes.get_ylim()
    gap = LABEL_INCHES * axes.figure.dpi / axes.get_window_extent().height
    wanted = [(height - bottom) / (top - bottom) for _, height, _ in labels]
    for (text, _, color), share, placed in zip(labels, wanted, spread(wanted, gap), strict=True):
        axes.annotate(
            textwrap.fill(text, LABEL_CHARACTERS, break_on_hyphens=False),
            xy=(1.03, share),
            xytext=(1.12, placed),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=TEXT_POINTS,
            linespacing=1.05,
            fontweight="normal" if color == MUTED else "bold",
            color=color,
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.8,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),  # to the label's left edge: on the way to its middle it would cross neighbours
            },
            annotation_clip=False,
        )


def draw_bars(axes: Axes, title: str, labels: Sequence[str], bars: Sequence[Interval], limit: float) -> None:
    """One horizontal bar for each method, its interval and its number at the end, up to a marked limit.

    Args:
        axes: empty, with about an inch of page to its left for the labels.
        title: what the bars measure.
        labels: the methods' names; empty ones where a neighbour shows them already.
        bars: centre, lower and upper end.
        limit: the highest that can be had, marked by a dashed line.
    """
    centres, lower, upper = np.array(bars, dtype=float).T
    places = np.arange(len(bars))
    ends = {"ecolor": INK, "elinewidth": 1.2, "capsize": 2.5}
    axes.barh(
        places, centres, xerr=[centres - lower, upper - centres], height=0.58, color=METHOD_COLORS[0], error_kw=ends
    )
    axes.axvline(limit, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    for place, centre, end in zip(places, centres, upper, strict=True):
        number = {"textcoords": "offset points", "va": "center", "fontsize": TEXT_POINTS + 1, "fontweight": "bold"}
        axes.annotate(f"{centre:.2f}", (end, place), (5, 0), color=INK, backgroundcolor="white", **number)
    axes.set_xlim(0, BAR_ROOM * max(limit, upper.max()))
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_yticks(places, labels=labels)
    axes.set_xticks([0, limit], labels=["0", f"{limit:.3g}"])
    axes.set_title(title, loc="left", fontsize=TEXT_POINTS, color=INK)
    axes.tick_params(labelsize=TEXT_POINTS, colors=INK, length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(MUTED)
