"""What the first learner decides for all in fine-tuning: what to ask of the environments, how many updates to make, and
when something is due.

Both modes are one director; they differ in whether it waits for what it asks for. Who steps environments is behind
`Collector`, who records behind `OnlineRecorder`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from iql_ray.data.experience_log import ExperienceLog
from iql_ray.data.packed import RowLayout
from iql_ray.data.packing import pack_columns
from iql_ray.data.replay import ReplayRing
from iql_ray.data.transforms import Transforms
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.finetune_pace import Pace, crossed, next_multiple
from iql_ray.distributed.learner import Recorder
from iql_ray.distributed.online_numbers import OnlineNumbers
from iql_ray.experience import Collected, Stand
from iql_ray.policy import Policy

MAX_UPDATES_A_TURN = 16
"""Asynchronously, what has arrived is looked at this often."""
POLL_SECONDS = 0.01
SPILL_SECONDS = 10.0
"""Between two writes of experience that a killed run could not make again."""


class Collector(Protocol):
    """Environments, wherever they are."""

    @property
    def num_pending_steps(self) -> int:
        """Requested, and not arrived."""
        ...

    @property
    def num_lost_steps(self) -> int:
        """Made, or being made, when a worker died."""
        ...

    def collect(self, policy: Policy, policy_version: int, num_steps: int) -> Collected:
        """So many steps in each environment; waits for them."""
        ...

    def request(self, policy: Policy, policy_version: int, num_steps: int) -> bool:
        """Have one worker make so many steps in each of its environments; False where none has room for more."""
        ...

    def arrived(self, timeout_seconds: float) -> Sequence[Collected]:
        """What has come back since the last call; waits so long for the first."""
        ...

    def stands(self) -> Sequence[Stand]:
        """Of every environment, as of what has come back."""
        ...


class OnlineRecorder(Recorder, Protocol):
    """A recorder that can be asked how an evaluation went."""

    def evaluation(self, update_count: int) -> dict[str, Any]:
        """Of a checkpoint that asks for one; waits until it is done."""
        ...

    def warn(self, message: str) -> None:
        """Something that the user should read."""
        ...


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What all learners do next: take rows in, update, and then what is due."""

    rows: np.ndarray
    """(new rows, width) packed, of all learners together."""
    policy_versions: np.ndarray
    num_updates: int
    num_env_steps: int
    """Settled when the turn is over."""
    is_logged: bool = False
    is_saved: bool = False
    is_evaluated: bool = False
    is_over: bool = False


class Director:
    """What the first learner decides for all.

    Args:
        layout: of packed rows.
        transforms: of what is collected.
        collector: the environments, standing where `log` ends.
        log: what was collected so far.
        publish: the policy as it is now.
        recorder: asked for evaluations where there is a floor.
        num_updates: done so far.
        evaluated_update: where the newest evaluation was asked for.
        totals: of the run so far, as `online_state` keeps them.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        layout: RowLayout,
        transforms: Transforms,
        collector: Collector,
        log: ExperienceLog,
        publish: Callable[[], Policy],
        recorder: OnlineRecorder,
        num_updates: int,
        evaluated_update: int | None,
        totals: dict[str, Any],
    ) -> None:
        self._config, self._layout, self._transforms = config, layout, transforms
        self._collector, self._log, self._publish, self._recorder = collector, log, publish, recorder
        self._pace = Pace(
            updates_per_env_step=config.updates_per_env_step,
            num_initial_env_steps=config.initial_env_steps,
            num_env_steps=config.num_env_steps,
        )
        self._num_settled = self._pace.settled(log.num_rows, num_updates)
        self._evaluated_update = evaluated_update
        self._policy: tuple[int, Policy] | None = None
        self._spilled_at = time.monotonic()
        self.numbers = OnlineNumbers(self._num_settled, num_updates, totals)

    def next_turn(self, num_updates: int) -> Turn:
        """Collect, and decide; `num_updates` are done."""
        if self._is_below_floor(num_updates):
            return self._turn([], 0, num_updates, is_over=True)
        if self._config.mode == "synchronous":
            collected = self._collect(num_updates)
            return self._turn(collected, self._pace.owed(self._log.num_rows, num_updates), num_updates)
        collected = self._take_arrived(num_updates)
        return self._turn(collected, self._share_of_owed(num_updates), num_updates)

    def last_turn(self, num_updates: int) -> Turn:
        """Save where the run stands, and end, though it is not over."""
        return Turn(
            rows=self._packed([]),
            policy_versions=_NO_VERSIONS,
            num_updates=0,
            num_env_steps=self._num_settled,
            is_saved=True,
            is_evaluated=num_updates == self._evaluated_update,
            is_over=True,
        )

    def online_state(self, num_env_steps: int) -> dict[str, Any]:
        """What a checkpoint keeps of it, as plain JSON types."""
        stands = [
            {name: value for name, value in vars(stand).items() if name != "actions"}
            for stand in self._collector.stands()
        ]
        return {
            "num_env_steps": num_env_steps,
            "num_rows": self._log.num_rows,
            "stands": stands,
            "totals": self.numbers.totals(self._collector.num_lost_steps),
        }

    def point(self, turn: Turn, num_updates: int, ring: ReplayRing) -> dict[str, float]:
        """What a point of the curves says of environments and replay."""
        numbers = self.numbers.take(turn.num_env_steps, num_updates, self._collector.num_lost_steps, ring)
        return {**numbers, "online/num_pending_steps": self._collector.num_pending_steps}

    def is_spill_due(self) -> bool:
        """Whether what was collected should be on the disk by now, for it will not come again."""
        return not self._config.is_exact and time.monotonic() - self._spilled_at >= SPILL_SECONDS

    def write_experience(self) -> Callable[[], None]:
        """Writes what was collected up to now, when called."""
        self._spilled_at = time.monotonic()
        return self._log.take()

    def _collect(self, num_updates: int) -> list[Collected]:
        """One block of every environment, unless all steps are made."""
        if self._log.num_rows >= self._config.num_env_steps:
            return []
        collected = [self._collector.collect(self._published(num_updates), num_updates, self._config.block_steps)]
        self._take_in(collected, num_updates)
        return collected

    def _take_arrived(self, num_updates: int) -> list[Collected]:
        """Keep the workers busy, and take what they have made; waits only where no update is owed."""
        self._ask(num_updates)
        is_idle = self._pace.owed(self._log.num_rows, num_updates) <= 0
        collected = self._collector.arrived(POLL_SECONDS if is_idle else 0.0)
        fresh = [each for each in collected if self._is_fresh(each, num_updates)]
        self._take_in(fresh, num_updates)
        return fresh

    def _ask(self, num_updates: int) -> None:
        lead, block_steps = self._lead(), self._config.block_steps
        while self._pace.may_ask(self._log.num_rows + self._collector.num_pending_steps, num_updates, lead):
            if not self._collector.request(self._published(num_updates), num_updates, block_steps):
                return

    def _lead(self) -> int:
        """Two blocks of every environment: one that is made and one that waits for its worker; at least one in all."""
        config = self._config
        lead = 2 * config.block_steps * config.num_environments
        if config.max_staleness is not None:
            lead = min(lead, int(config.max_staleness / config.updates_per_env_step))
        return max(lead, 1)

    def _is_fresh(self, collected: Collected, num_updates: int) -> bool:
        versions = collected.experience.policy_versions
        limit = self._config.max_staleness
        if limit is None or not len(versions) or num_updates - int(versions.min()) <= limit:
            return True
        self.numbers.add_stale(collected)
        return False

    def _take_in(self, collected: Sequence[Collected], num_updates: int) -> None:
        for each in collected:
            self._log.append(each.experience)
            self.numbers.add(each, num_updates)
            for failure in each.failures:
                self._recorder.warn(failure.message)

    def _share_of_owed(self, num_updates: int) -> int:
        """Some of the updates that are owed: up to the next number of environment steps where something is due."""
        owed = self._pace.owed(self._log.num_rows, num_updates)
        config = self._config
        intervals = (
            config.log_interval_env_steps,
            config.eval_interval_env_steps,
            config.checkpoint_interval_env_steps,
        )
        until = min(
            self._pace.updates_until(next_multiple(self._num_settled, interval), num_updates) for interval in intervals
        )
        return min(owed, MAX_UPDATES_A_TURN, max(until, 1))

    def _turn(self, collected: Sequence[Collected], owed: int, num_updates: int, is_over: bool = False) -> Turn:
        """The rows and updates of a turn, and what is due once they are done."""
        config, before, done = self._config, self._num_settled, num_updates + owed
        self._num_settled = after = self._pace.settled(self._log.num_rows, done)
        is_over = is_over or after >= config.num_env_steps
        is_evaluation_due = is_over or crossed(before, after, config.eval_interval_env_steps)
        if is_evaluation_due:
            self._evaluated_update = done
        return Turn(
            rows=self._packed(collected),
            policy_versions=np.concatenate([_NO_VERSIONS, *(each.experience.policy_versions for each in collected)]),
            num_updates=owed,
            num_env_steps=after,
            is_logged=is_over or crossed(before, after, config.log_interval_env_steps),
            is_saved=is_evaluation_due or crossed(before, after, config.checkpoint_interval_env_steps),
            is_evaluated=done == self._evaluated_update,
            is_over=is_over,
        )

    def _packed(self, collected: Sequence[Collected]) -> np.ndarray:
        parts = [pack_columns(vars(each.experience), self._transforms) for each in collected if len(each.experience)]
        return np.concatenate([np.zeros((0, self._layout.width), np.float32), *parts])

    def _published(self, num_updates: int) -> Policy:
        """The policy after so many updates, exported once."""
        if self._policy is None or self._policy[0] != num_updates:
            self._policy = num_updates, self._publish()
        return self._policy[1]

    def _is_below_floor(self, num_updates: int) -> bool:
        """Whether the newest policy, if it has just been sent to be evaluated, did worse than is allowed."""
        floor = self._config.floor
        if floor is None or self._evaluated_update != num_updates:
            return False
        found = self._recorder.evaluation(num_updates)["return_mean"]
        if found < floor:
            self._recorder.warn(
                f"evaluation after {self._num_settled:,} environment steps: return {found:.6g} is below the floor "
                f"{floor:.6g}; stopping, and handing on the best policy so far"
            )
        return found < floor


_NO_VERSIONS = np.zeros(0, np.int64)
