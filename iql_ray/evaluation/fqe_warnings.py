"""What speaks against trusting a fitted Q evaluation, in the user's words. Numbers in, sentences out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iql_ray.algorithm.fqe import ValueScale

MAX_UNSUPPORTED_SHARE = 0.25
MAX_DISAGREEMENT = 0.5
MAX_DRIFT = 0.1
MAX_REMAINING_SHARE = 0.05
MAX_OUT_OF_RANGE_SHARE = 0.01
MIN_EPISODES = 20


def warnings_of(verdict: Mapping[str, Any], scale: ValueScale) -> list[dict[str, str]]:
    """The warnings that the numbers of `FittedQEvaluator.evaluate` ask for, as {kind, message}."""
    share, usual = verdict["policy_unsupported_share"], verdict["data_unsupported_share"]
    candidates = {
        "actions-far-from-data": (
            share > max(MAX_UNSUPPORTED_SHARE, 2 * usual),
            f"in {share:.0%} of the states the policy does what the data never did in similar ones (the data's own"
            f" actions: {usual:.0%}); there its value is made up",
        ),
        "high-disagreement": (
            verdict["disagreement"] > MAX_DISAGREEMENT,
            f"the members of the ensemble differ by {verdict['disagreement']:.2f} of the returns' standard deviation;"
            " the data do not pin this policy's value down",
        ),
        "diverged": (
            verdict["out_of_range_share"] > MAX_OUT_OF_RANGE_SHARE,
            f"{verdict['out_of_range_share']:.0%} of the values lie outside [{scale.low:.4g}, {scale.high:.4g}], which"
            " is all that the data's rewards can add up to",
        ),
        "not-settled": (
            verdict["drift"] > MAX_DRIFT or verdict["remaining_share"] > MAX_REMAINING_SHARE,
            f"the estimate moved by {verdict['drift']:.2f} of the returns' standard deviation in the last fifth of its"
            f" updates, and up to {verdict['remaining_share']:.0%} of a wrong start is left at discount"
            f" {verdict['discount']:g}; give it more --fqe-updates",
        ),
        "few-held-out-episodes": (
            verdict["num_episodes"] < MIN_EPISODES,
            f"the estimate is over the first observations of {verdict['num_episodes']} held-out episodes; expected at"
            f" least {MIN_EPISODES}",
        ),
    }
    return [{"kind": kind, "message": message} for kind, (is_due, message) in candidates.items() if is_due]
