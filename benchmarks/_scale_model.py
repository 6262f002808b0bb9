"""How far a cluster carries: what the one process in the middle can take, beside what all the others can give.

Fine-tuning, asynchronous: the first learner's process receives every block of experience (`block_seconds`, and
`row_seconds` for each transition in it) and makes its updates; workers make steps at a rate of their own.

    steps/s = min(workers * worker_rate, 1 / (row_seconds + block_seconds / rows_per_block + ratio * update_seconds))

Search: `slots` trials run at a time; each is started by Tune's loop, and every number of every member is written by one
thread to one tracking store.

    seconds = max(trials / slots * (start_seconds + trial_seconds), trials * loop_seconds, rows * row_seconds)

Arithmetic alone; the constants are measured by `scale.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Collecting:
    """What the learner's process spends on experience, in seconds of its own processor time."""

    block_seconds: float
    row_seconds: float

    @classmethod
    def fitted(cls, rows_of_small: int, small_seconds: float, rows_of_large: int, large_seconds: float) -> Collecting:
        """From the seconds that a block takes, at two sizes."""
        row_seconds = max(0.0, (large_seconds - small_seconds) / (rows_of_large - rows_of_small))
        return cls(block_seconds=small_seconds - row_seconds * rows_of_small, row_seconds=row_seconds)

    def learner_rate(self, rows_per_block: int, ratio: float, update_seconds: float) -> float:
        """Environment steps a second at which the learner's process is busy all the time."""
        return 1 / (self.row_seconds + self.block_seconds / rows_per_block + ratio * update_seconds)

    def saturating_workers(self, worker_rate: float, rows_per_block: int, ratio: float, update_seconds: float) -> int:
        """So many workers give all that the learner can take."""
        return math.ceil(self.learner_rate(rows_per_block, ratio, update_seconds) / worker_rate)


@dataclass(frozen=True, kw_only=True)
class Searching:
    """What the process of a search spends on its trials, and what the store of its numbers takes."""

    start_seconds: float
    """From when a trial has its place to when it trains."""
    loop_seconds: float
    """Of Tune's loop, for each trial: one after the other."""
    rows_per_second: float
    """Metric values that one writer brings into the store."""
    member_seconds: float
    """To begin and end a member's record."""

    def limits(self, members: int, rows_per_member: int) -> dict[str, float]:
        """Trials a second, by what would then be busy all the time."""
        return {
            "Tune's loop": 1 / self.loop_seconds,
            "the writer": 1 / (members * (self.member_seconds + rows_per_member / self.rows_per_second)),
        }

    def saturating_slots(self, trial_seconds: float, members: int, rows_per_member: int) -> dict[str, int]:
        """So many trials at a time keep it busy all the time."""
        limits = self.limits(members, rows_per_member)
        return {name: math.floor(rate * (self.start_seconds + trial_seconds)) for name, rate in limits.items()}
