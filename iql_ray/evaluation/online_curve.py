"""What the curve of a fine-tuning run says: its gain over the offline policy, the drop on the way, the regret.

    score
     best |              ___o        gain: final - offline
          |           __/
  offline o--.-------o----------     drop: offline - lowest, of the first stretch below
          |   \\     /|               recovered: the first evaluation at or above offline after it
   lowest |    o___o |
          +-----------------------   environment steps
          0          recovered

Every number is one of the evaluations, or follows from them by hand: nothing is smoothed, and between two evaluations
the curve is a straight line. Plain numbers in, plain numbers out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from iql_ray.evaluation.statistics import bootstrap_interval, interquartile_mean


@dataclass(frozen=True, kw_only=True)
class OnlineCurve:
    """Evaluations in the order of environment steps; the first, at 0 steps, is that of the offline policy.

    Raises:
        ValueError: no evaluation at 0 steps, steps that do not ascend, or other lengths.
    """

    num_env_steps: tuple[int, ...]
    scores: tuple[float, ...]
    """Mean returns; the interquartile mean over seeds in a curve of several."""
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    """Ends of the 95% intervals: over an evaluation's episodes, or over seeds in a curve of several."""
    normalized_scores: tuple[float, ...] = ()
    """0 is random, 100 an expert; empty where the environment has no reference."""

    def __post_init__(self) -> None:
        steps = self.num_env_steps
        if not steps or steps[0] != 0:
            raise ValueError(
                f"a fine-tuning curve begins with the offline policy's evaluation at 0 environment steps, got "
                f"{steps[0] if steps else 'no evaluation'}"
            )
        if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
            raise ValueError(f"evaluations of a fine-tuning curve must ascend in environment steps, got {steps}")
        lengths = {len(values) for values in (steps, self.scores, self.lower, self.upper)}
        if len(lengths) != 1 or len(self.normalized_scores) not in (0, len(steps)):
            raise ValueError(f"a fine-tuning curve needs a score and an interval for each evaluation, got {self}")


def online_curve(evaluations: Sequence[Mapping[str, Any]]) -> OnlineCurve:
    """The curve of one run.

    Args:
        evaluations: each what `statistics.summarize` gives, and `num_env_steps`; in any order. Of two at the same
            number of steps, which a resumed run may have, the later in the list counts.

    Raises:
        ValueError: one lacks `num_env_steps`, or none is at 0 steps.
    """
    if any("num_env_steps" not in evaluation for evaluation in evaluations):
        raise ValueError("an evaluation of a fine-tuning run lacks num_env_steps; is it one of an offline run?")
    by_steps = {int(evaluation["num_env_steps"]): evaluation for evaluation in evaluations}
    steps = sorted(by_steps)
    ordered = [by_steps[step] for step in steps]
    normalized = [evaluation["normalized_score"] for evaluation in ordered if "normalized_score" in evaluation]
    return OnlineCurve(
        num_env_steps=tuple(steps),
        scores=tuple(float(evaluation["return_mean"]) for evaluation in ordered),
        lower=tuple(float(evaluation["return_ci"][0]) for evaluation in ordered),
        upper=tuple(float(evaluation["return_ci"][1]) for evaluation in ordered),
        normalized_scores=tuple(normalized) if len(normalized) == len(ordered) else (),
    )


@dataclass(frozen=True, kw_only=True)
class OnlineSummary:
    """What a curve comes down to. Returns in the environment's units, steps of the environment."""

    num_env_steps: int
    """At the last evaluation."""
    offline: float
    """Of the policy before fine-tuning."""
    final: float
    gain: float
    """final - offline."""
    best: float
    """Of all evaluations, the offline one included: flattered, as every best is."""
    best_after: int
    """The first evaluation that was so good."""
    drop: float
    """offline - the lowest evaluation of the first stretch below it: 0 where none is ever below.

    An evaluation is of some episodes, so that a drop within its interval may be luck alone.
    """
    drop_after: int | None
    """Where that lowest evaluation is; None where none is below."""
    recovered_after: int | None
    """The first evaluation at or above offline after that stretch: 0 where none is ever below, None where it never came
    back."""
    regret: float
    """Mean over environment steps of best - score: what was lost, per episode, by not having had the best evaluated
    policy from the start. The area between, by trapezoids, over all steps."""
    normalized_regret: float | None
    """Mean over environment steps of 1 - normalized score / 100, by trapezoids: against an expert instead of the run's
    own best, so that runs can be compared. Cal-QL (Nakamoto et al. 2023, arXiv:2303.05479) reports this cumulative
    regret, as the plain mean over evaluations. None without a reference."""


def summarize_online(curve: OnlineCurve) -> OnlineSummary:
    """The statistics of one curve; see the picture above."""
    offline, best = curve.scores[0], max(curve.scores)
    lowest, recovered = _first_stretch_below(curve.scores)
    steps = curve.num_env_steps
    return OnlineSummary(
        num_env_steps=steps[-1],
        offline=offline,
        final=curve.scores[-1],
        gain=curve.scores[-1] - offline,
        best=best,
        best_after=steps[curve.scores.index(best)],
        drop=0.0 if lowest is None else offline - curve.scores[lowest],
        drop_after=None if lowest is None else steps[lowest],
        recovered_after=None if recovered is None else steps[recovered],
        regret=best - _mean_over_steps(steps, curve.scores),
        normalized_regret=1 - _mean_over_steps(steps, curve.normalized_scores) / 100
        if curve.normalized_scores
        else None,
    )


def _first_stretch_below(scores: Sequence[float]) -> tuple[int | None, int | None]:
    """Index of the lowest score in the first stretch below the first score, and of the one that ends the stretch.

    (None, 0) where no score is below; (lowest, None) where the stretch has no end.
    """
    is_below = [score < scores[0] for score in scores]
    if not any(is_below):
        return None, 0
    begin = is_below.index(True)
    end = is_below.index(False, begin) if False in is_below[begin:] else None
    return begin + int(np.argmin(scores[begin:end])), end


def _mean_over_steps(steps: Sequence[int], values: Sequence[float]) -> float:
    """Of the straight lines between the points; of one point, its value."""
    if steps[-1] == 0:
        return values[0]
    return float(np.trapezoid(values, steps)) / steps[-1]


def curve_over_seeds(curves: Sequence[OnlineCurve], seed: int = 0) -> OnlineCurve:
    """Several runs as one: at each number of steps the interquartile mean and its 95% interval over runs.

    Where runs were evaluated at different numbers of steps, straight lines fill in; it ends where the shortest ends.

    Args:
        curves: of runs of one configuration. With three to five, the interval covers less than it says.
        seed: of the bootstrap.

    Raises:
        ValueError: no curves.
    """
    _check_some(curves)
    last = min(curve.num_env_steps[-1] for curve in curves)
    steps = sorted({step for curve in curves for step in curve.num_env_steps if step <= last})
    scores = np.stack([np.interp(steps, curve.num_env_steps, curve.scores) for curve in curves], axis=1)
    intervals = [bootstrap_interval(at_step, interquartile_mean, seed=seed) for at_step in scores]
    normalized: Sequence[float] = ()
    if all(curve.normalized_scores for curve in curves):
        rows = [np.interp(steps, curve.num_env_steps, curve.normalized_scores) for curve in curves]
        normalized = interquartile_mean(np.stack(rows), axis=0).tolist()
    return OnlineCurve(
        num_env_steps=tuple(steps),
        scores=tuple(interquartile_mean(scores.T, axis=0).tolist()),
        lower=tuple(low for low, _ in intervals),
        upper=tuple(high for _, high in intervals),
        normalized_scores=tuple(normalized),
    )


OVER_SEEDS = ("offline", "final", "gain", "best", "drop", "regret", "normalized_regret")


def summarize_over_seeds(curves: Sequence[OnlineCurve], seed: int = 0) -> dict[str, Any]:
    """The statistics of several runs of one configuration, each taken of a run by itself, as plain JSON types.

    A drop of every seed at another time is still a drop here, which the curve over seeds may smooth away.

    Returns:
        `seeds`: each run's `OnlineSummary` as a dict; for each of OVER_SEEDS `{"iqm": ..., "interval": [low, high]}`;
        `num_recovered`, and `recovered_after`: the median over seeds, None where it is a seed that never came back.

    Raises:
        ValueError: no curves.
    """
    _check_some(curves)
    summaries = [summarize_online(curve) for curve in curves]
    found: dict[str, Any] = {"seeds": [asdict(summary) for summary in summaries]}
    for name in OVER_SEEDS:
        values = [getattr(summary, name) for summary in summaries]
        if None not in values:
            interval = bootstrap_interval(values, interquartile_mean, seed=seed)
            found[name] = {"iqm": float(interquartile_mean(values)), "interval": list(interval)}
    recovered = [summary.recovered_after for summary in summaries]
    found["num_recovered"] = sum(after is not None for after in recovered)
    middle = float(np.quantile([math.inf if after is None else after for after in recovered], 0.5, method="higher"))
    found["recovered_after"] = None if math.isinf(middle) else int(middle)
    return found


def _check_some(curves: Sequence[OnlineCurve]) -> None:
    if not curves:
        raise ValueError("statistics over seeds need at least one fine-tuning curve, got none")
