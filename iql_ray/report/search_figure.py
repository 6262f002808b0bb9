"""A search in one picture: the score of every expectile and inverse temperature, and the effect of each setting alone.

    title
    heat map                          effect of the expectile
    expectile x inverse temperature   effect of the inverse temperature
                                      of every other setting

A wide grid has the effects below it. Expectiles that were sampled make no grid: then every configuration is a point.
Which panel shows what is decided here; how it is drawn is `search_panels.py`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from iql_ray.evaluation.leaderboard import Standing, by_size, settings_in_words
from iql_ray.evaluation.setting_effects import Effect
from iql_ray.report.figures import INK
from iql_ray.report.search_panels import Grid, draw_effect, draw_heat_map, draw_points, score_colors

WIDTH = 9.4
"""Inches, as all sizes here: on a page that shows the picture 900 pixels wide, text has about its size in points."""
DOTS_PER_INCH = 150
TITLE_POINTS, TITLE_CHARACTERS = 13, 84
TITLE, GRID_HEAD, POINTS, EFFECT = 0.4, 0.85, 4.2, 2.1
CELL_WIDTH, CELL_HEIGHT, CELL_LABELS = 1.0, 0.52, 0.8
MOST_BESIDE = 4
"""Columns of a grid that leave room for the effects beside it."""
EFFECTS_ABREAST = 3
MOST_GRIDS = 4
"""One for each combination of other settings; of more, one grid shows the best."""
MOST_VALUES = 12
"""Of a setting on a grid's axis: more are sampled ones."""
LEAST_FILLED = 0.5
"""Share of a grid's cells that were tried: with fewer, points say more."""


def draw_search(
    path: str | Path,
    standings: Sequence[Standing],
    effects: Mapping[str, Sequence[Effect]],
    title: str,
    score_name: str = "return",
) -> Path:
    """Write the search as a picture; the suffix of `path` (png, svg, pdf) says which kind.

    Args:
        path: the file to write; its folder must exist.
        standings: as `leaderboard.rank` gave them, best first.
        effects: as `setting_effects.effects` gave them, by setting; may be empty.
        title: above the picture.
        score_name: what the scores are, such as 'normalized score'.

    Raises:
        ValueError: no standings.
    """
    figure = search_figure(standings, effects, title, score_name)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return Path(path)


def search_figure(
    standings: Sequence[Standing], effects: Mapping[str, Sequence[Effect]], title: str, score_name: str = "return"
) -> Figure:
    """The search as a figure."""
    if not standings:
        raise ValueError("a picture of a search needs at least one standing, got none")
    shown = _shown_effects(effects)
    grids = _grids(standings) if _has_two_axes(standings) or not shown else []
    is_sampled = bool(grids) and not all(map(_is_grid, grids))
    layout = _layout(grids, is_sampled, len(shown))
    figure = Figure(figsize=layout.size, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)
    figure.suptitle(
        textwrap.fill(title, TITLE_CHARACTERS), x=0.012, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK
    )
    parts = _parts(figure, layout)
    if is_sampled:
        draw_points(parts.pop(0).add_subplot(), standings, score_name)
    elif grids:
        _draw_grids(parts.pop(0), grids, standings, score_name)
    if shown:
        _draw_effects(parts.pop(0), shown, layout, score_name)
    return figure


class _Layout(NamedTuple):
    """Inches, and how the effects stand."""

    size: tuple[float, float]
    shares: tuple[float, ...]
    """Widths of grid and effects where they stand side by side, else heights; one where there is one of them."""
    is_beside: bool
    num_abreast: int


def _layout(grids: Sequence[Grid], is_sampled: bool, num_effects: int) -> _Layout:
    num_columns = max((len(grid.inverse_temperatures) for grid in grids), default=0)
    heights = [GRID_HEAD + CELL_HEIGHT * max(2, len(grid.expectiles)) for grid in grids]
    grid_height = POINTS if is_sampled else sum(heights)
    grid_width = WIDTH if is_sampled else CELL_LABELS + CELL_WIDTH * num_columns
    is_beside = bool(grids) and not is_sampled and num_columns <= MOST_BESIDE and bool(num_effects)
    if is_beside:
        height = max(grid_height, EFFECT * num_effects)
        return _Layout((WIDTH, TITLE + height), (grid_width, WIDTH - grid_width), True, 1)
    num_abreast = min(EFFECTS_ABREAST, max(num_effects, 1))
    effects_height = 1.2 * EFFECT * math.ceil(num_effects / num_abreast)
    shares = tuple(height for height in (grid_height, effects_height) if height)
    return _Layout((max(WIDTH, grid_width), TITLE + sum(shares)), shares, False, num_abreast)


def _parts(figure: Figure, layout: _Layout) -> list[SubFigure]:
    if layout.is_beside:
        found: Any = figure.subfigures(1, len(layout.shares), squeeze=False, width_ratios=layout.shares)
    else:
        found = figure.subfigures(len(layout.shares), 1, squeeze=False, height_ratios=layout.shares)
    return found.flatten().tolist()


def _shown_effects(effects: Mapping[str, Sequence[Effect]]) -> dict[str, Sequence[Effect]]:
    """Those of settings that vary; if none does, the first alone, for the one score there is."""
    known = {setting: values for setting, values in effects.items() if values}
    varying = {setting: values for setting, values in known.items() if len(values) > 1}
    return varying or dict(list(known.items())[:1])


def _has_two_axes(standings: Sequence[Standing]) -> bool:
    expectiles = {standing.configuration.expectile for standing in standings}
    return len(expectiles) > 1 and len({standing.configuration.inverse_temperature for standing in standings}) > 1


def _grids(standings: Sequence[Standing]) -> list[Grid]:
    """One for each combination of other settings, in their order; of many, one with the best."""
    by_combination: dict[tuple[tuple[str, Any], ...], list[Standing]] = {}
    for standing in standings:
        by_combination.setdefault(standing.configuration.varied, []).append(standing)
    if len(by_combination) > MOST_GRIDS:
        varied = ", ".join(settings_in_words(dict(standings[0].configuration.varied)))
        return [Grid.of(f"best over {len(by_combination)} combinations of {varied}", standings, standings)]
    return [
        Grid.of(
            ", ".join(f"{name} {value}" for name, value in settings_in_words(dict(combination)).items()),
            by_combination[combination],
            standings,
        )
        for combination in sorted(by_combination, key=lambda combination: [by_size(value) for _, value in combination])
    ]


def _is_grid(grid: Grid) -> bool:
    num_cells = len(grid.expectiles) * len(grid.inverse_temperatures)
    longest = max(len(grid.expectiles), len(grid.inverse_temperatures))
    return longest <= MOST_VALUES and len(grid.cells) >= LEAST_FILLED * num_cells


def _draw_grids(part: SubFigure, grids: Sequence[Grid], standings: Sequence[Standing], score_name: str) -> None:
    colors = score_colors(standings)
    ratios = [max(2, len(grid.expectiles)) for grid in grids]
    all_axes: Any = part.subplots(len(grids), 1, squeeze=False, height_ratios=ratios)
    for index, (axes, grid) in enumerate(zip(all_axes.flatten(), grids, strict=True)):
        draw_heat_map(axes, grid, standings[0], colors, score_name if index == 0 else "")


def _draw_effects(part: SubFigure, effects: Mapping[str, Sequence[Effect]], layout: _Layout, score_name: str) -> None:
    num_rows = math.ceil(len(effects) / layout.num_abreast)
    all_axes: Any = part.subplots(num_rows, layout.num_abreast, squeeze=False, sharey=True)
    panels = all_axes.flatten().tolist()
    for index, (axes, (setting, values)) in enumerate(zip(panels, effects.items(), strict=False)):
        draw_effect(axes, setting, values, score_name if index == 0 else "")
    for axes in panels[len(effects) :]:
        axes.set_axis_off()
