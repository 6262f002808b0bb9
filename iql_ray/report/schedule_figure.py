"""Population based training in one picture: the score of every trial along its way, and each setting that changed.

The best trial is drawn strongly. Drawn from plain values; it ranks nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from iql_ray.evaluation.leaderboard import by_size, setting_in_words, settings_in_words
from iql_ray.evaluation.schedules import TrialCourse
from iql_ray.report.figures import INK

WIDTH, TITLE, SCORES, SETTING = 9.4, 0.5, 2.6, 1.5
"""Inches."""
DOTS_PER_INCH = 150
BEST_COLOR, OTHER_COLOR = "#1f5fa8", "#b8bcc4"
TITLE_CHARACTERS, LABEL_POINTS = 84, 9
CAPTION = (
    "Above, the score of every trial along its way, the mean over its seeds; a cross is where it took another trial"
    " over and went on with other settings. Below, each setting. The last score is of other episodes than those before."
)


def draw_schedules(path: str | Path, courses: Sequence[TrialCourse], best: str, title: str, score_name: str) -> Path:
    """Write the picture; the suffix of `path` (png, svg, pdf) says which kind.

    Args:
        path: the file to write; its folder must exist.
        best: the name of the best trial.
        score_name: what the scores are.

    Raises:
        ValueError: no trials.
    """
    if not courses:
        raise ValueError("a picture of schedules needs at least one trial, got none")
    names = _changed(courses)
    height = TITLE + SCORES + SETTING * len(names)
    figure = Figure(figsize=(WIDTH, height), facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)
    title = textwrap.fill(title, TITLE_CHARACTERS)
    figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold", color=INK)
    ratios = [SCORES, *[SETTING] * len(names)]
    found: Any = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)
    panels: list[Axes] = found.flatten().tolist()
    behind_last = sorted(courses, key=lambda course: course.name == best)
    end = max(num_updates for course in courses for num_updates, _ in course.points)
    _draw_scores(panels[0], behind_last, best, score_name)
    for axes, name in zip(panels[1:], names, strict=True):
        _draw_setting(axes, behind_last, best, name, end)
    panels[-1].set_xlabel("updates", fontsize=LABEL_POINTS, color=INK)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1].xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return Path(path)


def _changed(courses: Sequence[TrialCourse]) -> list[str]:
    """The settings that trials differ in, or change."""
    values: dict[str, set[Any]] = {name: set() for name in courses[0].schedule.first}
    for course in courses:
        for settings in (course.schedule.first, *(change.settings for change in course.schedule.changes)):
            for name, value in settings.items():
                values[name].add(value)
    return [name for name, those in values.items() if len(those) > 1]


def _draw_scores(axes: Axes, courses: Sequence[TrialCourse], best: str, score_name: str) -> None:
    for course in courses:
        axes.plot(*zip(*course.points, strict=True), **_look(course.name == best), marker="o", markersize=3)
        for change in course.schedule.changes:
            score = dict(course.points).get(change.num_updates)
            if score is not None:
                axes.plot(change.num_updates, score, marker="x", color=INK, markersize=6)
    axes.set_ylabel(score_name, fontsize=LABEL_POINTS, color=INK)
    axes.set_title("blue: the best trial; x: took another one over", fontsize=9, loc="left", color=INK)
    _clean(axes)


def _draw_setting(axes: Axes, courses: Sequence[TrialCourse], best: str, name: str, end: int) -> None:
    every = [course.schedule.settings_after(update) for course in courses for update in _steps(course, end)]
    is_number = all(isinstance(settings[name], int | float) for settings in every)
    listed = sorted({settings[name] for settings in every}, key=by_size)
    for course in courses:
        steps = _steps(course, end)
        values = [course.schedule.settings_after(update)[name] for update in steps]
        heights = values if is_number else [listed.index(value) for value in values]
        axes.step(steps, heights, where="post", **_look(course.name == best))
    if not is_number:
        axes.set_yticks(range(len(listed)), [setting_in_words(value) for value in listed])
    elif min(listed) > 0 and max(listed) / min(listed) >= 10:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    (words,) = settings_in_words({name: listed[0]})
    axes.set_ylabel(words, fontsize=LABEL_POINTS, color=INK)
    _clean(axes)


def _steps(course: TrialCourse, end: int) -> list[int]:
    return [0, *(change.num_updates for change in course.schedule.changes), end]


def _look(is_best: bool) -> dict[str, Any]:
    return {"color": BEST_COLOR, "linewidth": 2.2} if is_best else {"color": OTHER_COLOR, "linewidth": 1.2}


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
