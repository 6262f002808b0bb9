"""Which configuration of a search is best: scores of its members in, configurations in their order out.

Plain numbers only; it trains, evaluates and draws nothing. The same in words is `leaderboard_words.py`, the effect of
each setting alone `setting_effects.py`.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from iql_ray.evaluation.statistics import Improvement, hierarchical_interval, improvement, interquartile_mean

SCORE_TOLERANCE = 1e-4
"""A score is the mean of its returns up to so much, relatively: returns are often summed in float32."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a search varies, but for the seed."""

    expectile: float
    """Tau."""
    inverse_temperature: float
    """Beta."""
    varied: tuple[tuple[str, Any], ...] = ()
    """Other settings by dotted path, such as (("agent.discount", 0.97),); in one order for the whole search."""

    def __post_init__(self) -> None:
        try:
            hash(self)
        except TypeError:
            raise ValueError(f"varied is {self.varied}, expected hashable values: tuples for lists") from None

    @property
    def settings(self) -> dict[str, Any]:
        """All that is varied, by name or dotted path."""
        return {"expectile": self.expectile, "inverse_temperature": self.inverse_temperature, **dict(self.varied)}

    @property
    def label(self) -> str:
        """In words: 'expectile 0.7, inverse temperature 3, discount 0.97'."""
        return ", ".join(f"{name} {value}" for name, value in settings_in_words(self.settings).items())


@dataclass(frozen=True, kw_only=True)
class MemberScore:
    """One configuration with one seed, and what its last evaluation gave."""

    configuration: Configuration
    seed: int
    num_updates: int
    """After which it was evaluated."""
    score: float
    """Mean return of the evaluation, or its fitted value."""
    interval: tuple[float, float]
    """95%, of that evaluation."""
    returns: tuple[float, ...] = ()
    """Of its episodes, the score's own unit; none where the value was fitted."""
    is_stopped: bool = False
    """By a scheduler, before the full number of updates."""

    def __post_init__(self) -> None:
        numbers = {"score": (self.score,), "interval": self.interval, "returns": self.returns}
        for name, values in numbers.items():
            if not all(map(math.isfinite, values)):
                raise ValueError(f"{self.name}: {name} is {getattr(self, name)}, expected finite numbers")
        if self.returns and not math.isclose(
            self.score, np.mean(self.returns), rel_tol=SCORE_TOLERANCE, abs_tol=SCORE_TOLERANCE
        ):
            raise ValueError(f"{self.name}: score is {self.score}, expected the returns' mean {np.mean(self.returns)}")

    @property
    def name(self) -> str:
        """The configuration in words, and the seed."""
        return f"{self.configuration.label}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One configuration's place, over those of its seeds that came furthest."""

    rank: int
    """From 1."""
    configuration: Configuration
    iqm: float
    """Interquartile mean over the seeds' scores, which ranks; the mean where there are fewer than four."""
    mean: float
    interval: tuple[float, float]
    """95%: of the interquartile mean over seeds, and episodes within each; of one seed, that of its evaluation."""
    is_over_seeds: bool
    """Whether the interval knows of more than one seed."""
    num_updates: int
    is_stopped: bool
    """No seed ran the full number of updates."""
    scores: dict[int, float]
    """By seed."""
    num_left_out: int = 0
    """Other seeds that were stopped earlier than these: their scores are not comparable, and do not count."""
    probability_of_improvement: Improvement | None = None
    """Over the next standing; None for the last, where the next was trained for less, and for one seed of each without
    returns."""
    pairs_of: Literal["seeds", "episodes"] | None = None
    """What the probability pairs: episodes where there is one seed of each, and then it knows no other seed."""

    @property
    def num_seeds(self) -> int:
        return len(self.scores)


def rank(scores: Sequence[MemberScore], seed: int = 0) -> tuple[Standing, ...]:
    """Configurations by the interquartile mean of their seeds' scores, best first.

    Those that ran the full number of updates come before stopped ones, which are ordered by how far they came, then by
    score. Equals: the lower expectile first, then the lower inverse temperature.

    Args:
        scores: one for each configuration and seed, in any order.
        seed: of the bootstrap.

    Raises:
        ValueError: no scores, two of one configuration and seed, or configurations that vary different settings.
    """
    by_configuration: dict[Configuration, list[MemberScore]] = {}
    for member in sorted(checked(scores), key=lambda member: member.seed):
        by_configuration.setdefault(member.configuration, []).append(member)
    furthest = sorted((_furthest(members) for members in by_configuration.values()), key=_place)
    return tuple(
        _standing(place, members, rest, len(by_configuration[members[0].configuration]) - len(members), seed)
        for place, (members, rest) in enumerate(itertools.pairwise([*furthest, []]), start=1)
    )


def checked(scores: Sequence[MemberScore]) -> Sequence[MemberScore]:
    """The scores, if they can be compared; else ValueError, as `rank`."""
    if not scores:
        raise ValueError("a leaderboard needs the score of at least one member, got none")
    ((first, times),) = Counter((member.configuration, member.seed) for member in scores).most_common(1)
    if times > 1:
        raise ValueError(f"{first[0].label}, seed {first[1]}: got {times} scores, expected one for each seed")
    paths = {tuple(member.configuration.settings) for member in scores}
    if len(paths) > 1:
        raise ValueError(f"configurations vary {sorted(paths)}, expected the same settings in the same order for all")
    return scores


def settings_in_words(settings: dict[str, Any]) -> dict[str, str]:
    """Names and values as a person says them: the last part of a dotted path, or all of it where that is ambiguous."""
    uses = Counter(path.rpartition(".")[2] for path in settings)
    names = (path.rpartition(".")[2] if uses[path.rpartition(".")[2]] == 1 else path for path in settings)
    return {
        name.replace("_", " ").replace(".", " "): setting_in_words(value)
        for name, value in zip(names, settings.values(), strict=True)
    }


def setting_in_words(value: Any) -> str:
    """One value: 3.0 is 3, (256, 256) is 256 x 256."""
    if isinstance(value, tuple):
        return " x ".join(map(setting_in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def are_comparable(first: Standing, second: Standing) -> bool:
    """Whether both ran in full, or were stopped after as many updates."""
    return _reached(first) == _reached(second)


def by_size(value: Any) -> tuple[bool, tuple[float, ...], str]:
    """To sort a setting's values by: numbers and tuples of them by size, then the rest by name."""
    numbers = value if isinstance(value, tuple) else (value,)
    if all(isinstance(number, (int, float)) for number in numbers):
        return False, tuple(map(float, numbers)), ""
    return True, (), str(value)


def to_json(standings: Sequence[Standing]) -> list[dict[str, Any]]:
    """The leaderboard as plain JSON types, for a script to read."""
    return [_plain(standing) for standing in standings]


def _furthest(members: list[MemberScore]) -> list[MemberScore]:
    """Of one configuration's seeds, those that were trained longest: only these can be compared."""

    furthest = max(map(_reached, members))
    return [member for member in members if _reached(member) == furthest]


def _reached(trained: MemberScore | Standing) -> float:
    """How far it came: the full number of updates is furthest, whatever it is."""
    return trained.num_updates if trained.is_stopped else math.inf


def _place(members: list[MemberScore]) -> tuple[Any, ...]:
    configuration = members[0].configuration
    return -_reached(members[0]), -_iqm(members), *map(by_size, configuration.settings.values())


def _iqm(members: Sequence[MemberScore]) -> float:
    return float(interquartile_mean([member.score for member in members]))


def _standing(
    place: int, members: list[MemberScore], following: list[MemberScore], num_left_out: int, seed: int
) -> Standing:
    first = members[0]
    found, pairs_of = _compare(members, following, seed)
    groups = [member.returns or (member.score,) for member in members]
    is_over_seeds = len(members) > 1
    interval = hierarchical_interval(groups, interquartile_mean, seed=seed) if is_over_seeds else first.interval
    return Standing(
        rank=place,
        configuration=first.configuration,
        iqm=_iqm(members),
        mean=float(np.mean([member.score for member in members])),
        interval=interval,
        is_over_seeds=is_over_seeds,
        num_updates=first.num_updates,
        is_stopped=first.is_stopped,
        scores={member.seed: member.score for member in members},
        num_left_out=num_left_out,
        probability_of_improvement=found,
        pairs_of=pairs_of,
    )


def _compare(
    members: list[MemberScore], following: list[MemberScore], seed: int
) -> tuple[Improvement | None, Literal["seeds", "episodes"] | None]:
    """Over pairs of seeds; of one seed each, over pairs of episodes."""
    if not following or _reached(members[0]) != _reached(following[0]):
        return None, None
    if len(members) > 1 or len(following) > 1:
        ours, theirs = ([member.score for member in side] for side in (members, following))
        return improvement(ours, theirs, seed=seed), "seeds"
    if members[0].returns and following[0].returns:
        return improvement(members[0].returns, following[0].returns, seed=seed), "episodes"
    return None, None


def _plain(standing: Standing) -> dict[str, Any]:
    configuration, found = standing.configuration, standing.probability_of_improvement
    return {
        "rank": standing.rank,
        "label": configuration.label,
        "expectile": configuration.expectile,
        "inverse_temperature": configuration.inverse_temperature,
        "varied": {path: _without_tuples(value) for path, value in configuration.varied},
        "iqm": standing.iqm,
        "mean": standing.mean,
        "interval": list(standing.interval),
        "is_over_seeds": standing.is_over_seeds,
        "num_seeds": standing.num_seeds,
        "num_updates": standing.num_updates,
        "is_stopped": standing.is_stopped,
        "scores": {str(seed): score for seed, score in standing.scores.items()},
        "num_left_out": standing.num_left_out,
        "probability_of_improvement": found and {**found._asdict(), "pairs_of": standing.pairs_of},
    }


def _without_tuples(value: Any) -> Any:
    return [_without_tuples(each) for each in value] if isinstance(value, tuple) else value
