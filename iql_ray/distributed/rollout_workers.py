"""Rollout workers: Ray actors that keep environments, and evaluate a policy in groups of episodes.

Groups go to whichever worker is free, and again to another one if a worker dies; what an episode gives does not depend
on who ran it (see `evaluation.episodes`). Workers hold numpy policies and never import torch. Nothing is trained here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import gymnasium
import ray

from iql_ray.distributed.actor_pool import ActorPool, PooledActor, cause_of
from iql_ray.envs.action_limits import NO_LIMITS, ActionLimits, maker_of
from iql_ray.evaluation.episodes import run_group, split_into_groups
from iql_ray.experience import EpisodeResult
from iql_ray.policy import Policy

Group = tuple[int, ...]
"""The seeds of episodes that run side by side."""

MAX_ATTEMPTS = 3
"""How often a group may fail, by an exception or by its worker's death, before the evaluation gives up."""
START_TIMEOUT_SECONDS = 300.0
"""How long an evaluation waits while no worker at all answers: a cluster may be growing, or a node coming back."""


class RolloutWorker(PooledActor):
    """The inside of one actor: environments, made when first needed and used again. Works without Ray."""

    def __init__(self, environment_id: str, limits: ActionLimits = NO_LIMITS) -> None:
        self._make = maker_of(environment_id, limits)
        self._environments: list[gymnasium.Env] = []

    def run(self, policy: Policy, seeds: Group, temperature: float, discount: float = 1.0) -> list[EpisodeResult]:
        """One episode per seed. A failure throws the environments away, so that a new attempt has new ones."""
        try:
            while len(self._environments) < len(seeds):
                self._environments.append(self._make())
            return run_group(policy, self._environments, seeds, temperature, discount)
        except Exception:
            self._environments = []
            raise

    def close(self) -> None:
        for environment in self._environments:
            environment.close()
        self._environments = []


class GroupQueue:
    """Which groups wait, which worker runs which, and how often each has failed."""

    def __init__(self, groups: Sequence[Group], environment_id: str) -> None:
        self._groups = groups
        self._environment_id = environment_id
        self._waiting = deque(range(len(groups)))
        self._running: dict[int, int] = {}
        self._num_failures = [0] * len(groups)
        self._results: dict[int, list[EpisodeResult]] = {}

    @property
    def is_done(self) -> bool:
        return len(self._results) == len(self._groups)

    def take(self, worker: int) -> Group | None:
        """The next group for a free worker; None where the worker is busy or nothing waits."""
        if worker in self._running or not self._waiting:
            return None
        self._running[worker] = self._waiting.popleft()
        return self._groups[self._running[worker]]

    def finish(self, worker: int, results: list[EpisodeResult]) -> None:
        self._results[self._running.pop(worker)] = results

    def fail(self, worker: int, error: Exception) -> None:
        """Put the worker's group back at the head of the queue.

        Raises:
            RuntimeError: this group has now failed MAX_ATTEMPTS times.
        """
        group = self._running.pop(worker)
        self._num_failures[group] += 1
        if self._num_failures[group] >= MAX_ATTEMPTS:
            seeds = ", ".join(map(str, self._groups[group]))
            raise RuntimeError(
                f"rollout worker {worker} failed in environment '{self._environment_id}', episodes with seeds "
                f"{seeds}; these have now failed {MAX_ATTEMPTS} times: {cause_of(error)}"
            ) from error
        self._waiting.appendleft(group)

    def results(self) -> list[EpisodeResult]:
        """All results in episode order."""
        return [result for group in range(len(self._groups)) for result in self._results[group]]


class RolloutWorkers:
    """A pool of rollout workers, in a driver or inside another actor.

    Workers join as they start and again after they died, so a cluster that has room for only some of them does the
    work with those.

    Args:
        environment_id: what `make_env` takes; its module must be importable on the workers.
        num_workers: processes, each with up to GROUP_WIDTH environments.
        num_cpus_each: what Ray reserves for a worker.
        limits: of what is executed.
        resources: custom ones of the nodes that workers belong on.
    """

    def __init__(
        self,
        environment_id: str,
        num_workers: int,
        num_cpus_each: float = 1.0,
        limits: ActionLimits = NO_LIMITS,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers is {num_workers}, expected at least 1")
        arguments = [(environment_id, limits)] * num_workers
        self._pool = ActorPool(RolloutWorker, arguments, num_cpus_each=num_cpus_each, resources=resources)
        self._environment_id = environment_id
        self._num_evaluations = 0

    def evaluate(self, policy: Policy, num_episodes: int, seed: int, temperature: float = 0.0) -> list[EpisodeResult]:
        """Run episodes under the policy: the same returns on any number of workers.

        Args:
            policy: sent once, through the object store.
            num_episodes: how many.
            seed: of the evaluation; every episode has a seed of its own from it.
            temperature: of `Policy.act`; 0 acts without noise.

        Returns:
            One result per episode, in episode order.

        Raises:
            RuntimeError: a group of episodes failed MAX_ATTEMPTS times, or no worker answered for
                START_TIMEOUT_SECONDS.
        """
        queue = GroupQueue(split_into_groups(num_episodes, seed), self._environment_id)
        # Calls of an evaluation that failed may still be under way: their answers carry another tag and are not read.
        self._num_evaluations += 1
        tag = f"evaluation {self._num_evaluations}"
        arguments = {"policy": ray.put(policy), "temperature": temperature}
        self._pool.ready.clear()  # a worker may have died since the last evaluation
        last_ready = time.monotonic()
        while not queue.is_done:
            self._pool.ping_absent()
            self._hand_out(queue, tag, arguments)
            self._collect(queue, tag)
            if self._pool.ready:
                last_ready = time.monotonic()
            elif time.monotonic() - last_ready > START_TIMEOUT_SECONDS:
                raise self._nobody_answers()
        return queue.results()

    def _hand_out(self, queue: GroupQueue, tag: str, arguments: dict[str, Any]) -> None:
        for worker in sorted(self._pool.ready):
            if (seeds := queue.take(worker)) is not None:
                self._pool.send(worker, RolloutWorker.run, tag, {**arguments, "seeds": seeds})

    def _collect(self, queue: GroupQueue, tag: str) -> None:
        """Take what has arrived. Any error takes a worker out of service until it answers a ping again."""
        for answer in self._pool.answers([tag]):
            if answer.tag == tag:
                if answer.error is None:
                    queue.finish(answer.worker, answer.value)
                else:
                    queue.fail(answer.worker, answer.error)

    def _nobody_answers(self) -> RuntimeError:
        return RuntimeError(
            f"none of {len(self._pool)} rollout workers for environment '{self._environment_id}' has "
            f"answered for {START_TIMEOUT_SECONDS:.0f} s; free in the cluster: {ray.available_resources()}"
        )

    def close(self) -> None:
        """Close the environments of workers that answer in time, then end all workers. Can be called twice."""
        self._pool.close()

    def __enter__(self) -> RolloutWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
