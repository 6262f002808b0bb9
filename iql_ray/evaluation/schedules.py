"""What the settings of a trial were along its way, where a scheduler changed them: population based training.

A trial that took another one's agents over has that one's past, not its own. Plain values; decides nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iql_ray.evaluation.leaderboard import Standing, settings_in_words
from iql_ray.evaluation.leaderboard_words import with_interval

TRIAL = "trial"
"""Among the varied settings of a trial: its number, since several may end with the same settings."""
CAUTION = (
    "Trials took one another over by their scores, so they are not independent, and nothing here settles which setting"
    " is best."
)
Settings = Mapping[str, Any]
"""By name or dotted path, as `Configuration.settings`."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A trial took over the agents of another, and went on with other settings."""

    num_updates: int
    """After which it did."""
    source: str
    """The trial that it took them over from."""
    settings: Settings
    """From then on."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A part of an agent's training under the same settings."""

    num_updates: int
    """At its beginning."""
    trial: str
    """That trained it."""
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class TrialSchedule:
    """The settings of one trial, from its first to its last."""

    first: Settings
    changes: tuple[Change, ...] = ()
    """In their order."""

    def settings_after(self, num_updates: int) -> Settings:
        """Those that it went on with from there."""
        behind = [change.settings for change in self.changes if change.num_updates <= num_updates]
        return behind[-1] if behind else self.first


@dataclass(frozen=True, kw_only=True)
class TrialCourse:
    """One trial's way."""

    name: str
    points: Sequence[tuple[int, float]]
    """Its score, the mean over seeds, after so many updates."""
    schedule: TrialSchedule


def lineage(schedules: Mapping[str, TrialSchedule], trial: str, until: int | None = None) -> tuple[Stretch, ...]:
    """What the agents of a trial have gone through, first to last, the others' parts of it included.

    A: settings a     took B over after 20, then c
    B: settings b
    A's agents: b from 0 (in B), c from 20 (in A)

    Args:
        schedules: of all trials, by name.
        until: only what was decided before so many updates.
    """
    schedule = schedules[trial]
    changes = [change for change in schedule.changes if until is None or change.num_updates < until]
    if not changes:
        return (Stretch(num_updates=0, trial=trial, settings=schedule.first),)
    last = changes[-1]
    before = lineage(schedules, last.source, last.num_updates)
    return (*before, Stretch(num_updates=last.num_updates, trial=trial, settings=last.settings))


def to_json(stretches: Sequence[Stretch]) -> list[dict[str, Any]]:
    """For a script to read."""
    return [
        {"num_updates": each.num_updates, "trial": each.trial, "settings": dict(each.settings)} for each in stretches
    ]


def in_words(stretches: Sequence[Stretch]) -> str:
    """'expectile 0.7, inverse temperature 3; from 2,000 updates on expectile 0.9': what changed alone."""
    parts, before = [], {}
    for each in stretches:
        words = settings_in_words(dict(each.settings))
        changed = {name: value for name, value in words.items() if before.get(name) != value}
        before = words
        if changed:
            listed = ", ".join(f"{name} {value}" for name, value in changed.items())
            parts.append(f"from {each.num_updates:,} updates on {listed}" if parts else listed)
    return "; ".join(parts)


def verdict(standings: Sequence[Standing], best: Sequence[Stretch]) -> str:
    """A few sentences on the best trial, which no single configuration is.

    Args:
        standings: as `rank` gave them, of trials.
        best: what the agents of the first have gone through.
    """
    first = standings[0]
    settings = first.configuration.settings
    number = settings.pop(TRIAL)
    ended = ", ".join(f"{name} {value}" for name, value in settings_in_words(settings).items())
    seeds = f"over {first.num_seeds} seeds" if first.is_over_seeds else "with one seed"
    told = (
        f"Trial {number}, the best of {len(standings)} of population based training, scores "
        f"{with_interval(first.iqm, first.interval)} {seeds}, with {ended} at its end."
    )
    if num_settings(best) == 1:
        return f"{told} Its settings are the same from its first update on. {CAUTION}"
    return (
        f"{told} This is the score of a schedule, not of one configuration: {in_words(best)}. A run with its last "
        f"settings alone, as best.yaml has them, is another one, and may score otherwise. {CAUTION}"
    )


def num_settings(stretches: Sequence[Stretch]) -> int:
    """Different ones in a row; 1 is a constant configuration."""
    settings = [dict(each.settings) for each in stretches]
    return 1 + sum(first != second for first, second in itertools.pairwise(settings))
