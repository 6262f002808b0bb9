"""Scores of made-up searches, for tests of the leaderboard and of its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from iql_ray.evaluation.leaderboard import Configuration, MemberScore

FULL, EARLY = 100_000, 20_000


def configuration(expectile: float = 0.7, inverse_temperature: float = 3.0, **varied: Any) -> Configuration:
    """`discount=0.97` varies agent.discount."""
    paths = tuple((f"agent.{name}", value) for name, value in varied.items())
    return Configuration(expectile=expectile, inverse_temperature=inverse_temperature, varied=paths)


def fitted(of: Configuration, *scores: float, is_stopped: bool = False, num_updates: int = 0) -> list[MemberScore]:
    """One score for each seed from 0, without episodes, in intervals of one on either side."""
    num_updates = num_updates or (EARLY if is_stopped else FULL)
    return [
        MemberScore(
            configuration=of,
            seed=seed,
            num_updates=num_updates,
            score=score,
            interval=(score - 1, score + 1),
            is_stopped=is_stopped,
        )
        for seed, score in enumerate(scores)
    ]


def evaluated(of: Configuration, returns: Sequence[float], seed: int = 0) -> MemberScore:
    """The mean of these returns."""
    score = float(np.mean(returns))
    ends = (min(returns), max(returns))
    return MemberScore(
        configuration=of, seed=seed, num_updates=FULL, score=score, interval=ends, returns=tuple(returns)
    )


def grid(
    expectiles: Sequence[float], inverse_temperatures: Sequence[float], num_seeds: int = 1, **varied: Any
) -> list[MemberScore]:
    """Scores that rise with the expectile, and by one from seed to seed."""
    return [
        score
        for expectile in expectiles
        for inverse_temperature in inverse_temperatures
        for score in fitted(
            configuration(expectile, inverse_temperature, **varied),
            *(100 * expectile - inverse_temperature + seed for seed in range(num_seeds)),
        )
    ]
