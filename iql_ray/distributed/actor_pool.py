"""A pool of equal Ray actors that come and go, under RLlib's FaultTolerantActorManager.

It knows who is there, brings calls to them and answers back. What the calls are is for its users to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import ray

POLL_SECONDS = 0.02
CLOSE_TIMEOUT_SECONDS = 2.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A worker is the unit of parallelism; with one thread a matrix product is also summed in one order."""
PING = "ping"


class PooledActor:
    """What the pool asks of every actor class."""

    def ping(self) -> str:
        return "pong"

    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `func` with this actor: how the actor manager reaches every method."""
        return func(self, *args, **kwargs)

    def close(self) -> None:
        """Called before the actor ends, if there is time."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """To a call, or the error that came instead of one."""

    worker: int
    tag: str
    value: Any = None
    error: Exception | None = None


def cause_of(error: Exception) -> str:
    """The worker's own exception in one line, without Ray's copy of the remote traceback around it."""
    cause = getattr(error, "cause", error)
    return f"{type(cause).__name__}: {cause}".strip().splitlines()[0]


class ActorPool:
    """Actors that Ray restarts for ever; each is ready when it has answered a ping since it last failed.

    Args:
        actor_class: of every actor; runs with one thread.
        arguments: of the constructor, one tuple per actor.
        num_cpus_each: what Ray reserves for an actor.
        resources: custom ones of the nodes that actors belong on.
        max_calls: under way at one actor at a time, of one tag.
    """

    def __init__(
        self,
        actor_class: type[PooledActor],
        arguments: Sequence[tuple[Any, ...]],
        *,
        num_cpus_each: float,
        resources: Mapping[str, float] | None = None,
        max_calls: int = 1,
        **options: Any,
    ) -> None:
        from ray.rllib.utils.actor_manager import FaultTolerantActorManager

        actors = self._start(actor_class, arguments, num_cpus=num_cpus_each, resources=dict(resources or {}), **options)
        self.manager = FaultTolerantActorManager(actors, max_remote_requests_in_flight_per_actor=max_calls)
        self.ready: set[int] = set()
        self._pinged: set[int] = set()

    def _start(self, actor_class: type[PooledActor], arguments: Sequence[tuple[Any, ...]], **options: Any) -> list[Any]:
        """Handles of new actors."""
        # "DEFAULT": not inside the placement group of the actor or trainer that this object may live in.
        remote: Callable[..., Any] = ray.remote(
            max_restarts=-1, scheduling_strategy="DEFAULT", runtime_env={"env_vars": ONE_THREAD}, **options
        )
        return [remote(actor_class).remote(*each) for each in arguments]

    def __len__(self) -> int:
        return self.manager.num_actors()

    def actor(self, worker: int) -> Any:
        """Its handle, for calls that go beside all others."""
        return self.manager.actors()[worker]

    def ping_absent(self) -> None:
        """Ask workers that have not started, or died; one question under way each, answered when they are up."""
        absent = self.manager.actors().keys() - self.ready - self._pinged
        if absent:
            self._pinged.update(absent)
            self.manager.foreach_actor_async(
                PooledActor.ping, tag=PING, healthy_only=False, remote_actor_ids=sorted(absent)
            )

    def send(self, worker: int, func: Callable[..., Any], tag: str, arguments: dict[str, Any]) -> None:
        """Have a ready worker call `func`; the answer comes under the tag. Calls are done in the order of sending."""
        num_sent = self.manager.foreach_actor_async(func, tag=tag, kwargs=arguments, remote_actor_ids=[worker])
        assert num_sent == 1, f"the manager dropped a call to worker {worker}"

    def answers(self, tags: Sequence[str], timeout_seconds: float = POLL_SECONDS) -> list[Answer]:
        """What has arrived when all calls are answered, or the time is over; an answered ping has value "pong".

        An error takes its worker out of service, with whatever else it was asked, until it answers a ping again.
        """
        arrived = self.manager.fetch_ready_async_reqs(
            tags=[*tags, PING], timeout_seconds=timeout_seconds, mark_healthy=True
        )
        return [self._received(one) for one in arrived.result_or_errors]

    def _received(self, one: Any) -> Answer:
        if one.tag == PING:
            self._pinged.discard(one.actor_id)
        if not one.ok:
            self.ready.discard(one.actor_id)
            return Answer(worker=one.actor_id, tag=one.tag, error=cast(Exception, one.get()))
        if one.tag == PING:
            self.ready.add(one.actor_id)
        return Answer(worker=one.actor_id, tag=one.tag, value=one.get())

    def restart(self, worker: int) -> None:
        """Kill its process, whatever it is doing; Ray starts another, which is ready when it answers a ping."""
        self.ready.discard(worker)
        ray.kill(self.actor(worker), no_restart=False)
        self.manager.set_actor_state(worker, healthy=False)

    def close(self) -> None:
        """Let ready workers close what they have, for as long as there is patience, then end all. Can be done twice."""
        if self.ready:
            self.manager.foreach_actor(
                PooledActor.close, remote_actor_ids=sorted(self.ready), timeout_seconds=CLOSE_TIMEOUT_SECONDS
            )
            self.ready.clear()
        self.manager.clear()
