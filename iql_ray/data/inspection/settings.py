"""Which settings of IQL a dataset suggests, each with its reason: the paper's values, chosen by what the data are like.

The families are the paper's: a sparse reward at a goal (antmaze), few demonstrations (kitchen and adroit), everything
else (locomotion). Kostrikov, Nair and Levine, arXiv:2110.06169, section 5.1 and appendix B.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np

from iql_ray.data.inspection.finding import Facts
from iql_ray.data.transforms import RETURN_RANGE

FEW_ROWS = 10_000
"""Below, the paper's dropout and caution for human demonstrations."""
DISCOUNTS = (0.99, 0.995, 0.998, 0.999)
LARGE_OBSERVATION = 100.0


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """One setting of `iql-ray train`, by the name of its flag without dashes."""

    setting: str
    value: float | str | bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to start from; a start, to be searched around."""

    recipe: str
    """The named recipe that these values are nearest to."""
    suggestions: tuple[Suggestion, ...]

    def flags(self) -> list[str]:
        """The suggestions as flags of the command line, `--expectile 0.7`."""
        return [
            f"--{each.setting}" if each.value is True else f"--{each.setting} {each.value}" for each in self.suggestions
        ]


def suggest(facts: Facts) -> Settings:
    """Settings for these data."""
    observations = _observations(facts)
    if facts.episodes.success_reward is not None:
        return Settings(recipe="antmaze", suggestions=(*_goal_reaching(facts), *observations))
    if facts.manifest.num_rows < FEW_ROWS:
        return Settings(recipe="kitchen_adroit", suggestions=(*_few_rows(facts), _discount(facts), *observations))
    return Settings(recipe="locomotion", suggestions=(*_many_rows(facts), _discount(facts), *observations))


def _goal_reaching(facts: Facts) -> tuple[Suggestion, ...]:
    share = facts.episodes.is_successful.mean()
    return (
        Suggestion(
            setting="expectile",
            value=0.9,
            reason=(
                f"{share:.0%} of the episodes reach the goal: the best of what was seen has to be stitched together,"
                " which a high expectile does."
            ),
        ),
        Suggestion(
            setting="inverse-temperature",
            value=10.0,
            reason="Advantages are small where one reward lies far away; a high inverse temperature lets them count.",
        ),
        *_goal_reward(facts),
        _goal_discount(facts),
    )


def _goal_reward(facts: Facts) -> tuple[Suggestion, ...]:
    """Success worth 0 and every other step -1, unless that would make failing early worth while."""
    episodes = facts.episodes
    low, high = sorted(episodes.reward_counts or {0.0: 0, 1.0: 0})
    scale = 1 / (high - low)
    fails = episodes.is_terminated & (episodes.last_rewards != np.float32(high))
    if fails.any():
        shift, reason = (
            -low * scale,
            (f"{fails.sum():,} episodes terminate without success: were every step to cost, failing early would pay."),
        )
    elif high == 0:
        shift, reason = 0.0, "A step that is not at the goal already costs; nothing has to be shifted."
    else:
        shift = -high * scale
        reason = "Every step short of the goal then costs 1 and success nothing, as in the paper's antmaze."
    scaling = Suggestion(setting="reward-scale", value=scale, reason=_unit_reason(low, high))
    shifting = Suggestion(setting="reward-shift", value=shift or 0.0, reason=reason)
    return (shifting,) if scale == 1 else (scaling, shifting)


def _unit_reason(low: float, high: float) -> str:
    return f"The rewards {low:g} and {high:g} become 1 apart, as the paper's are."


def _goal_discount(facts: Facts) -> Suggestion:
    episodes = facts.episodes
    steps = float(np.median(episodes.first_peaks[episodes.is_successful])) + 1
    discount = next((each for each in DISCOUNTS if 3 / (1 - each) >= steps), DISCOUNTS[-1])
    return Suggestion(
        setting="discount",
        value=discount,
        reason=(
            f"Successful episodes need {steps:,.0f} steps (median); at {discount:g} a reward that far away still counts"
            f" {discount**steps:.0%}."
        ),
    )


def _few_rows(facts: Facts) -> tuple[Suggestion, ...]:
    manifest = facts.manifest
    few = f"{manifest.num_rows:,} rows of {manifest.num_episodes:,} episodes are few"
    return (
        Suggestion(
            setting="expectile", value=0.7, reason="The paper's value wherever no goal has to be stitched together."
        ),
        Suggestion(
            setting="inverse-temperature",
            value=0.5,
            reason=f"{few}: a low inverse temperature keeps the policy close to what was shown.",
        ),
        Suggestion(
            setting="dropout-rate",
            value=0.1,
            reason="With so few rows the policy would learn them by heart; the paper's dropout for demonstrations.",
        ),
        Suggestion(
            setting="reward-scale",
            value=1.0,
            reason="The paper leaves the rewards of demonstrations as they are.",
        ),
    )


def _many_rows(facts: Facts) -> tuple[Suggestion, ...]:
    return (
        Suggestion(
            setting="expectile",
            value=0.7,
            reason="The paper's value for dense rewards; higher trusts the best that was seen more.",
        ),
        Suggestion(
            setting="inverse-temperature",
            value=3.0,
            reason=(
                f"The paper's value for data of this size ({facts.manifest.num_rows:,} rows); lower stays closer to the"
                " behaviour, higher follows the critic."
            ),
        ),
        _reward_scale(facts),
    )


def _reward_scale(facts: Facts) -> Suggestion:
    returns = facts.manifest.episode_returns
    if returns.max <= returns.min:
        return Suggestion(
            setting="reward-scale",
            value=1.0,
            reason=f"All episodes return {returns.min:g}: there is no range to scale by.",
        )
    return Suggestion(
        setting="reward-scale",
        value="return-range",
        reason=(
            f"Returns reach from {returns.min:,.4g} to {returns.max:,.4g}; multiplied by"
            f" {RETURN_RANGE / (returns.max - returns.min):.3g} they differ by {RETURN_RANGE:,.0f}, the size of"
            " advantages that the inverse temperature is meant for."
        ),
    )


def _discount(facts: Facts) -> Suggestion:
    length = statistics.median(facts.episodes.lengths.tolist())
    if length <= 1:
        return Suggestion(setting="discount", value=0.0, reason="Episodes are one step long: no reward follows later.")
    return Suggestion(setting="discount", value=0.99, reason=f"It looks about 100 steps ahead; {_against(length)}.")


def _against(length: float) -> str:
    episodes = f"episodes are {length:,.0f} steps long (median)"
    if length <= 100:
        return f"{episodes}, so it covers a whole one"
    if length <= 1000:
        return f"{episodes}, and a dense reward tells soon enough what an action was worth"
    return f"{episodes}, so raise it (0.995: 200 steps, 0.999: 1,000) if what an action is worth shows later than that"


def _observations(facts: Facts) -> tuple[Suggestion, ...]:
    columns = facts.manifest.columns["observations"]
    largest = float(np.maximum(np.abs(columns.mean), columns.std).max())
    if largest <= LARGE_OBSERVATION or facts.rows.outliers:  # a glitch alone makes a mean large
        return ()
    return (
        Suggestion(
            setting="normalize-observations",
            value=True,
            reason=f"Observations reach {largest:,.3g} (mean or spread): networks learn badly from numbers that size.",
        ),
    )
