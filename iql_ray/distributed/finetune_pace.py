"""How updates and environment steps of fine-tuning keep their ratio: arithmetic alone.

    environment steps   0 ....... initial ....... settled ... taken in ... asked for
    updates             -----------------|  owed -----------|
                                                            |-- in flight --|

An update is owed for every 1 / ratio steps taken in; steps are settled whose updates are done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a run is to keep to."""

    updates_per_env_step: float
    num_initial_env_steps: int
    """Before the first update."""
    num_env_steps: int
    """Of the whole run."""

    def owed(self, num_taken_in: int, num_updates: int) -> int:
        """Updates that are due and not done, with so many steps taken in."""
        return self._due(num_taken_in) - num_updates

    def settled(self, num_taken_in: int, num_updates: int) -> int:
        """Environment steps that all updates are done for."""
        if self.owed(num_taken_in, num_updates) <= 0:
            return num_taken_in
        return min(num_taken_in, self.num_initial_env_steps + math.floor(num_updates / self.updates_per_env_step))

    def updates_until(self, num_settled: int, num_updates: int) -> int:
        """Updates until so many steps are settled, 0 where they are."""
        return max(0, self._due(num_settled) - num_updates)

    def may_ask(self, num_asked: int, num_updates: int, lead: int) -> bool:
        """Whether environments may be asked for more: no further ahead of the updates than `lead` steps."""
        covered = self.num_initial_env_steps + num_updates / self.updates_per_env_step
        return num_asked < min(self.num_env_steps, covered + lead)

    def _due(self, num_env_steps: int) -> int:
        # The small number: 0.1 * 30 is a little less than 3 in floating point.
        return math.floor(self.updates_per_env_step * max(0, num_env_steps - self.num_initial_env_steps) + 1e-9)


def crossed(before: int, after: int, interval: int) -> bool:
    """Whether a multiple of the interval lies in (before, after]."""
    return after // interval > before // interval


def next_multiple(after: int, interval: int) -> int:
    """The first multiple of the interval beyond `after`."""
    return (after // interval + 1) * interval
