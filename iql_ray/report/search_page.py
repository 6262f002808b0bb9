"""A search as one HTML page that needs nothing else: what was found, how sure that is, and how to run the best again.

What is said comes from the leaderboard; how a page is put together is `page_parts.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from iql_ray.evaluation.leaderboard import Configuration, Standing, setting_in_words, settings_in_words
from iql_ray.evaluation.leaderboard_words import decimal, num_decimals, verdict
from iql_ray.report.page_parts import command, png_figure, table, whole_page, write_whole

CAPTION = (
    "Each cell of a grid is a configuration: the interquartile mean over its seeds, and its 95% interval. A hatched one"
    " was stopped early. Beside it, each setting alone: the mean over all others, and the best of them; a hollow point"
    " has fewer configurations behind it than its neighbours, since the rest were stopped."
)
HOW_TO_READ = (
    "IQM is the interquartile mean over seeds, the mean where there are fewer than four; the interval is a bootstrap"
    " over seeds and the episodes within each, or that of the one evaluation where there is one seed. Beats the next is"
    " the probability that a seed of this configuration scores higher than one of the next (Agarwal et al. 2021), with"
    " its 95% interval. With a handful of seeds these intervals are narrower than they should be."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchStory:
    """What a page tells of a search, besides its leaderboard."""

    title: str
    picture: Path
    """A PNG file, as `search_figure.draw_search` writes it; it is copied into the page."""
    protocol: str
    """How the scores were made: episodes, environment, updates; plain text, a blank line between paragraphs."""
    settings: Mapping[str, Any]
    """All configurations have them in common, by name."""
    command: Sequence[str]
    """That runs the best again: its first piece the program and what it does, then a flag with its value each."""
    run_ids: Mapping[Configuration, Sequence[str]] = field(default_factory=dict)
    """Of the tracked runs, where there are any; one for each seed."""
    verdict: str | None = None
    """In other words than the leaderboard's own."""
    caption: str = CAPTION
    """Of the picture."""
    schedules: Mapping[Configuration, str] = field(default_factory=dict)
    """What the settings were along the way, where they changed."""


def write_page(path: str | Path, standings: Sequence[Standing], story: SearchStory) -> Path:
    """Write the page; the folder of `path` must exist."""
    return write_whole(path, page(standings, story))


def page(standings: Sequence[Standing], story: SearchStory) -> str:
    """The page's whole HTML.

    Raises:
        ValueError: no standings.
    """
    sections = (
        f"<h1>{escape(story.title)}</h1>\n<p class='verdict'>{escape(story.verdict or verdict(standings))}</p>\n",
        png_figure(story.picture, story.caption),
        f"<h2>Leaderboard</h2>\n{_leaderboard(standings)}<p class='muted'>{HOW_TO_READ}</p>\n",
        _schedules(standings, story.schedules),
        f"<h2>Run the best again</h2>\n{command(story.command)}",
        f"<h2>How the scores were made</h2>\n{_paragraphs(story.protocol)}",
        f"<h2>Settings in common</h2>\n{_settings(story.settings)}",
        _runs(standings, story.run_ids),
    )
    return whole_page(escape(story.title), sections)


def _leaderboard(standings: Sequence[Standing]) -> str:
    names = [escape(name) for name in settings_in_words(standings[0].configuration.settings)]
    titles = ["rank", *names, "IQM", "95% interval", "mean", "seeds", "updates", "beats the next"]
    digits = num_decimals([number for standing in standings for number in (standing.iqm, *standing.interval)])
    return table(titles, (_cells(standing, digits) for standing in standings), numbers=range(1, len(titles)))


def _cells(standing: Standing, digits: int) -> list[str]:
    settings = settings_in_words(standing.configuration.settings).values()
    found = standing.probability_of_improvement
    low, high = (decimal(end, digits) for end in standing.interval)
    beats = f"{found.probability:.2f} [{found.low:.2f}, {found.high:.2f}]" if found else ""
    return [
        str(standing.rank),
        *map(escape, settings),
        f"<strong>{decimal(standing.iqm, digits)}</strong>",
        f"[{low}, {high}]",
        decimal(standing.mean, digits),
        f"{standing.num_seeds}{_left_out(standing)}",
        f"{standing.num_updates:,}{', stopped' if standing.is_stopped else ''}",
        f"{beats}{' (episodes)' if standing.pairs_of == 'episodes' else ''}",
    ]


def _left_out(standing: Standing) -> str:
    return f" of {standing.num_seeds + standing.num_left_out}" if standing.num_left_out else ""


def _runs(standings: Sequence[Standing], run_ids: Mapping[Configuration, Sequence[str]]) -> str:
    """Their ids are long: they have a table of their own."""
    if not run_ids:
        return ""
    rows = (
        (
            str(standing.rank),
            escape(standing.configuration.label),
            "<br>".join(f"<code>{escape(run_id)}</code>" for run_id in run_ids.get(standing.configuration, ())),
        )
        for standing in standings
    )
    return f"<h2>Tracked runs</h2>\n{table(('rank', 'configuration', 'run of each seed'), rows)}"


def _schedules(standings: Sequence[Standing], schedules: Mapping[Configuration, str]) -> str:
    """Of each trial, what its agents have gone through."""
    if not schedules:
        return ""
    rows = ((str(standing.rank), escape(schedules.get(standing.configuration, ""))) for standing in standings)
    return f"<h2>Settings along the way</h2>\n{table(('rank', 'what its agents went through'), rows)}"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(paragraph)}</p>\n" for paragraph in text.split("\n\n"))


def _settings(settings: Mapping[str, Any]) -> str:
    rows = ((escape(name), f"<code>{escape(setting_in_words(value))}</code>") for name, value in settings.items())
    return table(("setting", "value"), rows, long=True)
