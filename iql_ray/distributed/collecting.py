"""Collecting with many workers: Ray actors that step environments under whatever policy they are sent.

In step with the learner (`collect`), or never waiting for it (`request`, `arrived`). A worker that dies or hangs is
replaced and brought to where it stood while the others go on. What a worker does is `collecting_worker.py`. Nothing is
trained here, and no experience is kept but the actions of unfinished episodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import gymnasium
import ray
from ray.exceptions import RayTaskError

from iql_ray.distributed.actor_pool import PING, POLL_SECONDS, ActorPool, cause_of
from iql_ray.distributed.collecting_worker import HEARTBEAT, CollectingWorker, Ledger, Request
from iql_ray.distributed.hang_watch import HangWatch
from iql_ray.envs.blocks import merge
from iql_ray.experience import Collected, EnvironmentFailure, Stand
from iql_ray.policy import Policy

COLLECT, RESTORE = "collect", "restore"
MAX_REQUESTS = 2
"""Blocks asked of a worker at a time: while one is on its way here, it is at work on the next."""
START_TIMEOUT_SECONDS = 300.0
"""How long to wait while a worker that is needed does not answer: a cluster may be growing, or a node coming back."""
SHORT_POLL_SECONDS = 0.002


class CollectingWorkers:
    """A pool of collecting workers: the same experience from the same environments on any number of them.

    Args:
        make: an environment's id (see `make_env`; its module must be importable on the workers), or a function
            without arguments that makes one.
        num_workers: processes of one thread.
        envs_per_worker: environments of each.
        seed: of the run.
        temperature: of `Policy.act`.
        epsilon: how likely a discrete action is drawn from all choices instead.
        step_timeout_seconds: an environment that takes longer for one step, or reset, hangs: it has failed, and its
            worker is replaced. None: as long as it takes.
        max_env_failures: after so many an environment is quarantined: not stepped any more.
        is_replayed: whether unfinished episodes are gone through again where a worker is replaced, as simulators can;
            otherwise the next ones begin.
        num_cpus_each: what Ray reserves for a worker.
        resources: custom ones of the nodes that workers belong on.
        stands: where the environments stand, with actions; those without are new.
        name: of the environment, for messages; only asked for where `make` is a function.
    """

    def __init__(
        self,
        make: str | Callable[[], gymnasium.Env],
        num_workers: int,
        envs_per_worker: int,
        *,
        seed: int,
        temperature: float = 1.0,
        epsilon: float = 0.0,
        step_timeout_seconds: float | None = None,
        max_env_failures: int = 3,
        is_replayed: bool = True,
        num_cpus_each: float = 1.0,
        resources: Mapping[str, float] | None = None,
        stands: Sequence[Stand] = (),
        name: str | None = None,
    ) -> None:
        self._name = name or (make if isinstance(make, str) else getattr(make, "__qualname__", repr(make)))
        faults = {"max_failures": max_env_failures, "is_replayed": is_replayed}
        options = {"seed": seed, "temperature": temperature, "epsilon": epsilon, **faults}
        self._ledger = Ledger(self._name, num_workers, envs_per_worker, stands, seed=seed, **faults)
        self._pool = ActorPool(
            CollectingWorker,
            [(make, self._ledger.environments(worker), options) for worker in range(num_workers)],
            num_cpus_each=num_cpus_each,
            resources=resources,
            max_calls=MAX_REQUESTS,
            concurrency_groups={HEARTBEAT: 1},
        )
        self._with_room: list[dict[int, None]] = [{} for _ in range(MAX_REQUESTS)]
        """Workers that are there, by how many requests they have; those that wait longest first."""
        self._watch = HangWatch(step_timeout_seconds)
        self._sent: tuple[int, Any] | None = None
        self._absent_since = dict.fromkeys(range(num_workers), time.monotonic())
        self._last_error = "it has not started yet"

    @property
    def num_lost_steps(self) -> int:
        """Environment steps of blocks that were under way at workers that died, and were not done again."""
        return self._ledger.num_lost_steps

    @property
    def num_pending_steps(self) -> int:
        """Steps that are asked for and have not arrived."""
        return self._ledger.num_pending_steps

    @property
    def num_restarts(self) -> int:
        """How often a worker died, or hung and was killed."""
        return self._ledger.num_restarts

    @property
    def failures(self) -> tuple[EnvironmentFailure, ...]:
        """All so far, in the order in which they became known."""
        return tuple(self._ledger.failures)

    @property
    def quarantined(self) -> tuple[int, ...]:
        return self._ledger.quarantined

    def stands(self) -> tuple[Stand, ...]:
        """Where every environment stands, as of what has come back; with actions where episodes can be replayed."""
        return tuple(stand for worker in range(len(self._pool)) for stand in self._ledger.stands(worker))

    def collect(self, policy: Policy, policy_version: int, num_steps: int) -> Collected:
        """Every environment makes `num_steps`, whatever dies meanwhile; cannot be mixed with unanswered requests.

        Args:
            policy: sent once per version.
            policy_version: the updates behind it.

        Returns:
            Rows by step, then by environment: the same bits on any number of workers, whether one was replaced or not,
            if episodes can be replayed.

        Raises:
            RuntimeError: all environments are quarantined, a worker that is needed has not answered for
                START_TIMEOUT_SECONDS, or collecting raised something that is no environment's fault.
        """
        needed = [worker for worker in range(len(self._pool)) if self._ledger.num_living(worker)]
        request = self._request(policy, policy_version, num_steps, is_repeated=True)
        for worker in needed:
            assert not self._ledger.requests(worker), "requests of another kind are under way"
            self._ask(worker, request)
        arrived: dict[int, Collected] = {}
        while len(arrived) < len(needed):
            arrived |= self._tend(POLL_SECONDS)
            self._check_presence([worker for worker in needed if worker in self._absent_since])
        return merge([arrived[worker] for worker in needed])

    def request(self, policy: Policy, policy_version: int, num_steps: int) -> bool:
        """Have one worker that is there, and has less than MAX_REQUESTS to do, make a block under this policy.

        The one with least to do is asked, of several the one that has waited longest. A worker that dies forgets what
        it was asked; to be called again and again, so that none runs dry.

        Returns:
            Whether there was such a worker.
        """
        worker = next((worker for workers in self._with_room for worker in workers), None)
        if worker is None:
            return False
        self._ask(worker, self._request(policy, policy_version, num_steps, is_repeated=False))
        return True

    def arrived(self, timeout_seconds: float = 0.0) -> list[Collected]:
        """The blocks that have come in since the last call: when there is one, or the time is over.

        Raises:
            RuntimeError: all environments are quarantined, no worker at all has answered for START_TIMEOUT_SECONDS,
                or collecting raised something that is no environment's fault.
        """
        deadline = time.monotonic() + timeout_seconds
        while not (arrived := self._tend(0.0)) and time.monotonic() < deadline:
            time.sleep(SHORT_POLL_SECONDS)
        if len(self._absent_since) == len(self._pool):
            self._check_presence(self._absent_since)
        return [collected for _, collected in arrived]

    def close(self) -> None:
        """Close the environments of workers that answer in time, then end all workers. Can be called twice."""
        self._pool.close()

    def _request(self, policy: Policy, policy_version: int, num_steps: int, *, is_repeated: bool) -> Request:
        if self._sent is None or self._sent[0] != policy_version:
            self._sent = policy_version, ray.put(policy)
        return Request(
            policy=self._sent[1], policy_version=policy_version, num_steps=num_steps, is_repeated=is_repeated
        )

    def _ask(self, worker: int, request: Request) -> None:
        self._ledger.ask(worker, request)
        self._place(worker)
        if worker in self._pool.ready:
            self._send(worker, request)

    def _place(self, worker: int) -> None:
        """Where it belongs among those that can be asked, after a change."""
        for workers in self._with_room:
            workers.pop(worker, None)
        num_requests = len(self._ledger.requests(worker))
        if num_requests < MAX_REQUESTS and worker in self._pool.ready and self._ledger.num_living(worker):
            self._with_room[num_requests][worker] = None

    def _send(self, worker: int, request: Request) -> None:
        block = {
            "policy": request.policy,
            "policy_version": request.policy_version,
            "num_steps": request.num_steps,
        }
        self._pool.send(worker, CollectingWorker.collect, COLLECT, block)

    def _tend(self, timeout_seconds: float) -> list[tuple[int, Collected]]:
        """Take what has arrived, welcome workers that are back, write off those that are gone, kill those that hang."""
        self._pool.ping_absent()
        were_ready = set(self._pool.ready)
        arrived: list[tuple[int, Collected]] = []
        for answer in self._pool.answers([COLLECT, RESTORE], timeout_seconds):
            if answer.error is not None:
                self._take_error(answer.worker, answer.error)
                continue
            self._watch.hear(answer.worker)
            if answer.tag == PING:
                self._welcome(answer.worker)
            elif answer.tag == COLLECT:
                arrived.append((answer.worker, self._ledger.receive(answer.worker, answer.value)))
                self._place(answer.worker)
        for worker in were_ready - self._pool.ready:
            self._lose(worker)
        self._replace_hanging()
        self._ledger.check_living()
        return arrived

    def _take_error(self, worker: int, error: Exception) -> None:
        """A death is for `_lose`; what a living worker raises is an error of the policy, or of ours."""
        self._last_error = cause_of(error)
        if isinstance(error, RayTaskError):
            numbers = self._ledger.environments(worker)
            raise RuntimeError(
                f"rollout worker {worker}, environments {numbers[0]} to {numbers[-1]} of '{self._name}': "
                f"{self._last_error}"
            ) from error

    def _welcome(self, worker: int) -> None:
        """Bring a new process to where the worker stood, and to work."""
        del self._absent_since[worker]
        stands = {"stands": self._ledger.stands(worker)}
        self._pool.send(worker, CollectingWorker.restore, RESTORE, stands)
        for request in self._ledger.requests(worker):
            self._send(worker, request)
        self._place(worker)

    def _lose(self, worker: int) -> None:
        self._absent_since[worker] = time.monotonic()
        self._ledger.lose(worker)
        self._place(worker)
        self._watch.forget(worker)

    def _replace_hanging(self) -> None:
        for worker, busy in self._watch.hanging(self._pool.actor).items():
            self._lose(worker)
            self._ledger.hang(worker, busy, self._watch.timeout_seconds)
            self._pool.restart(worker)

    def _check_presence(self, workers: Iterable[int]) -> None:
        now = time.monotonic()
        absent = [worker for worker in workers if now - self._absent_since[worker] > START_TIMEOUT_SECONDS]
        if absent:
            raise RuntimeError(
                f"of {len(self._pool)} rollout workers for environment '{self._name}', {absent} have not answered for "
                f"{START_TIMEOUT_SECONDS:.0f} s ({self._last_error}); free in the cluster: {ray.available_resources()}"
            )

    def __enter__(self) -> CollectingWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
