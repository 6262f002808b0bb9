"""Candidate against champion by one protocol, and whether the one may replace the other.

Both act from the same seeds, so that what an easy or a hard start is worth falls out of the difference. Numbers in,
numbers and a sentence out: nothing is evaluated or promoted here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from iql_ray.algorithm.fqe_config import FQEConfig
from iql_ray.evaluation.episodes import GROUP_WIDTH
from iql_ray.evaluation.statistics import bootstrap_interval
from iql_ray.experience import EpisodeResult

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000
MIN_EPISODES = 20
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a score comes about: two scores of one protocol may be compared, others may not."""

    method: Literal["rollouts", "fqe"]
    environment: str | None = None
    dataset_sha256: str | None = None
    """Of the dataset that fqe judges by."""
    num_episodes: int | None = None
    seed: int = 0
    """Of the episodes, or of all that fqe draws; each episode's own seed follows from it."""
    temperature: float = 0.0
    discount: float = 1.0
    """Of the score: 1 for returns as they are."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What else it depends on."""
    confidence: float = CONFIDENCE
    num_resamples: int = NUM_RESAMPLES

    @property
    def sha256(self) -> str:
        """Of the protocol as JSON with sorted keys."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def rollout_protocol(environment: str, num_episodes: int, seed: int, temperature: float) -> Protocol:
    """Episodes in groups of fixed width, whose returns do not depend on who runs them."""
    return Protocol(
        method="rollouts",
        environment=environment,
        num_episodes=num_episodes,
        seed=seed,
        temperature=temperature,
        settings={"group_width": GROUP_WIDTH},
    )


def fqe_protocol(dataset_sha256: str, config: FQEConfig, discount: float, seed: int, temperature: float) -> Protocol:
    """Fitted Q evaluation on one dataset."""
    return Protocol(
        method="fqe",
        dataset_sha256=dataset_sha256,
        seed=seed,
        temperature=temperature,
        discount=discount,
        settings=asdict(config),
    )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What one protocol says of a candidate and, where there is one, of the champion."""

    protocol: Protocol
    score: float
    score_ci: Interval
    champion_score: float | None = None
    champion_score_ci: Interval | None = None
    difference: float | None = None
    """Candidate minus champion, paired."""
    difference_ci: Interval | None = None
    seeds: tuple[int, ...] = ()
    """Of the episodes, in order."""
    warnings: tuple[dict[str, str], ...] = ()
    """What speaks against trusting it, as {kind, message}."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a candidate has to pass."""

    margin: float = 0.0
    floor: float | None = None
    """What the first champion's score has to exceed; None takes any."""

    def passes(self, comparison: Comparison) -> tuple[bool, str]:
        """Whether the candidate may become the champion, and why, in a sentence."""
        if comparison.difference_ci is not None:
            low = comparison.difference_ci[0]
            is_better = low > self.margin
            return is_better, f"the paired difference's lower bound {_stands(low, is_better, 'margin', self.margin)}"
        if self.floor is None:
            return True, "there was no champion to compare with"
        low = comparison.score_ci[0]
        is_enough = low > self.floor
        words = f"there was no champion; the score's lower bound {_stands(low, is_enough, 'floor', self.floor)}"
        return is_enough, words


def _stands(low: float, is_above: bool, what: str, limit: float) -> str:
    return f"({low:.6g}) is {'' if is_above else 'not '}above the {what} ({limit:g})"


def compare_episodes(
    protocol: Protocol, candidate: Sequence[EpisodeResult], champion: Sequence[EpisodeResult] | None
) -> Comparison:
    """Mean returns with 95% intervals, and that of the difference, resampled over the episodes they share.

    Raises:
        ValueError: the two did not act from the same seeds.
    """
    seeds = tuple(result.seed for result in candidate)
    returns = np.array([result.episode_return for result in candidate])
    found = Comparison(
        protocol=protocol,
        score=float(returns.mean()),
        score_ci=bootstrap_interval(returns),
        seeds=seeds,
        warnings=_few_episodes(len(seeds)),
    )
    if champion is None:
        return found
    if seeds != tuple(result.seed for result in champion):
        raise ValueError("candidate and champion acted from different seeds, so their difference is not paired")
    theirs = np.array([result.episode_return for result in champion])
    return replace(
        found,
        champion_score=float(theirs.mean()),
        champion_score_ci=bootstrap_interval(theirs),
        difference=float((returns - theirs).mean()),
        difference_ci=bootstrap_interval(returns - theirs),
    )


def compare_values(
    protocol: Protocol,
    candidate: tuple[Mapping[str, Any], np.ndarray],
    champion: tuple[Mapping[str, Any], np.ndarray] | None,
) -> Comparison:
    """Two verdicts of one `FittedQEvaluator.judge`; what speaks against either speaks against the comparison."""
    from iql_ray.evaluation.fqe import estimate

    verdict, values = candidate
    found = Comparison(
        protocol=protocol,
        score=verdict["value"],
        score_ci=tuple(verdict["value_ci"]),
        warnings=tuple(verdict["warnings"]),
    )
    if champion is None:
        return found
    theirs, their_values = champion
    of_champion = tuple({**each, "message": f"of the champion: {each['message']}"} for each in theirs["warnings"])
    paired = estimate("difference", "difference_ci", values - their_values)
    return replace(
        found,
        champion_score=theirs["value"],
        champion_score_ci=tuple(theirs["value_ci"]),
        difference=paired["difference"],
        difference_ci=tuple(paired["difference_ci"]),
        warnings=(*found.warnings, *of_champion),
    )


def _few_episodes(num_episodes: int) -> tuple[dict[str, str], ...]:
    if num_episodes >= MIN_EPISODES:
        return ()
    message = f"{num_episodes} episodes: intervals cover less than they say; expected at least {MIN_EPISODES}"
    return ({"kind": "few-episodes", "message": message},)
