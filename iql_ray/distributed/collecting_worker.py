"""The inside of one collecting actor, and what the driver remembers of all of them: neither needs Ray to work.

`collecting.py` brings the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium
import ray

from iql_ray.distributed.actor_pool import PooledActor
from iql_ray.envs.catalog import make_env
from iql_ray.envs.collecting import Busy, EnvironmentSet
from iql_ray.envs.running import episode_seed, naming
from iql_ray.envs.standing import StandKeeper
from iql_ray.experience import Collected, EnvironmentFailure, Stand
from iql_ray.policy import Policy

HEARTBEAT = "heartbeat"
"""The concurrency group of an actor in which it says what it is doing, while it does it."""


class CollectingWorker(PooledActor):
    """Keeps some of a run's environments; without stands, new ones.

    Args:
        make: an environment's id (see `make_env`), or a function without arguments that makes one.
        environments: their numbers in the run.
        options: of `EnvironmentSet`.
    """

    def __init__(
        self, make: str | Callable[[], gymnasium.Env], environments: Sequence[int], options: dict[str, Any]
    ) -> None:
        function = partial(make_env, make, is_checked=False) if isinstance(make, str) else make
        self._environments = EnvironmentSet(function, environments, **options)

    def restore(self, stands: Sequence[Stand]) -> None:
        self._environments.restore(stands)

    def collect(self, policy: Policy, policy_version: int, num_steps: int) -> Collected:
        return self._environments.collect(policy, policy_version, num_steps)

    @ray.method(concurrency_group=HEARTBEAT)
    def busy(self) -> Busy | None:
        return self._environments.busy

    def close(self) -> None:
        self._environments.close()


@dataclass(frozen=True, kw_only=True)
class Request:
    """A block that a worker was asked for."""

    policy: Any
    """In the object store."""
    policy_version: int
    num_steps: int
    is_repeated: bool
    """Whether it is asked for again where its worker dies."""


class Ledger:
    """Which environments each worker has, where they stand, what it was asked for, what failed and was lost.

    Args:
        name: of the environment, for messages.
        num_workers: with `envs_per_worker` environments each: the first has 0, 1, ...
        stands: at the beginning, with actions.
        seed: of the run.
        max_failures: after so many an environment is quarantined.
        is_replayed: whether a new worker brings environments back to where they stood.
    """

    def __init__(
        self,
        name: str,
        num_workers: int,
        envs_per_worker: int,
        stands: Sequence[Stand] = (),
        *,
        seed: int,
        max_failures: int,
        is_replayed: bool,
    ) -> None:
        self.failures: list[EnvironmentFailure] = []
        self.num_lost_steps = self.num_restarts = 0
        self._name, self._width, self._seed = name, envs_per_worker, seed
        self._max_failures, self._is_replayed = max_failures, is_replayed
        self._keeper = StandKeeper(stands, has_actions=is_replayed)
        self._requests: list[list[Request]] = [[] for _ in range(num_workers)]
        self._unreported: list[list[EnvironmentFailure]] = [[] for _ in range(num_workers)]
        self._living, self._pending = [0] * num_workers, [0] * num_workers
        self.num_living_in_all = self.num_pending_steps = 0
        for worker in range(num_workers):
            self._count(worker)

    def environments(self, worker: int) -> range:
        return range(worker * self._width, (worker + 1) * self._width)

    @property
    def quarantined(self) -> tuple[int, ...]:
        return tuple(number for worker in range(len(self._requests)) for number in self._quarantined_at(worker))

    def _quarantined_at(self, worker: int) -> list[int]:
        return [
            number
            for number in self.environments(worker)
            if self._keeper.stand(number).num_failures >= self._max_failures
        ]

    def num_living(self, worker: int) -> int:
        """Of its environments, those that are not quarantined."""
        return self._living[worker]

    def _count(self, worker: int) -> None:
        """Bring the sums over all workers up to date with one of them: with a thousand, nobody counts them all."""
        living = self._width - len(self._quarantined_at(worker))
        pending = living * sum(request.num_steps for request in self._requests[worker])
        self.num_living_in_all += living - self._living[worker]
        self.num_pending_steps += pending - self._pending[worker]
        self._living[worker], self._pending[worker] = living, pending

    def stands(self, worker: int) -> tuple[Stand, ...]:
        """Of its environments as of its last block, with actions."""
        return self._keeper.stands(self.environments(worker))

    def requests(self, worker: int) -> tuple[Request, ...]:
        """Not answered yet, in order."""
        return tuple(self._requests[worker])

    def ask(self, worker: int, request: Request) -> None:
        self._requests[worker].append(request)
        self._count(worker)

    def receive(self, worker: int, collected: Collected) -> Collected:
        """The answer to its oldest request; with those failures of its environments that it could not report."""
        self._requests[worker].pop(0)
        self._keeper.follow(collected)
        self.failures += collected.failures
        unreported, self._unreported[worker] = self._unreported[worker], []
        self._count(worker)
        return replace(collected, failures=(*unreported, *collected.failures))

    def lose(self, worker: int) -> None:
        """The worker is gone, and its unfinished blocks with it: they are lost unless they can be had again."""
        for request in self._requests[worker]:
            if not (request.is_repeated and self._is_replayed):
                self.num_lost_steps += request.num_steps * self.num_living(worker)
        self._requests[worker] = [request for request in self._requests[worker] if request.is_repeated]
        self.num_restarts += 1
        self._count(worker)

    def hang(self, worker: int, busy: Busy | None, seconds: float) -> None:
        """An environment has failed by taking longer than that: it will begin its next episode.

        Where the worker does not say which one, it is each of its environments: one of them holds Python's lock.
        """
        suspects = [busy] if busy else [self._unknown(number) for number in self.environments(worker)]
        for suspect in suspects:
            number, episode = suspect.environment, suspect.episode
            named = naming(self._name, number, episode, episode_seed(self._seed, number, episode), suspect.step)
            failure = EnvironmentFailure(
                environment=number,
                episode=episode,
                step=suspect.step,
                message=f"{named}: it takes longer than {seconds:g} s" + ("" if busy else ", it or another one beside"),
            )
            self.failures.append(failure)
            self._unreported[worker].append(failure)
            stand = self._keeper.stand(number)
            self._keeper.move(replace(stand, episode=episode + 1, num_failures=stand.num_failures + 1))
        self._count(worker)

    def _unknown(self, number: int) -> Busy:
        return Busy(environment=number, episode=self._keeper.stand(number).episode, step=0, seconds=0.0)

    def check_living(self) -> None:
        """Raise RuntimeError, with the last failure of each environment, where all are quarantined."""
        if not self.num_living_in_all:
            last = {failure.environment: failure.message for failure in self.failures}
            raise RuntimeError(
                f"all {len(self.quarantined)} environments failed {self._max_failures} times and are quarantined: "
                + "; ".join(last.values())
            )
