"""Figures of a run, drawn from plain numbers: the one place that knows matplotlib.

It reads no run, no tracking store and no environment; whoever calls it brings the histories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette: told apart with every common colour blindness."""
INK, MUTED, FAINT = "#222222", "#6B6B6B", "#DDDDDD"
SIZE_INCHES = (8.0, 4.5)
DOTS_PER_INCH = 150
LABEL_HEIGHT = 0.062
"""Of one label, as a share of the axes' height: two labels stay that far apart."""
FONTS = {"title": 14, "label": 11, "tick": 10}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One method's evaluations: return after so many updates, with the ends of its 95% interval."""

    updates: Sequence[int]
    means: Sequence[float]
    lower: Sequence[float]
    upper: Sequence[float]

    def __post_init__(self) -> None:
        lengths = {len(self.updates), len(self.means), len(self.lower), len(self.upper)}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(f"a curve needs updates, means, lower and upper of one length above 0, got {self}")


def learning_curve(
    path: str | Path,
    curves: Mapping[str, Curve],
    references: Mapping[str, float],
    title: str,
    y_label: str = "return of an evaluation episode",
) -> Path:
    """Write the learning curve as a picture; the suffix of `path` (png, svg, pdf) says which kind.

    Args:
        path: the file to write; its folder must exist.
        curves: by the name of the method, each drawn with its interval.
        references: horizontal dashed lines by name, such as the data's mean return.
        title: above the picture.
        y_label: what is measured, with its unit; it stands horizontally, under the title.
    """
    figure = draw_learning_curve(curves, references, title, y_label)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return Path(path)


def draw_learning_curve(
    curves: Mapping[str, Curve], references: Mapping[str, float], title: str, y_label: str
) -> Figure:
    """The learning curve as a figure; lines carry their names at the right, so that there is no legend to decode."""
    if not curves:
        raise ValueError("a learning curve needs at least one curve, got none")
    figure = Figure(figsize=SIZE_INCHES, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels: list[tuple[str, float, str]] = []
    for name, height in references.items():
        axes.axhline(height, color=MUTED, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        labels.append((f"{name} {number(height)}", height, MUTED))
    for (name, curve), color in zip(curves.items(), _colors(len(curves)), strict=True):
        _draw_curve(axes, curve, color)
        labels.append((f"{name} {number(curve.means[-1])}", curve.means[-1], color))
    _dress(axes, title, y_label)
    last = max(1, *(curve.updates[-1] for curve in curves.values()))
    axes.set_xlim(-0.012 * last, 1.012 * last)
    axes.set_ylim(view(curves.values(), references.values()))
    label_at_right(axes, labels)
    return figure


def view(curves: Iterable[Curve], references: Iterable[float]) -> tuple[float, float]:
    """The range of returns to show: where the runs end up and what they are compared with, in full.

    What an untrained policy earns may lie many times that far away, and would press everything else into one line:
    so the early half of a curve extends the view by at most half of it on each side, and enters from outside.
    """
    curves = list(curves)
    late = [height for curve in curves for ends in (curve.lower, curve.upper) for height in ends[len(ends) // 2 :]]
    late += references
    low, high = min(late), max(late)
    room = (high - low) / 2 or 1.0
    low = max(low - room, min(low, *(height for curve in curves for height in curve.lower)))
    high = min(high + room, max(high, *(height for curve in curves for height in curve.upper)))
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_curve(axes: Axes, curve: Curve, color: str) -> None:
    marker = "o" if len(curve.updates) <= 25 else None
    axes.fill_between(curve.updates, curve.lower, curve.upper, color=color, alpha=0.18, linewidth=0, zorder=2)
    axes.plot(curve.updates, curve.means, color=color, linewidth=2.2, marker=marker, markersize=4.5, zorder=3)


def _dress(axes: Axes, title: str, y_label: str) -> None:
    """Title and axis label at the left, where reading starts; only the grid lines that carry a number."""
    axes.set_title(f"{title}\n", loc="left", fontsize=FONTS["title"], fontweight="bold", color=INK)
    axes.text(
        0, 1.03, f"{y_label}; shaded: 95% interval", transform=axes.transAxes, fontsize=FONTS["label"], color=MUTED
    )
    axes.set_xlabel("updates", fontsize=FONTS["label"], color=MUTED)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.tick_params(labelsize=FONTS["tick"], colors=MUTED, length=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def label_at_right(axes: Axes, labels: Sequence[tuple[str, float, str]]) -> None:
    """Write texts beside heights of the axes, each with its colour; the axes' limits must stand."""
    bottom, top = axes.get_ylim()
    wanted = [(height - bottom) / (top - bottom) for _, height, _ in labels]
    for (text, _, color), share, placed in zip(labels, wanted, spread(wanted, LABEL_HEIGHT), strict=True):
        axes.annotate(
            text,
            xy=(1, share),
            xytext=(1.035, placed),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=FONTS["label"],
            fontweight="normal" if color == MUTED else "bold",
            color=color,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 2},
            annotation_clip=False,
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move labels apart until each pair is at least `gap` apart, in their order, as little as needed.

    Labels that touch form a stack around the mean of the heights they want:

        wanted   a b            c         gap 2
                 0 1            9
        placed -0.5  1.5        9
    """
    order = sorted(range(len(heights)), key=heights.__getitem__)
    stacks: list[list[int]] = []
    for index in order:
        stacks.append([index])
        while len(stacks) > 1 and _span(stacks[-1], heights, gap)[0] - _span(stacks[-2], heights, gap)[1] < gap:
            top = stacks.pop()
            stacks[-1] += top
    placed = dict.fromkeys(order, 0.0)
    for stack in stacks:
        low, _ = _span(stack, heights, gap)
        placed.update({index: low + gap * rank for rank, index in enumerate(stack)})
    return [placed[index] for index in range(len(heights))]


def _span(stack: Sequence[int], heights: Sequence[float], gap: float) -> tuple[float, float]:
    """Lowest and highest label of a stack that is centred on what its labels want."""
    middle = sum(heights[index] for index in stack) / len(stack)
    reach = gap * (len(stack) - 1) / 2
    return middle - reach, middle + reach


def _colors(count: int) -> list[str]:
    return [COLORS[index % len(COLORS)] for index in range(count)]


def number(value: float) -> str:
    """Three significant digits, thousands grouped, a real minus sign."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:,.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "0") else text.replace("-", "\N{MINUS SIGN}")
