"""What looks wrong or odd in a dataset's columns: actions and their box, constant and equal columns, outliers.

Each check is a function of the facts that returns a finding or none; nothing is repaired here.
"""

from __future__ import annotations

import numpy as np

from iql_ray.data.inspection.columns import OUTLIER_STDS
from iql_ray.data.inspection.counting import MAX_EXAMPLES
from iql_ray.data.inspection.finding import Facts, Finding, some
from iql_ray.data.prepared import Manifest

NARROW_SHARE = 0.1
"""Of its box that an action uses."""
SATURATED_SHARE = 0.5
UNIT_REACH = 0.99
"""Actions that come so close to 1 and never exceed it end there."""


def actions_outside_bounds(facts: Facts) -> Finding | None:
    actions, spaces = facts.rows.actions, facts.manifest.spaces
    if not actions.num_outside:
        return None
    box = f"0 to {spaces.num_actions - 1}" if spaces.num_actions else "their bounds"
    return Finding(
        kind="actions-outside-bounds",
        severity="problem",
        sentence=f"{actions.num_outside:,} rows have an action outside {box}.",
        evidence={"num_rows": actions.num_outside},
        examples=actions.outside_examples,
        fix="say which box they lie in with --action-bounds LOW HIGH, or prepare again with --fix clip-actions",
    )


def narrow_actions(facts: Facts) -> Finding | None:
    spaces, columns = facts.manifest.spaces, facts.manifest.columns["actions"]
    if spaces.is_discrete:
        return None
    used = (np.array(columns.max) - columns.min) / (np.array(spaces.action_high) - spaces.action_low)
    narrow = np.flatnonzero((used > 0) & (used < NARROW_SHARE))
    if not len(narrow):
        return None
    return Finding(
        kind="narrow-actions",
        severity="warning",
        sentence=(
            f"The actions fill less than {NARROW_SHARE:.0%} of their box in {_dimensions(narrow)}"
            f" (widest {used[narrow].max():.1%}): they may be in other units than the box."
        ),
        evidence={"largest_share_used": float(used[narrow].max())},
        fix=(
            "say which box they lie in with --action-bounds LOW HIGH"
            + (", or name the environment with --env" if facts.manifest.provenance.are_action_bounds_assumed else "")
        ),
    )


def scaled_actions(facts: Facts) -> Finding | None:
    sentence = scaled_actions_sentence(facts.manifest)
    if sentence is None:
        return None
    return Finding(
        kind="scaled-actions",
        severity="warning",
        sentence=sentence,
        evidence={
            "box_low": min(facts.manifest.spaces.action_low),
            "box_high": max(facts.manifest.spaces.action_high),
        },
        fix="if they were scaled when they were logged, prepare again with --action-bounds -1 1",
    )


def scaled_actions_sentence(manifest: Manifest) -> str | None:
    """Where actions reach -1 and 1 and stop there, in a box that goes on: a policy of them would act too weakly."""
    spaces, columns = manifest.spaces, manifest.columns["actions"]
    if (
        spaces.is_discrete
        or not (np.array(spaces.action_low) < -1).all()
        or not (np.array(spaces.action_high) > 1).all()
    ):
        return None
    reach = np.abs([columns.min, columns.max])
    if not ((reach >= UNIT_REACH) & (reach <= 1)).all():
        return None
    return (
        f"The actions end at -1 and 1, and their box at {min(spaces.action_low):g} and {max(spaces.action_high):g}:"
        " they look scaled."
    )


def assumed_bounds(facts: Facts) -> Finding | None:
    actions, spaces = facts.rows.actions, facts.manifest.spaces
    is_reached = bool((actions.at_low > 0).any() or (actions.at_high > 0).any())
    if not facts.manifest.provenance.are_action_bounds_assumed or is_reached:
        return None
    columns = facts.manifest.columns["actions"]
    return Finding(
        kind="assumed-bounds",
        severity="note",
        sentence=(
            f"Nothing said which box the actions lie in; [{spaces.action_low[0]:g}, {spaces.action_high[0]:g}] was"
            f" assumed, and they only reach from {min(columns.min):.3g} to {max(columns.max):.3g}."
        ),
        evidence={"lowest": min(columns.min), "highest": max(columns.max)},
        fix="prepare again with --action-bounds LOW HIGH or --env, if their box is another one",
    )


def saturated_actions(facts: Facts) -> Finding | None:
    actions = facts.rows.actions
    share = actions.at_low + actions.at_high
    saturated = np.flatnonzero(share > SATURATED_SHARE)
    if not len(saturated):
        return None
    return Finding(
        kind="saturated-actions",
        severity="note",
        sentence=(
            f"More than half of the actions lie at a bound in {_dimensions(saturated)} (up to {share.max():.0%}): the"
            " behaviour switches between extremes, which the policy's single Gaussian can only average."
        ),
        evidence={"largest_share": float(share.max())},
        fix="watch whether the policy reaches the bounds; discrete choices may suit the task better",
    )


def unused_choices(facts: Facts) -> Finding | None:
    counts = facts.rows.actions.choice_counts
    unused = np.flatnonzero(counts == 0)
    if not len(unused):
        return None
    return Finding(
        kind="unused-choices",
        severity="note",
        sentence=f"{len(unused)} of {len(counts)} choices never occur: {some(map(str, unused))}.",
        evidence={"num_unused": len(unused)},
        fix="nothing can be learned of them from these data; IQL will not choose them",
    )


def constant_columns(facts: Facts) -> Finding | None:
    names = [
        f"{name}[{index}] = {low:g}"
        for name in ("observations", "actions")
        for index, (low, high) in enumerate(
            zip(facts.manifest.columns[name].min, facts.manifest.columns[name].max, strict=True)
        )
        if low == high
    ]
    if not names:
        return None
    is_action = any(name.startswith("actions") for name in names)
    return Finding(
        kind="constant-columns",
        severity="warning" if is_action else "note",
        sentence=f"Columns that have the same value in every row: {some(names)}.",
        evidence={"num_columns": len(names)},
        fix="leave an observation out that never varies; an action that never varies cannot be learned about",
    )


def duplicated_columns(facts: Facts) -> Finding | None:
    twins = facts.rows.twins
    if not twins:
        return None
    is_leak = any(len({name.partition("[")[0] for name in group}) > 1 for group in twins)
    return Finding(
        kind="duplicated-columns",
        severity="warning" if is_leak else "note",
        sentence=f"Columns that are equal in every row: {some(' = '.join(group) for group in twins)}.",
        evidence={"num_groups": len(twins)},
        fix=(
            "an observation that holds the row's own action or reward tells the policy what it should find out: leave"
            " it out with --columns"
            if is_leak
            else "leave the copies out with --columns; they do no harm but cost time"
        ),
    )


def outliers(facts: Facts) -> Finding | None:
    found = facts.rows.outliers
    if not found:
        return None
    ranges = (f"{each.column} ({each.num_rows:,} times, {each.low:.4g} to {each.high:.4g})" for each in found)
    return Finding(
        kind="outliers",
        severity="warning",
        sentence=f"Numbers more than {OUTLIER_STDS:g} standard deviations from their column's mean: {some(ranges)}.",
        evidence={"num_columns": len(found), "num_rows": max(each.num_rows for each in found)},
        examples=tuple(place for each in found for place in each.examples)[:MAX_EXAMPLES],
        fix="look at these rows: a glitch, a placeholder such as -999 or another unit belongs corrected in the source",
    )


def _dimensions(indices: np.ndarray) -> str:
    return f"dimension{'s' * (len(indices) > 1)} {some(map(str, indices))}"
