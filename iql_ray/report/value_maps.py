"""Maps of a maze's values, all on one colour scale: how far from the goal a critic's values reach, and what follows.

A map is read from the top: the critic's name, what it does, its values as colours with its policy's arrows, and inside
the wall what that policy really earns. This file knows grids of numbers, no environment and no critic.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_rgba
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from iql_ray.report.figures import COLORS, INK

SHADES = ("#FCFAE1", "#DCEFB8", "#9FD8B4", "#56B3C3", "#2C7FB8", "#1F4E96", "#0B1F4D")
"""Light to dark, even without colour: a cell nobody knows a value of is nearly white."""
IMPOSSIBLE = COLORS[1]
"""Vermilion, which the shades never come near: a value that no policy has from there."""
WALL, FRAME = "#E4E4E4", "#9A9A9A"
LUCKY_MARK = {"marker": "D", "markersize": 7, "color": COLORS[3], "markeredgecolor": INK, "markeredgewidth": 0.7}
GOAL_MARK = {"marker": "*", "markersize": 11, "color": COLORS[4], "markeredgecolor": INK, "markeredgewidth": 0.7}
START_WIDTH = 1.8
DECADES = 3
"""The colours span: a discounted value falls by as much on its way to the start, and what is below is as good as 0."""
HEADROOM = 1.05
"""The scale ends a few percent above the highest V*, around which learned values scatter."""
SCATTER = 0.15
"""Of the scale's end: only what lies further above a cell's V* is called impossible."""
STEPS = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])
"""Columns and rows that up, right, down, left move by."""
ARROW_CELLS = 0.66
NAME_POINTS, TEXT_POINTS, NUMBER_POINTS = 9, 8, 15
LINE_POINTS = 10.5
"""From one line of text to the next."""
SAYING_CHARACTERS = 21
"""That fit in one line above a map."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ValueMap:
    """One critic on one maze: the values of its cells and the actions that its policy takes there."""

    title: str
    """The critic's name; 16 characters fit above a map."""
    saying: str = ""
    """What it does, in a few words; broken into lines of 21 characters."""
    values: np.ndarray
    """(rows, columns) floats, NaN on walls."""
    arrows: np.ndarray
    """(rows, columns) integers: 0 up, 1 right, 2 down, 3 left, -1 no arrow."""
    start: tuple[int, int]
    """Row and column."""
    goal: tuple[int, int]
    """Row and column; its own value is not shown, since the episode is over there."""
    lucky: tuple[int, int] | None = None
    """Row and column of a cell where a rare reward comes whatever is done: a diamond stands there, and no arrow."""
    ceilings: np.ndarray | None = None
    """(rows, columns) V* of each cell; None stands for the scale's end everywhere."""
    earned: float | None = None
    """The return that the policy really has from the start; None leaves the wall empty."""

    def __post_init__(self) -> None:
        shapes = {grid.shape for grid in (self.values, self.arrows, self.ceilings) if grid is not None}
        if self.values.ndim != 2 or len(shapes) > 1:
            raise self._refusal(
                f"values of shape {self.values.shape} and arrows of shape {self.arrows.shape}",
                "one (rows, columns) grid for both, and for ceilings",
            )
        if np.isinf(self.values).any():
            raise self._refusal("infinite values", "numbers, and NaN on walls; the critic has diverged")
        if not np.isin(self.arrows, (-1, 0, 1, 2, 3)).all():
            raise self._refusal(f"arrows from {np.unique(self.arrows).tolist()}", "0 to 3, and -1 for none")
        for name, cell in (("start", self.start), ("goal", self.goal), ("lucky cell", self.lucky)):
            if cell is not None and not self._is_corridor(cell):
                raise self._refusal(f"the {name} {cell}", "(row, column) of a cell inside the grid that is no wall")

    def _is_corridor(self, cell: tuple[int, int]) -> bool:
        inside = all(0 <= index < size for index, size in zip(cell, self.values.shape, strict=True))
        return inside and not np.isnan(self.values[cell])

    def _refusal(self, got: str, expected: str) -> ValueError:
        return ValueError(f"value map '{self.title}': got {got}, expected {expected}")

    @property
    def saying_lines(self) -> list[str]:
        """The saying, broken to the width of a map."""
        return textwrap.wrap(self.saying, SAYING_CHARACTERS)


def value_scale(ceiling: float) -> ScalarMappable:
    """The colours of values: three decades up to the highest value that any policy has.

    Args:
        ceiling: the maximum of V*, positive.
    """
    if not (np.isfinite(ceiling) and ceiling > 0):
        raise ValueError(f"ceiling is {ceiling}, expected the highest value of V*, a positive number")
    colors = LinearSegmentedColormap.from_list("values", SHADES)
    return ScalarMappable(LogNorm(ceiling / 10**DECADES, ceiling * HEADROOM), colors)


def impossible_cells(value_map: ValueMap, scale: ScalarMappable) -> np.ndarray:
    """(rows, columns) bool: where a value lies above what any policy has from there, by more than values scatter."""
    _, end = scale.get_clim()
    limits = end if value_map.ceilings is None else value_map.ceilings + SCATTER * end
    is_above = value_map.values > limits
    is_above[value_map.goal] = False
    return is_above


def room_above(maps: Sequence[ValueMap]) -> float:
    """Inches that the longest text above these maps takes, when they stand side by side."""
    return (NAME_POINTS + 5 + LINE_POINTS * _most_lines(maps)) / 72


def draw_value_maps(places: Sequence[Axes], maps: Sequence[ValueMap], scale: ScalarMappable, best: float) -> None:
    """Fill axes that stand side by side with one map each, their names on one level.

    Args:
        places: empty axes; their frames become the mazes' outer walls.
        maps: as many.
        scale: from `value_scale`, the same for all maps of a figure.
        best: the return of the best policy from the start, which `earned` is compared with.
    """
    for axes, value_map in zip(places, maps, strict=True):
        rows, columns = value_map.values.shape
        axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal", xticks=[], yticks=[])
        axes.set_facecolor(WALL)
        axes.spines[:].set(color=FRAME, linewidth=0.8)
        colors = _cell_colors(value_map, scale)
        _draw_cells(axes, value_map, colors)
        _draw_arrows(axes, value_map, colors)
        _draw_marks(axes, value_map)
        _write_in_wall(axes, value_map, scale, best)
        _write_above(axes, value_map, _most_lines(maps))


def _most_lines(maps: Sequence[ValueMap]) -> int:
    return max((len(value_map.saying_lines) for value_map in maps), default=0)


def _cell_colors(value_map: ValueMap, scale: ScalarMappable) -> np.ndarray:
    """(rows, columns, 4): what lies below the scale, negative values too, has its lightest shade; the goal is white."""
    lowest, _ = scale.get_clim()
    colors = np.array(scale.to_rgba(np.fmax(value_map.values, lowest)))
    colors[impossible_cells(value_map, scale)] = to_rgba(IMPOSSIBLE)
    colors[value_map.goal] = 1.0
    return colors


def _draw_cells(axes: Axes, value_map: ValueMap, colors: np.ndarray) -> None:
    corridor = np.argwhere(~np.isnan(value_map.values))
    squares = [Rectangle((column - 0.5, row - 0.5), 1, 1) for row, column in corridor]
    faces = colors[corridor[:, 0], corridor[:, 1]]
    axes.add_collection(PatchCollection(squares, facecolors=faces, edgecolors="white", linewidths=0.4))


def _draw_arrows(axes: Axes, value_map: ValueMap, colors: np.ndarray) -> None:
    """Dark on a light cell, white on a dark one."""
    arrows = value_map.arrows.copy()
    arrows[value_map.lucky or value_map.goal] = -1
    rows, columns = np.nonzero(arrows >= 0)
    if not len(rows):
        return
    across, down = STEPS[arrows[rows, columns]].T * ARROW_CELLS
    brightness = colors[rows, columns, :3] @ (0.299, 0.587, 0.114)
    shape: dict[str, Any] = {"width": 0.12, "headwidth": 3.6, "headlength": 2.9, "headaxislength": 2.7}
    shades = [INK if bright > 0.5 else "white" for bright in brightness]
    in_cells: dict[str, Any] = {"angles": "xy", "units": "xy", "scale_units": "xy", "scale": 1, "pivot": "mid"}
    axes.quiver(columns, rows, across, down, color=shades, **in_cells, **shape)


def _draw_marks(axes: Axes, value_map: ValueMap) -> None:
    """A box around the start, with a white rim that parts it from a dark cell, a star on the goal."""
    row, column = value_map.start
    rim = withStroke(linewidth=START_WIDTH + 1.2, foreground="white")
    box: dict[str, Any] = {
        "fill": False,
        "edgecolor": INK,
        "linewidth": START_WIDTH,
        "path_effects": [rim],
        "zorder": 4,
    }
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **box))
    axes.plot(value_map.goal[1], value_map.goal[0], **GOAL_MARK)
    if value_map.lucky:
        axes.plot(value_map.lucky[1], value_map.lucky[0], **LUCKY_MARK)


def _write_in_wall(axes: Axes, value_map: ValueMap, scale: ScalarMappable, best: float) -> None:
    """What the policy earns, and beside it an impossible value that its critic promises, in the middle of the wall."""
    walls = np.argwhere(np.isnan(value_map.values))
    if value_map.earned is None or not len(walls):
        return
    row, column = walls.mean(axis=0)
    lines = [
        ("return", 18, {"fontsize": TEXT_POINTS}),
        (f"{value_map.earned:.2f}", 5.5, {"fontsize": NUMBER_POINTS, "fontweight": "bold"}),
        (f"of {best:.2f}", -8, {"fontsize": TEXT_POINTS}),
    ]
    if impossible_cells(value_map, scale)[value_map.start]:
        style = {"fontsize": TEXT_POINTS, "fontweight": "bold", "color": IMPOSSIBLE}
        lines.append((f"V = {value_map.values[value_map.start]:.2f}", -21, style))
    for text, height, style in lines:
        middle = {"textcoords": "offset points", "ha": "center", "va": "center", "color": INK}
        axes.annotate(text, (column, row), (0, height), **(middle | style))


def _write_above(axes: Axes, value_map: ValueMap, num_lines: int) -> None:
    """The name, and under it what the critic does, in as many lines as the longest of its neighbours takes."""
    level = 5 + LINE_POINTS * num_lines
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "color": INK}
    axes.annotate(value_map.title, (0, 1), (0, level), fontsize=NAME_POINTS, fontweight="bold", **place)
    saying: dict[str, Any] = {"fontsize": TEXT_POINTS, "va": "top", "linespacing": 1.1}
    axes.annotate("\n".join(value_map.saying_lines), (0, 1), (0, level - 2), **saying, **place)
