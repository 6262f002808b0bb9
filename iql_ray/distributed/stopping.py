"""Ending a run that is told to end: SIGTERM, which `ray job stop` sends, becomes a last checkpoint and a record that
says KILLED.

    driver    SIGTERM -> Termination -> StopOrder.stop: waits while workers save -> SystemExit in the main thread
    workers   StopListener: asks the order now and then on a thread of its own; loops look at `is_set`

What is saved, and where loops may end, is the matter of the loops. A second SIGTERM waits for nothing.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

SAVE_SECONDS = 45.0
"""How long a driver waits for its workers' last checkpoints; what stops jobs should wait longer than that."""
POLL_SECONDS = 1.0
MAX_POLLS_PER_SECOND = 200.0
"""Of all workers of a run together; a thousand of them ask more rarely."""
SILENCE_SECONDS = 5.0
"""After which a worker that has not asked is gone, and not waited for."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a worker is told when it asks."""

    is_ordered: bool
    next_poll_seconds: float


class StopOrder:
    """Whether a run's workers are to save and end, and which of them still have something to save. Thread-safe."""

    def __init__(self) -> None:
        self._is_ordered = False
        self._busy: dict[str, tuple[bool, float]] = {}
        self._news = threading.Condition()

    def heartbeat(self, worker: str, is_busy: bool) -> Answer:
        """A worker asks, and says whether it has something that is not saved."""
        with self._news:
            self._busy[worker] = is_busy, time.monotonic()
            self._news.notify_all()
            seconds = max(POLL_SECONDS, len(self._busy) / MAX_POLLS_PER_SECOND)
            return Answer(is_ordered=self._is_ordered, next_poll_seconds=seconds)

    def stop(self, timeout_seconds: float = SAVE_SECONDS) -> bool:
        """Have all workers save and end; returns when none is busy any more, or in time; whether none is."""
        deadline = time.monotonic() + timeout_seconds
        with self._news:
            self._is_ordered = True
            while self._waits_for() and time.monotonic() < deadline:
                self._news.wait(min(timeout_seconds, POLL_SECONDS))  # of a worker that died there is no news
            return not self._waits_for()

    def _waits_for(self) -> list[str]:
        now, silence = time.monotonic(), SILENCE_SECONDS + len(self._busy) / MAX_POLLS_PER_SECOND
        return [worker for worker, (is_busy, heard) in self._busy.items() if is_busy and now - heard < silence]


class StopListener:
    """A worker's ear: `is_set` becomes true when the run is to end. Used as a context, for as long as it is busy.

    Args:
        heartbeat: `StopOrder.heartbeat`, wherever the order is; one that fails is the end of listening.
    """

    def __init__(self, heartbeat: Callable[[str, bool], Answer]) -> None:
        self._heartbeat, self._worker = heartbeat, uuid.uuid4().hex
        self._is_set = self._is_busy = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="stop listener", daemon=True)
        self._thread.start()

    def is_set(self) -> bool:
        return self._is_set

    def close(self) -> None:
        """Listen no more."""
        self._over.set()
        self._thread.join()

    def __enter__(self) -> StopListener:
        self._is_busy = True
        return self

    def __exit__(self, *raised: object) -> None:
        """All is saved; somebody may be waiting for just that."""
        self._is_busy = False
        if self._is_set:
            self._ask()

    def _listen(self) -> None:
        seconds: float | None = 0.0
        while seconds is not None and not self._over.wait(seconds):
            seconds = self._ask()

    def _ask(self) -> float | None:
        """Seconds to the next time; None where nobody answers."""
        try:
            answer = self._heartbeat(self._worker, self._is_busy)
        except RayError:
            return None
        self._is_set = self._is_set or answer.is_ordered
        return answer.next_poll_seconds


def listener_to(order: Any) -> StopListener:
    """The ear for a `StopOrder` that lives in an actor."""
    return StopListener(lambda worker, is_busy: ray.get(order.heartbeat.remote(worker, is_busy)))


def never() -> bool:
    """Stands for a listener where nobody can order anything."""
    return False


def start_order() -> Any:
    """A `StopOrder` in an actor, on the node of the process that calls."""
    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(StopOrder).options(num_cpus=0, max_concurrency=8, scheduling_strategy=here).remote()


class Termination:
    """What SIGTERM does to this process: ends it by SystemExit, and before that has a run saved where one is going."""

    def __init__(self) -> None:
        self._save: Callable[[], object] | None = None
        self._is_asked = False
        self._lock = threading.Lock()
        self.is_ending = False
        """Whether SystemExit was raised, or is about to be."""

    @contextlib.contextmanager
    def saves(self, save: Callable[[], object], how_to_go_on: str) -> Iterator[None]:
        """While the block runs, SIGTERM first has `save` called, beside it.

        Args:
            how_to_go_on: a note for the SystemExit.
        """
        self._save = save
        try:
            yield
            if self._is_asked:
                raise SystemExit(signal.SIGTERM)
        except SystemExit as stopped:
            stopped.add_note(how_to_go_on)
            raise
        finally:
            with self._lock:
                self._save, self.is_ending = None, self.is_ending or self._is_asked

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between two of its instructions."""
        if self.is_ending:
            return  # the record is being closed
        if self._save is None or self._is_asked:
            self.is_ending = True
            raise SystemExit(number)
        self._is_asked = True
        threading.Thread(target=self._save_and_end, args=[self._save], name="stopping", daemon=True).start()

    def _save_and_end(self, save: Callable[[], object]) -> None:
        with contextlib.suppress(RayError, GetTimeoutError):  # the checkpoint before is there, and it ends anyway
            save()
        with self._lock:
            if not self.is_ending:  # the main thread still waits for the workers
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


@contextlib.contextmanager
def terminated() -> Iterator[Termination]:
    """SIGTERM as `Termination` has it, for the length of the block; left alone where this is not the main thread."""
    termination = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return
    before = signal.signal(signal.SIGTERM, termination.on_signal)
    try:
        yield termination
    except SystemExit as stopped:
        if termination.is_ending:
            stopped.code = signal.SIGTERM  # raised while Ray waits for something, it comes out with the code 1
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
