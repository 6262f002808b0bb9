"""What looks wrong or odd in how a dataset's rows make episodes: ends, successes, links, rewards, behaviour.

Each check is a function of the facts that returns a finding or none; nothing is repaired here.
"""

from __future__ import annotations

import numpy as np

from iql_ray.data.fixes import find_time_limit
from iql_ray.data.inspection.counting import MAX_EXAMPLES
from iql_ray.data.inspection.finding import Facts, Finding

GOES_ON_SHARE = 0.01
"""Of the rows; the last frames of an episode after its success are no matter."""
STAYS_SHARE = 0.5
"""Of the rows after a first success that succeed too: less, and there is more than one success to be had."""
BROKEN_SHARE = 0.01
"""Of the pairs of rows; more is no slip but a wrong column or order."""
NEARLY_DETERMINISTIC = 0.02
"""Of the actions' variance left unexplained."""
DROPPED_SHARE = 0.05


def time_limit_as_termination(facts: Facts) -> Finding | None:
    episodes = facts.episodes
    is_success = episodes.last_rewards == np.float32(
        np.nan if episodes.success_reward is None else episodes.success_reward
    )
    is_suspect = episodes.is_terminated & ~is_success
    limit = find_time_limit(episodes.lengths, is_suspect)
    if limit is None:
        return None
    at_limit = np.flatnonzero(is_suspect & (episodes.lengths == limit))
    num_terminated = int(episodes.is_terminated.sum())
    return Finding(
        kind="time-limit-as-termination",
        severity="problem",
        sentence=(
            f"{len(at_limit):,} of {num_terminated:,} terminations come at step {limit:,}, the longest length there is:"
            " a time limit, flagged as if the task had ended. Nothing is bootstrapped after a termination, so the value"
            " of the states there is learned as the last reward alone."
        ),
        evidence={"time_limit": limit, "num_at_limit": len(at_limit), "num_terminated": num_terminated},
        examples=tuple((int(episode), limit - 1) for episode in at_limit[:MAX_EXAMPLES]),
        fix="prepare again with --fix time-limit-is-truncation, unless the task truly ends at that step",
        rule="time-limit-is-truncation",
    )


def goes_on_after_success(facts: Facts) -> Finding | None:
    episodes = facts.episodes
    succeeded = np.flatnonzero(episodes.is_successful)
    if not len(succeeded):
        return None
    num_after = episodes.lengths[succeeded] - episodes.first_peaks[succeeded] - 1
    share = num_after.sum() / episodes.lengths.sum()
    if share < GOES_ON_SHARE or (episodes.num_peaks[succeeded] - 1).sum() < STAYS_SHARE * num_after.sum():
        return None
    longest = succeeded[np.argsort(-num_after, kind="stable")[:MAX_EXAMPLES]]
    return Finding(
        kind="goes-on-after-success",
        severity="problem",
        sentence=(
            f"{share:.0%} of the rows come after their episode's first success (reward {episodes.largest_reward:g}) and"
            " mostly stand at the goal. As logged, being there is worth endless reward, and IQL with the paper's"
            " settings learns little from such data."
        ),
        evidence={
            "num_rows_after_success": int(num_after.sum()),
            "num_successful_episodes": len(succeeded),
            "median_first_success_step": float(np.median(episodes.first_peaks[succeeded])),
        },
        examples=tuple((int(episode), int(episodes.first_peaks[episode])) for episode in longest),
        fix="prepare again with --fix end-at-success: episodes then terminate at their first success",
        rule="end-at-success",
    )


def next_does_not_follow(facts: Facts) -> Finding | None:
    links = facts.rows.links
    if not links.num_broken:
        return None
    share = links.num_broken / links.num_pairs
    return Finding(
        kind="next-does-not-follow",
        severity="problem" if share > BROKEN_SHARE else "warning",
        sentence=(
            f"In {links.num_broken:,} of {links.num_pairs:,} pairs of consecutive rows ({share:.2%}) the next"
            " observation is not the observation of the row after it; they typically lie"
            f" {links.typical_gap:.2g} standard deviations apart."
        ),
        evidence={"num_broken": links.num_broken, "num_pairs": links.num_pairs, "typical_gap_stds": links.typical_gap},
        examples=links.examples,
        fix=(
            "check --columns next_observations=..., the order of the rows and the episode column; without a column of"
            " next observations, prepare links each row to the one after it"
        ),
    )


def nothing_to_learn(facts: Facts) -> Finding | None:
    episodes = facts.episodes
    if episodes.reward_counts is None or len(episodes.reward_counts) > 1:
        return None
    reward = episodes.largest_reward
    is_hopeless = reward == 0 or not episodes.is_terminated.any()
    return Finding(
        kind="constant-reward",
        severity="problem" if is_hopeless else "note",
        sentence=(
            f"Every row has the reward {reward:g}"
            + (
                ", and nothing else tells a good action from a bad one."
                if is_hopeless
                else ": only when an episode terminates tells a good action from a bad one."
            )
        ),
        evidence={"reward": reward, "num_terminated": int(episodes.is_terminated.sum())},
        fix=(
            "name the column that holds the reward with --columns rewards=NAME"
            if is_hopeless
            else "make sure that terminations are true ends of the task, and time limits truncations"
        ),
    )


def single_episode(facts: Facts) -> Finding | None:
    if facts.manifest.num_episodes > 1:
        return None
    return Finding(
        kind="single-episode",
        severity="warning",
        sentence=f"All {facts.manifest.num_rows:,} rows are one single episode.",
        evidence={"num_rows": facts.manifest.num_rows},
        fix="name the column that tells episodes apart with --columns episode=NAME, or flag their ends",
    )


def nearly_deterministic(facts: Facts) -> Finding | None:
    behaviour = facts.behaviour
    if behaviour.overall is None or behaviour.overall >= NEARLY_DETERMINISTIC:
        return None
    return Finding(
        kind="nearly-deterministic",
        severity="warning",
        sentence=(
            f"The observations explain at least {1 - behaviour.overall:.1%} of the actions' variance: whoever acted did"
            " the same in the same situation, so the data hold hardly a choice to learn from."
        ),
        evidence={"unexplained_share": behaviour.overall, "num_rows": behaviour.num_rows},
        fix="expect about what behaviour cloning gives; data of another or a noisier behaviour would help",
    )


def duplicated_episodes(facts: Facts) -> Finding | None:
    twins = facts.rows.episode_twins
    if not twins:
        return None
    return Finding(
        kind="duplicated-episodes",
        severity="note",
        sentence=(
            f"{len(twins):,} of {facts.manifest.num_episodes:,} episodes repeat an earlier one exactly: they weigh"
            " twice, and held-out episodes may have been learned from."
        ),
        evidence={"num_episodes": len(twins), "first_pair": f"{twins[0][0]} repeats {twins[0][1]}"},
        examples=tuple((later, 0) for later, _ in twins[:MAX_EXAMPLES]),
        fix="look whether a log was read twice; a deterministic task repeats itself rightly",
    )


def dropped_rows(facts: Facts) -> Finding | None:
    manifest = facts.manifest
    share = manifest.num_dropped_rows / (manifest.num_dropped_rows + manifest.num_rows)
    if share < DROPPED_SHARE:
        return None
    return Finding(
        kind="dropped-rows",
        severity="note",
        sentence=(
            f"{manifest.num_dropped_rows:,} rows ({share:.0%}) went in preparing, for the source has no next"
            " observations, and nothing was observed after the last row of a cut episode."
        ),
        evidence={"num_rows": manifest.num_dropped_rows},
        fix="log the next observation of every row, if it is to be had",
    )
