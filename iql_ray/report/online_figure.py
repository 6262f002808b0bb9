"""The curve of fine-tuning: return against environment steps, with the offline policy's score as the zero point.

    evaluations with their interval; the drop and where it was made good; what training episodes earned on the way

Several seeds are one curve: the interquartile mean and its interval, each seed faint behind it. Nothing is measured
here: `evaluation.online_curve` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from iql_ray.evaluation.online_curve import OnlineCurve, curve_over_seeds, summarize_online
from iql_ray.report.figures import (
    COLORS,
    DOTS_PER_INCH,
    FAINT,
    FONTS,
    INK,
    MUTED,
    SIZE_INCHES,
    label_at_right,
    number,
)

LINE, DROP, RECOVERED = COLORS[0], COLORS[1], COLORS[2]
EXPLORING = "#A9A9A9"
NUM_TRAINING_POINTS = 30
"""Training episodes are drawn as so many means of neighbours at most: one by one they hide the curve."""
MOST_MARKERS = 30


@dataclass(frozen=True, kw_only=True)
class TrainingEpisodes:
    """What episodes with exploration earned."""

    num_env_steps: Sequence[int]
    """Of the run, when an episode ended; ascending."""
    returns: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.num_env_steps) != len(self.returns):
            raise ValueError(
                f"training episodes need a return each, got {len(self.num_env_steps)} ends and "
                f"{len(self.returns)} returns"
            )


def online_figure(
    path: str | Path,
    curves: Sequence[OnlineCurve],
    title: str,
    y_label: str = "return of an evaluation episode",
    training_episodes: TrainingEpisodes | None = None,
) -> Path:
    """Write the curve of fine-tuning as a picture; the suffix of `path` (png, svg, pdf) says which kind.

    Args:
        path: the file to write; its folder must exist.
        curves: of one run, or of several seeds of one configuration.
        title: above the picture.
        y_label: what is measured, with its unit.
        training_episodes: of one run, drawn as a light line.

    Raises:
        ValueError: no curves.
    """
    figure = draw_online_figure(curves, title, y_label, training_episodes)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return Path(path)


def draw_online_figure(
    curves: Sequence[OnlineCurve], title: str, y_label: str, training_episodes: TrainingEpisodes | None = None
) -> Figure:
    """The same as a figure."""
    curve = curves[0] if len(curves) == 1 else curve_over_seeds(curves)
    figure = Figure(figsize=SIZE_INCHES, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels = [(f"offline {number(curve.scores[0])}", curve.scores[0], MUTED)]
    explored: Sequence[float] = ()
    if training_episodes is not None and len(training_episodes.returns):
        steps, explored = neighbour_means(training_episodes)
        axes.plot(steps, explored, color=EXPLORING, linewidth=1.1, zorder=1)
        labels.append((f"exploring {number(explored[-1])}", explored[-1], MUTED))
    if len(curves) > 1:
        for each in curves:
            axes.plot(each.num_env_steps, each.scores, color=LINE, alpha=0.28, linewidth=0.9, zorder=2)
    labels.append(_draw_curve(axes, curve))
    over = f"interval over {len(curves)} seeds, line: interquartile mean" if len(curves) > 1 else "interval"
    _dress(axes, title, f"{y_label}; shaded: 95% {over}")
    last = max(1, curve.num_env_steps[-1])
    axes.set_xlim(-0.015 * last, 1.015 * last)
    _set_view(axes, [*curve.lower, *curve.upper, *explored, *(score for each in curves for score in each.scores)])
    _mark_drop(axes, curve)
    label_at_right(axes, labels)
    return figure


def neighbour_means(episodes: TrainingEpisodes) -> tuple[list[float], list[float]]:
    """Mean ends and mean returns of episodes that ended within a NUM_TRAINING_POINTS-th part of the run of each other.

    Environments side by side whose episodes are equally long end together, wherever that is: these are one point.
    """
    width = episodes.num_env_steps[-1] / NUM_TRAINING_POINTS
    groups: list[list[tuple[float, float]]] = []
    for end, earned in zip(episodes.num_env_steps, episodes.returns, strict=True):
        if not groups or end - groups[-1][0][0] >= width:
            groups.append([])
        groups[-1].append((end, earned))
    ends, returns = zip(*(np.mean(group, axis=0).tolist() for group in groups), strict=True)
    return list(ends), list(returns)


def _draw_curve(axes: Axes, curve: OnlineCurve) -> tuple[str, float, str]:
    """The offline score as a line and the zero point, the evaluations with their interval; their label."""
    steps, offline = curve.num_env_steps, curve.scores[0]
    axes.axhline(offline, color=MUTED, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1.5)
    axes.fill_between(steps, curve.lower, curve.upper, color=LINE, alpha=0.18, linewidth=0, zorder=2)
    marker = "o" if len(steps) <= MOST_MARKERS else None
    axes.plot(steps, curve.scores, color=LINE, linewidth=2.2, marker=marker, markersize=4.5, zorder=4)
    axes.plot([0], [offline], "o", color="white", markeredgecolor=INK, markeredgewidth=1.6, markersize=8, zorder=5)
    return f"fine-tuned {number(curve.scores[-1])}", curve.scores[-1], LINE


def _set_view(axes: Axes, heights: Sequence[float]) -> None:
    """Everything is in the picture: a drop that is cut off looks smaller than it was."""
    margin = 0.08 * (max(heights) - min(heights)) or 1.0
    axes.set_ylim(min(heights) - margin, max(heights) + margin)


def _mark_drop(axes: Axes, curve: OnlineCurve) -> None:
    """From the offline score down to the lowest evaluation, and where it was made good."""
    summary = summarize_online(curve)
    if summary.drop_after is None:
        return
    after, offline = summary.drop_after, summary.offline
    ends = {"arrowstyle": "-|>", "color": DROP, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 3}
    axes.annotate("", xy=(after, offline - summary.drop), xytext=(after, offline), arrowprops=ends, zorder=6)
    back = summary.recovered_after
    text = f"drop {number(summary.drop)}" + ("" if back is not None else ", not made good")
    # Above the offline score and before the lowest nothing else is drawn, if there is room.
    is_early = after < 0.12 * curve.num_env_steps[-1]
    _note(axes, text, (after, offline), (6 if is_early else -6, 10), DROP)
    if back is not None:
        height = curve.scores[curve.num_env_steps.index(back)]
        axes.plot([back], [height], "o", color="white", markeredgecolor=RECOVERED, markeredgewidth=2.0, zorder=6)
        text = f"made good after {back:,} steps"
        if back > 0.7 * curve.num_env_steps[-1]:
            _note(axes, text, (back, height), (-6, 13), RECOVERED)
        else:
            _note(axes, text, (back, offline), (6, -11), RECOVERED)


def _note(axes: Axes, text: str, at: tuple[float, float], points: tuple[float, float], color: str) -> None:
    """Words so many points beside and above a point."""
    axes.annotate(
        text,
        xy=at,
        xytext=points,
        textcoords="offset points",
        ha="right" if points[0] < 0 else "left",
        va="center",
        fontsize=FONTS["tick"],
        color=color,
        zorder=7,
    )


def _dress(axes: Axes, title: str, subtitle: str) -> None:
    axes.set_title(f"{title}\n", loc="left", fontsize=FONTS["title"], fontweight="bold", color=INK)
    axes.text(0, 1.03, subtitle, transform=axes.transAxes, fontsize=FONTS["label"], color=MUTED)
    axes.set_xlabel("environment steps", fontsize=FONTS["label"], color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.tick_params(labelsize=FONTS["tick"], colors=MUTED, length=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
