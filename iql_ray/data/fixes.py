"""Repairs of logged data that `prepare --fix` is told to make: rules on the stream of rows, and what they did.

Nothing is repaired that nobody asked for; `iql-ray inspect` names what looks wrong, and the rule for it. A rule works
on numbered episodes, before next observations are linked and before episodes are counted. Some rules must know all rows
before they change the first: a `Survey` is their first reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from iql_ray.data.prepared import AppliedFix
from iql_ray.data.schema import FLOAT_COLUMNS, Records

Rule = Literal["clip-actions", "time-limit-is-truncation", "end-at-success", "drop-nonfinite-rows"]
RULES: tuple[Rule, ...] = get_args(Rule)
"""In the order in which they are applied, whatever the order they were asked for."""

SURVEYED_RULES: tuple[Rule, ...] = ("time-limit-is-truncation", "end-at-success")

SUCCESS = "success"
"""A column that a source may add: True where the task's goal was reached at this row."""

SMALLEST_TIME_LIMIT = 10
"""Tasks end within a few steps by themselves, and at the same one."""
SMALLEST_PILE = 3
PILE_RATIO = 3
"""So many times more episodes must terminate at the longest length than within its last twentieth before it."""


@dataclass(frozen=True, kw_only=True)
class SurveyedFacts:
    """What a first reading of all rows found."""

    time_limit: int | None = None
    """Length at which terminations pile up; None where they do not."""
    success_reward: float | None = None
    """The larger of exactly two reward values, where one must be waited for."""
    has_success: bool = False
    """Whether the source itself says where the goal was reached."""
    num_reward_values: int = 0
    """Distinct rewards, counted to 3."""


class Survey:
    """Takes all numbered rows in order, then tells `facts`."""

    def __init__(self) -> None:
        self._rewards = np.zeros(0, np.float32)
        self._first_rewards: list[np.ndarray] = [np.zeros(0, np.float32)]
        self._ends: list[Records] = []

    def add(self, block: Records) -> None:
        """Take the next rows."""
        if len(self._rewards) < 3:
            self._rewards = np.union1d(self._rewards, block["rewards"][np.isfinite(block["rewards"])])[:3]
        self._first_rewards.append(block["rewards"][block["step"] == 0])
        names = [name for name in ("step", "terminations", "rewards", SUCCESS) if name in (block.dtype.names or ())]
        self._ends.append(block[block["terminations"] | block["truncations"]][names].copy())

    def facts(self) -> SurveyedFacts:
        """What the rows say together; at least one block was taken."""
        ends = np.concatenate(self._ends)
        has_success = SUCCESS in (ends.dtype.names or ())
        success_reward = None if has_success else self._success_reward()
        is_suspect = ends["terminations"] & ~is_success(ends, success_reward)
        return SurveyedFacts(
            time_limit=find_time_limit(ends["step"].astype(np.int64) + 1, is_suspect),
            success_reward=success_reward,
            has_success=has_success,
            num_reward_values=len(self._rewards),
        )

    def _success_reward(self) -> float | None:
        """A reward that most episodes begin with is paid for staying alive, not for arriving."""
        first_rewards = np.concatenate(self._first_rewards)
        if len(self._rewards) != 2 or (first_rewards == self._rewards[1]).mean() > 0.5:
            return None
        return float(self._rewards[1])


def find_time_limit(lengths: np.ndarray, is_terminated: np.ndarray) -> int | None:
    """The longest length, if episodes terminate there as only a time limit makes them; None otherwise.

    Args:
        lengths: (episodes,) rows of each.
        is_terminated: (episodes,) True where the task ended and nothing says that it succeeded.
    """
    longest = int(lengths.max())
    num_there = np.count_nonzero(is_terminated & (lengths == longest))
    num_nearly = np.count_nonzero(is_terminated & (lengths < longest) & (lengths >= 0.95 * longest))
    is_limit = longest >= SMALLEST_TIME_LIMIT and num_there >= max(SMALLEST_PILE, PILE_RATIO * num_nearly)
    return longest if is_limit else None


def is_success(rows: Records, success_reward: float | None) -> np.ndarray:
    """(rows,) True where the goal was reached: by the source's own column, else by the reward."""
    if SUCCESS in (rows.dtype.names or ()):
        return rows[SUCCESS]
    if success_reward is None:
        return np.zeros(len(rows), bool)
    return rows["rewards"] == np.float32(success_reward)


class Changes:
    """How many rows and episodes a rule changed, as blocks go by."""

    def __init__(self) -> None:
        self.num_rows = 0
        self.num_episodes = 0
        self._last_episode = -1

    def add(self, block: Records, is_changed: np.ndarray) -> None:
        """Count changed rows of a numbered block; an episode that blocks share counts once."""
        self.num_rows += int(is_changed.sum())
        episodes = np.unique(block["episode"][is_changed])
        if len(episodes):
            self.num_episodes += len(episodes) - int(episodes[0] == self._last_episode)
            self._last_episode = int(episodes[-1])


class Fixes:
    """The rules asked for, and what each did.

    Raises:
        ValueError: a rule that these data give no footing.
    """

    def __init__(self, rules: Sequence[Rule], facts: SurveyedFacts | None = None) -> None:
        self.rules: tuple[Rule, ...] = tuple(rule for rule in RULES if rule in rules)
        assert facts is not None or not set(rules) & set(SURVEYED_RULES), "such a rule needs a survey of all rows"
        self.changes: dict[Rule, Changes] = {rule: Changes() for rule in self.rules}
        self.facts = facts or SurveyedFacts()
        if "end-at-success" in self.rules:
            _check_has_success(self.facts)

    def apply(self, blocks: Iterable[Records]) -> Iterator[Records]:
        """The numbered stream, repaired; `episode` then only says where one stops, for numbering anew."""
        stream = iter(blocks)
        if "time-limit-is-truncation" in self.rules and self.facts.time_limit is not None:
            stream = truncate_at(stream, self.facts, self.changes["time-limit-is-truncation"])
        if "end-at-success" in self.rules:
            stream = end_at_success(stream, self.facts.success_reward, self.changes["end-at-success"])
        if "drop-nonfinite-rows" in self.rules:
            stream = drop_nonfinite_rows(stream, self.changes["drop-nonfinite-rows"])
        return stream

    def applied(self) -> tuple[AppliedFix, ...]:
        """What there is to record, once the stream is through."""
        return tuple(
            AppliedFix(rule=rule, num_rows=each.num_rows, num_episodes=each.num_episodes, description=self._say(rule))
            for rule, each in self.changes.items()
        )

    def _say(self, rule: Rule) -> str:
        limit, facts = self.facts.time_limit, self.facts
        success = "the source's success column" if facts.has_success else f"reward {facts.success_reward}"
        return {
            "clip-actions": "actions outside their bounds were set to the bound",
            "drop-nonfinite-rows": "rows with a NaN or infinite number were left out, and the episode cut there",
            "time-limit-is-truncation": (
                f"terminations at step {limit} became truncations" if limit else "terminations pile up at no length"
            ),
            "end-at-success": f"episodes terminate where {success} first says success; the rows after it were left out",
        }[rule]


def clip_actions(block: Records, box: tuple[tuple[float, ...], tuple[float, ...]], changes: Changes) -> None:
    """Set actions outside their box, its lower and upper bounds, to the bound; in place."""
    clipped = np.clip(block["actions"], np.asarray(box[0], np.float32), np.asarray(box[1], np.float32))
    changes.add(block, ((clipped != block["actions"]) & np.isfinite(block["actions"])).any(axis=1))
    block["actions"] = clipped


def truncate_at(blocks: Iterable[Records], facts: SurveyedFacts, changes: Changes) -> Iterator[Records]:
    """Terminations at the time limit become truncations, but for those that are a success."""
    assert facts.time_limit is not None
    for block in blocks:
        is_cut = block["terminations"] & (block["step"] == facts.time_limit - 1)
        is_cut &= ~is_success(block, facts.success_reward)
        changes.add(block, is_cut)
        block["terminations"] &= ~is_cut
        block["truncations"] |= is_cut
        yield block


def end_at_success(blocks: Iterable[Records], success_reward: float | None, changes: Changes) -> Iterator[Records]:
    """Each episode terminates at its first success; rows after it are left out.

    reward   0 0 1 1 1 | 0 0 0        kept   0 0 1 | 0 0 0        the 1 carries the termination
    """
    succeeded = -1
    for block in blocks:
        success = is_success(block, success_reward)
        before = np.cumsum(success) - success
        first_rows = np.maximum(np.arange(len(block)) - block["step"], 0)  # of each row's episode, within this block
        is_after = (before > before[first_rows]) | (block["episode"] == succeeded)
        is_first = success & ~is_after
        changes.add(block, is_after | (is_first & ~block["terminations"]))
        block["terminations"] |= is_first
        block["truncations"] &= ~is_first
        ended = is_after | is_first
        succeeded = int(block["episode"][-1]) if ended[-1] else -1
        if not is_after.all():
            yield block[~is_after]


def drop_nonfinite_rows(blocks: Iterable[Records], changes: Changes) -> Iterator[Records]:
    """Leave out rows with a number that is not finite; what follows in the episode is an episode of its own.

    episode   0  0  0  0  1           the row before the gap is cut there: nothing links over it
    row       a  b  *  d  e   ->  a b | d | e
    """
    segment, is_after_gap = 0, False
    for block in blocks:
        is_bad = nonfinite_rows(block)
        begins = (block["step"] == 0) | np.append(is_after_gap, is_bad[:-1])
        changes.add(block, is_bad)
        block["episode"] = segment + np.cumsum(begins)
        segment, is_after_gap = int(block["episode"][-1]), bool(is_bad[-1])
        yield block[~is_bad]


def nonfinite_rows(block: Records) -> np.ndarray:
    """(rows,) True where any number of the row is NaN or infinite."""
    return ~np.all([np.isfinite(block[name].reshape(len(block), -1)).all(axis=1) for name in FLOAT_COLUMNS], axis=0)


def _check_has_success(facts: SurveyedFacts) -> None:
    if facts.has_success or facts.success_reward is not None or facts.num_reward_values == 1:
        return
    why = "takes more than two values"
    if facts.num_reward_values == 2:
        why = "has its larger value already at the first row of most episodes, as a reward for staying alive has"
    raise ValueError(
        f"--fix end-at-success cannot tell what a success is: the source has no {SUCCESS} column, and its reward {why};"
        " expected a reward of two values of which the larger says that the goal is reached; leave the rule out"
    )
