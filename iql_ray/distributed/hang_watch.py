"""Finding workers that hang: those that have long been silent are asked, beside their work, what they are doing.

It kills nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.exceptions import RayError

from iql_ray.envs.collecting import Busy

SILENCE_SECONDS = 60.0
"""How long a worker may leave the question unanswered, at least: then one step of an environment holds its process.
Longer than Ray takes to find that a node is gone, of which no environment is guilty."""


@dataclass(frozen=True, kw_only=True)
class _Question:
    answer: Any
    asked: float


class HangWatch:
    """When each worker was last heard of.

    Args:
        timeout_seconds: how long one step of an environment may take; None: as long as it likes.
    """

    def __init__(self, timeout_seconds: float | None) -> None:
        self.timeout_seconds = float("inf") if timeout_seconds is None else timeout_seconds
        self._heard: dict[int, float] = {}
        self._questions: dict[int, _Question] = {}

    def hear(self, worker: int) -> None:
        """It has answered something."""
        self._heard[worker] = time.monotonic()
        self._questions.pop(worker, None)

    def forget(self, worker: int) -> None:
        """It is gone: its silence means nothing."""
        self._heard.pop(worker, None)
        self._questions.pop(worker, None)

    def hanging(self, actor: Callable[[int], Any]) -> dict[int, Busy | None]:
        """Workers that hang, by the step that takes too long; None where a worker does not answer at all.

        Args:
            actor: the handle of a worker, to ask it.
        """
        now = time.monotonic()
        silent = [worker for worker, heard in self._heard.items() if now - heard > self.timeout_seconds]
        for worker in silent:
            if worker not in self._questions:
                self._questions[worker] = _Question(answer=actor(worker).busy.remote(), asked=now)
        return {worker: doing for worker in silent if (doing := self._judge(worker, now)) != "at work"}

    def _judge(self, worker: int, now: float) -> Busy | Literal["at work"] | None:
        question = self._questions[worker]
        if not ray.wait([question.answer], timeout=0)[0]:
            is_patient = now - question.asked <= max(self.timeout_seconds, SILENCE_SECONDS)
            return "at work" if is_patient else None
        del self._questions[worker]
        try:
            busy: Busy | None = ray.get(question.answer)
        except RayError:  # it died meanwhile, which whoever waits for its work will see
            return "at work"
        if busy is not None and busy.seconds > self.timeout_seconds:
            return busy
        self._heard[worker] = now - (busy.seconds if busy else 0.0)
        return "at work"
