"""The effect of each setting of a search alone: scores against the expectile, and against every other setting.

Plain numbers only. Where a scheduler stopped members the settings that are left differ from value to value, so that an
average says less; `Effect.num_configurations` shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from iql_ray.evaluation.leaderboard import Configuration, MemberScore, by_size, checked
from iql_ray.evaluation.statistics import bootstrap_interval, interquartile_mean

ALWAYS = ("expectile", "inverse_temperature")


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What one value of a setting scores, whatever the others are."""

    value: Any
    mean: float
    """Over all other settings and seeds."""
    interval: tuple[float, float]
    """95%, of the mean."""
    interval_over: Literal["seeds", "configurations", "episodes"]
    """What the interval is over: the means of several seeds; with one seed, the other settings' scores; with one score,
    its own evaluation."""
    best: float
    """The interquartile mean of the best configuration that has this value: flattered, as every best is."""
    num_configurations: int
    """That have this value and ran in full."""
    num_seeds: int


def effects(scores: Sequence[MemberScore], seed: int = 0) -> dict[str, tuple[Effect, ...]]:
    """By setting, its values from low to high; only members that ran in full count.

    Args:
        scores: as for `rank`.
        seed: of the bootstrap.

    Returns:
        `expectile`, `inverse_temperature`, and every varied path that has more than one value; a value whose members
        were all stopped is left out.

    Raises:
        ValueError: as `rank`.
    """
    full = [member for member in checked(scores) if not member.is_stopped]
    found: dict[str, tuple[Effect, ...]] = {}
    for setting in scores[0].configuration.settings:
        by_value: dict[Any, list[MemberScore]] = {}
        for member in full:
            by_value.setdefault(member.configuration.settings[setting], []).append(member)
        values = sorted({member.configuration.settings[setting] for member in scores}, key=by_size)
        if setting in ALWAYS or len(values) > 1:
            found[setting] = tuple(_effect(value, by_value[value], seed) for value in values if value in by_value)
    return found


def _effect(value: Any, members: Sequence[MemberScore], seed: int) -> Effect:
    by_seed: dict[int, list[float]] = {}
    by_configuration: dict[Configuration, list[float]] = {}
    for member in members:
        by_seed.setdefault(member.seed, []).append(member.score)
        by_configuration.setdefault(member.configuration, []).append(member.score)
    interval, interval_over = _interval(by_seed, members, seed)
    return Effect(
        value=value,
        mean=float(np.mean([member.score for member in members])),
        interval=interval,
        interval_over=interval_over,
        best=float(max(map(interquartile_mean, by_configuration.values()))),
        num_configurations=len(by_configuration),
        num_seeds=len(by_seed),
    )


def _interval(
    by_seed: dict[int, list[float]], members: Sequence[MemberScore], seed: int
) -> tuple[tuple[float, float], Literal["seeds", "configurations", "episodes"]]:
    if len(by_seed) > 1:
        return bootstrap_interval([float(np.mean(values)) for values in by_seed.values()], seed=seed), "seeds"
    if len(members) > 1:
        return bootstrap_interval([member.score for member in members], seed=seed), "configurations"
    return members[0].interval, "episodes"
