"""The inspection's figures, as SVG text: returns, episode lengths, rewards, actions and what is left unexplained.

They take what `data/inspection` measured and draw it; which of them stand on the page is `inspection_page.py`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from iql_ray.data.inspection import Inspection
from iql_ray.data.inspection.counting import Histogram
from iql_ray.report.figures import COLORS, FAINT, INK, MUTED

BLUE, ORANGE = COLORS[0], COLORS[1]
WIDTH_INCHES = 9.0
MAX_PANELS = 30
MAX_BARS = 40
MAX_DOTS = 3_000
NUM_BINS = 40
WHOLE_LENGTHS = 60
"""Up to this range of lengths, each has its own bar."""
FONTS = {"title": 10.5, "label": 9.5, "tick": 9}


def returns_figure(inspection: Inspection) -> str:
    """Returns of the episodes as a histogram, and in the order in which they were logged."""
    returns = inspection.facts.episodes.returns
    figure, (left, right) = _figure(2.9, 2)
    left.hist(returns, bins=_bins(returns), color=BLUE, linewidth=0)
    _mark_mean(left, returns)
    _dress(left, "Return of an episode", "episodes")
    shown = np.unique(np.linspace(0, len(returns) - 1, MAX_DOTS).astype(int))
    size = 9.0 if len(shown) < 100 else 5.5 if len(shown) < 600 else 3.5
    right.plot(shown, returns[shown], ".", color=BLUE, markersize=size, alpha=0.6, markeredgewidth=0)
    right.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _dress(right, "The same in the order of the log", "return", "episode")
    return _svg(figure)


def lengths_figure(inspection: Inspection) -> str:
    """Episode lengths, terminated and cut ones apart."""
    episodes = inspection.facts.episodes
    low, high = int(episodes.lengths.min()), int(episodes.lengths.max())
    bins = np.arange(low, high + 2) - 0.5 if high - low < WHOLE_LENGTHS else np.linspace(low, high + 1, NUM_BINS + 1)
    if low == high:
        bins = np.arange(low - 5, high + 7) - 0.5  # one bar of its own width, not one as wide as the axes
    kinds = {"terminated": (episodes.is_terminated, ORANGE), "cut (truncated)": (~episodes.is_terminated, BLUE)}
    figure, (axes,) = _figure(2.5, 1)
    axes.hist(
        [episodes.lengths[chosen] for chosen, _ in kinds.values()],
        bins=bins.tolist(), stacked=True, color=[color for _, color in kinds.values()], linewidth=0,
        label=[f"{name}: {int(chosen.sum()):,}" for name, (chosen, _) in kinds.items()],
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=FONTS["label"], labelcolor=INK, loc="best", handlelength=1, handleheight=1)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    _dress(axes, "Length of an episode, in steps", "episodes")
    return _svg(figure)


def rewards_figure(inspection: Inspection) -> str:
    """Rewards of the rows: by value where there are few, else as a histogram."""
    counts, histogram = inspection.facts.episodes.reward_counts, inspection.facts.rows.rewards
    figure, (axes,) = _figure(2.5, 1)
    if counts is not None:
        _bars(axes, [number(value) for value in counts], np.array(list(counts.values())))
    else:
        _draw_histogram(axes, histogram)
    outside = f"; {histogram.num_outside:,} rows lie outside this range" if histogram.num_outside else ""
    _dress(axes, f"Reward of a row{outside}", "rows")
    return _svg(figure)


def actions_figure(inspection: Inspection) -> str:
    """Actions over their box, a panel for each dimension; choices as bars."""
    actions = inspection.facts.rows.actions
    if len(actions.choice_counts):
        figure, (axes,) = _figure(2.5, 1)
        _bars(axes, [str(index) for index in range(len(actions.choice_counts))], actions.choice_counts)
        _dress(axes, "Choice", "rows")
        return _svg(figure)
    shown = actions.histograms[:MAX_PANELS]
    num_columns = min(len(shown), 6 if len(shown) > 8 else 4)
    num_rows = -(-len(shown) // num_columns)
    figure, panels = _figure(0.35 + 1.35 * num_rows, num_columns, num_rows)
    for index, (axes, histogram) in enumerate(zip(panels, shown, strict=False)):
        _draw_histogram(axes, histogram)
        at_bounds = actions.at_low[index] + actions.at_high[index]
        _dress(axes, f"{index}: {at_bounds:.0%} at bounds", "")
        axes.set_xticks(histogram.edges[[0, -1]], [number(edge) for edge in histogram.edges[[0, -1]]])
        axes.set_yticks([])
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    return _svg(figure)


def bounds_figure(inspection: Inspection) -> str:
    """Shares of the actions at or near their bounds, by dimension."""
    actions = inspection.facts.rows.actions
    low, high = actions.at_low[:MAX_BARS], actions.at_high[:MAX_BARS]
    figure, (axes,) = _figure(2.3, 1)
    places = np.arange(len(low))
    axes.bar(places, low, 0.7, color=BLUE, label="at the lower bound")
    axes.bar(places, high, 0.7, bottom=low, color=ORANGE, label="at the upper bound")
    axes.set_ylim(0, max(0.1, 1.25 * float((low + high).max())))
    axes.legend(frameon=False, fontsize=FONTS["label"], labelcolor=INK, ncols=2, loc="upper right", handlelength=1)
    _dress_shares(axes, "Share of the actions within 1% of a bound", len(low))
    return _svg(figure)


def behaviour_figure(inspection: Inspection) -> str:
    """What share of the actions' variance the observations leave unexplained, by dimension."""
    shares = np.nan_to_num(np.array(inspection.facts.behaviour.by_dimension[:MAX_BARS]))
    figure, (axes,) = _figure(2.3, 1)
    axes.bar(np.arange(len(shares)), shares, 0.7, color=BLUE)
    axes.set_ylim(0, 1)
    _dress_shares(axes, "Share of the actions' variance that the observations do not explain", len(shares))
    return _svg(figure)


def number(value: float) -> str:
    """Four significant digits, thousands grouped, a real minus sign."""
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
    return "0" if text in ("-0", "0") else text.replace("-", "\N{MINUS SIGN}")


def _figure(height_inches: float, num_columns: int, num_rows: int = 1) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
    FigureCanvasSVG(figure)
    return figure, figure.subplots(num_rows, num_columns, squeeze=False).flatten().tolist()


def _svg(figure: Figure) -> str:
    """The same text for the same figure: no date, no random names."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "iql_ray"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def _bins(values: np.ndarray) -> list[float]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        margin = abs(low) / 10 or 1.0
        return np.linspace(low - margin, high + margin, 10).tolist()
    return np.linspace(low, high, min(NUM_BINS, max(8, len(values) // 2)) + 1).tolist()


def _mark_mean(axes: Axes, values: np.ndarray) -> None:
    """A dashed line at the mean, its label on the side that has room."""
    mean, middle = float(values.mean()), float(values.min() + values.max()) / 2
    axes.margins(y=0.2)
    axes.axvline(mean, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    is_left = mean <= middle
    axes.annotate(
        f"mean {number(mean)}", (mean, 1), (4 if is_left else -4, -2), ("data", "axes fraction"), "offset points",
        ha="left" if is_left else "right", va="top", fontsize=FONTS["label"], color=INK,
    )  # fmt: skip


def _draw_histogram(axes: Axes, histogram: Histogram) -> None:
    axes.stairs(histogram.counts, histogram.edges, fill=True, color=BLUE, linewidth=0)
    margin = 0.02 * (histogram.edges[-1] - histogram.edges[0])
    axes.set_xlim(histogram.edges[0] - margin, histogram.edges[-1] + margin)


def _bars(axes: Axes, names: Sequence[str], counts: np.ndarray) -> None:
    """One bar for each value, its share above it."""
    bars = axes.bar(np.arange(len(counts)), counts, 0.7, color=BLUE)
    axes.bar_label(
        bars, [_share(share) for share in counts / counts.sum()], fontsize=FONTS["tick"], color=INK, padding=2
    )
    axes.set_xticks(np.arange(len(counts)), names)
    axes.set_xlim(-0.5 - 0.3 * max(0, 6 - len(counts)), len(counts) - 0.5 + 0.3 * max(0, 6 - len(counts)))
    axes.margins(y=0.15)


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 or share == 0 else "<0.1%"


def _dress_shares(axes: Axes, title: str, num_bars: int) -> None:
    _dress(axes, title, "", "action dimension", lambda value: f"{value:.0%}")
    axes.set_xlim(-0.8, max(num_bars, 6) - 0.2)
    axes.set_xticks(np.arange(0, num_bars, 1 if num_bars <= 20 else 5))


def _dress(axes: Axes, title: str, y_label: str, x_label: str = "", y_format: Callable[[float], str] = number) -> None:
    """What is shown stands above it, at the left; only the lines that carry a number."""
    axes.set_title(title, loc="left", fontsize=FONTS["title"], color=INK)
    axes.set_xlabel(x_label, fontsize=FONTS["label"], color=MUTED)
    axes.set_ylabel(y_label, fontsize=FONTS["label"], color=MUTED)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=y_label in ("episodes", "rows")))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: y_format(value)))
    axes.tick_params(labelsize=FONTS["tick"], colors=MUTED, length=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
