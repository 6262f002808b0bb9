"""The leaderboard in words: which configuration is chosen, and how sure that is.

It counts nothing itself. A choice is called settled only where chance would rarely have made it, the search's own
picking of the best included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from iql_ray.evaluation.leaderboard import Standing, are_comparable, settings_in_words

SETTLED_P_VALUE = 0.025
"""One-sided, and the better of two is always put first, so that two equal ones are called different 5 times in 100. Of
more equal ones the best two lie closer together, and it happens less."""
FEWEST_TO_SETTLE = 4
"""Seeds of each: of three against three, one order in twenty has all of one side on top."""
ONE_SEED = (
    "One seed cannot tell a better configuration from a luckier run, so the choice is open: repeat the best few with"
    " four or more seeds each."
)


def verdict(standings: Sequence[Standing]) -> str:
    """A few sentences on the best configuration, the next best and what chance may have done.

    Args:
        standings: as `rank` gave them, best first.

    Raises:
        ValueError: no standings.
    """
    if not standings:
        raise ValueError("a verdict needs at least one standing, got none")
    best, *others = standings
    rivals = [other for other in others if are_comparable(best, other)]
    parts = [_scored(best), _not_counted(best), _field(best, others, rivals)]
    equals = [rival for rival in rivals if rival.scores == best.scores]
    if equals:
        parts.append(_tied(equals))
    elif rivals:
        parts += [_compared(best, rivals[0]), _luck(best, rivals)]
    return " ".join(part for part in parts if part)


def is_settled(best: Standing, following: Standing) -> bool:
    """Whether seeds, not luck, put the first before the second."""
    found = best.probability_of_improvement
    if found is None or not (best.is_over_seeds and following.is_over_seeds):
        return False
    return found.low > 0.5 and found.p_value <= SETTLED_P_VALUE


def subject(standing: Standing) -> str:
    """'expectile 0.9 with inverse temperature 3 and discount 0.97'."""
    named = settings_in_words(standing.configuration.settings).items()
    expectile, *others = (f"{name} {value}" for name, value in named)
    return f"{expectile} with {' and '.join(others)}"


def with_interval(value: float, interval: tuple[float, float]) -> str:
    """'71.2 [68.0, 74.1]', to the digits that matter."""
    digits = num_decimals([value, *interval])
    low, high = (decimal(end, digits) for end in interval)
    return f"{decimal(value, digits)} [{low}, {high}]"


def num_decimals(values: Sequence[float]) -> int:
    """Digits after the point, up to four, that show three of the largest value and two of the values' range."""
    sizes = ((max(map(abs, values)), 3), (max(values) - min(values), 2))
    wanted = [num_digits - 1 - math.floor(math.log10(size)) for size, num_digits in sizes if size]
    return min(max([0, *wanted]), 4)


def decimal(value: float, digits: int) -> str:
    """With thousands grouped and a real minus sign; never minus zero."""
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", "\N{MINUS SIGN}")


def _scored(best: Standing) -> str:
    text = subject(best)
    after = f" after {best.num_updates:,} updates" if best.is_stopped else ""
    return f"{text[0].upper()}{text[1:]} scores {_score(best)}{after}."


def _score(standing: Standing) -> str:
    seeds = f"over {standing.num_seeds} seeds" if standing.is_over_seeds else "with one seed"
    return f"{with_interval(standing.iqm, standing.interval)} {seeds}"


def _not_counted(best: Standing) -> str:
    if not best.num_left_out:
        return ""
    what = "One more seed of it was" if best.num_left_out == 1 else f"{best.num_left_out} more seeds of it were"
    return f"{what} stopped early and not counted, which flatters it."


def _field(best: Standing, others: Sequence[Standing], rivals: Sequence[Standing]) -> str:
    """What it was compared with at all."""
    num_stopped = len(others) - len(rivals)
    if not others:
        return "Nothing else was tried, so there is nothing to compare it with."
    if best.is_stopped:
        return "No configuration ran the full number of updates: this is the best of those that came furthest."
    if not num_stopped:
        return ""
    ran = f"{len(rivals) + 1} configurations ran in full" if rivals else "It alone ran in full"
    stopped = "one was stopped early" if num_stopped == 1 else f"{num_stopped} were stopped early"
    return f"{ran}; {stopped}, on early scores, which can mislead."


def _compared(best: Standing, following: Standing) -> str:
    found, fewest = best.probability_of_improvement, min(best.num_seeds, following.num_seeds)
    if found is None:
        return f"The next best is {subject(following)}: {_score(following)}. {ONE_SEED}"
    pairs = " over pairs of episodes" if best.pairs_of == "episodes" else ""
    odds = f"{found.probability:.2f} [{found.low:.2f}, {found.high:.2f}]{pairs}"
    beats = f"It beats the next best ({subject(following)}: {_score(following)}) with probability {odds}"
    if is_settled(best, following):
        return f"{beats}, which is more than chance explains: between these two, the choice is settled."
    if fewest == 1:
        return f"{beats}. {ONE_SEED}"
    need = "four or more seeds of each" if fewest < FEWEST_TO_SETTLE else "more seeds"
    return f"{beats}, so the choice between these two is not settled: {need} would tell."


def _tied(equals: Sequence[Standing]) -> str:
    """Several are as good to the last digit, as where every episode reaches the goal."""
    others = f"{len(equals)} others score" if len(equals) > 1 else f"Another ({subject(equals[0])}) scores"
    return f"{others[0].upper()}{others[1:]} exactly the same: nothing measured here tells them apart."


def _luck(best: Standing, rivals: Sequence[Standing]) -> str:
    """The winner's curse, where it may have struck."""
    num_overlapping = sum(rival.interval[1] >= best.interval[0] for rival in rivals)
    if not num_overlapping:
        return ""
    overlap = "interval of one other overlaps" if num_overlapping == 1 else f"intervals of {num_overlapping} overlap"
    return (
        f"The {overlap} with its own, and the best of {len(rivals) + 1} is partly the luckiest: with new seeds, expect"
        " a little less than this score."
    )
