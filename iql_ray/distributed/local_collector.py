"""Environments in the learner's own process, behind the same words as rollout workers: no actor, no message.

What is requested is made at once, and arrives when it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

import gymnasium

from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.envs.collecting import EnvironmentSet
from iql_ray.envs.standing import StandKeeper
from iql_ray.experience import Collected, Stand
from iql_ray.policy import Policy

MAX_WAITING = 2


class LocalCollector:
    """All environments of a run.

    Args:
        config: of the run.
        make: makes an environment.
        stands: where they stand, with actions; those without are new.
    """

    num_lost_steps = 0
    """Nobody else can die."""

    def __init__(self, config: FinetuneConfig, make: Callable[[], gymnasium.Env], stands: Sequence[Stand] = ()) -> None:
        self._environments = EnvironmentSet(
            make,
            range(config.num_environments),
            seed=config.seed,
            temperature=config.temperature,
            epsilon=config.epsilon,
            max_failures=config.max_env_failures,
            is_replayed=config.replays_episodes,
        )
        self._environments.restore(stands)
        self._keeper = StandKeeper(stands, has_actions=False)
        self._num_environments = config.num_environments
        self._waiting: deque[Collected] = deque()

    @property
    def num_pending_steps(self) -> int:
        return sum(len(collected.experience) for collected in self._waiting)

    def collect(self, policy: Policy, policy_version: int, num_steps: int) -> Collected:
        return self._received(self._environments.collect(policy, policy_version, num_steps))

    def request(self, policy: Policy, policy_version: int, num_steps: int) -> bool:
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append(self._environments.collect(policy, policy_version, num_steps))
        return True

    def arrived(self, timeout_seconds: float) -> Sequence[Collected]:
        return [self._received(self._waiting.popleft())] if self._waiting else []

    def stands(self) -> Sequence[Stand]:
        return self._keeper.stands(range(self._num_environments))

    def _received(self, collected: Collected) -> Collected:
        """Raises RuntimeError where every environment is quarantined."""
        self._keeper.follow(collected)
        if len(collected.quarantined) == self._num_environments:
            failures = "; ".join(failure.message for failure in collected.failures)
            raise RuntimeError(f"all {self._num_environments} environments are quarantined: {failures}")
        return collected

    def __enter__(self) -> LocalCollector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._environments.close()
