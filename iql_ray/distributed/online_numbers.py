"""What fine-tuning says of its environments at each point of its curves, and in all."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from iql_ray.data.replay import ReplayRing
from iql_ray.experience import Collected, EpisodeResult


class OnlineNumbers:
    """Counts what is collected.

    Args:
        num_env_steps, num_updates: where counting begins, for rates.
        totals: of the run so far, as `totals` gave them.
    """

    def __init__(self, num_env_steps: int, num_updates: int, totals: dict[str, Any]) -> None:
        self.num_stale_steps: int = totals.get("num_stale_steps", 0)
        """Steps that were left out because their policy was too old."""
        self._num_failures: int = totals.get("num_env_failures", 0)
        self._num_episodes: int = totals.get("num_online_episodes", 0)
        self._max_staleness: int = totals.get("max_staleness", 0)
        self._num_lost_before: int = totals.get("num_lost_steps", 0)
        self._finished: list[EpisodeResult] = []
        self._staleness: list[np.ndarray] = []
        self._lap = num_env_steps, num_updates, time.perf_counter()

    def add(self, collected: Collected, num_updates: int) -> None:
        """Take note of what arrived after so many updates."""
        self._finished += collected.finished
        self._num_episodes += len(collected.finished)
        self._num_failures += len(collected.failures)
        if len(collected.experience):
            staleness = num_updates - collected.experience.policy_versions
            self._staleness.append(staleness)
            self._max_staleness = max(self._max_staleness, int(staleness.max()))

    def add_stale(self, collected: Collected) -> None:
        """Take note of what is left out."""
        self.num_stale_steps += len(collected.experience)

    def totals(self, num_lost_steps: int) -> dict[str, int]:
        """Of the whole run; lost are those that environments have made and nobody has received."""
        return {
            "num_online_episodes": self._num_episodes,
            "num_env_failures": self._num_failures,
            "num_stale_steps": self.num_stale_steps,
            "num_lost_steps": self._num_lost_before + num_lost_steps,
            "max_staleness": self._max_staleness,
        }

    def take(self, num_env_steps: int, num_updates: int, num_lost_steps: int, ring: ReplayRing) -> dict[str, float]:
        """A point of the curves: means since the last one, totals, and what replay holds.

        Returns:
            `online/...` and `time/...`; episodes' numbers only where one has ended.
        """
        numbers: dict[str, float] = {f"online/{name}": each for name, each in self.totals(num_lost_steps).items()}
        numbers |= {
            "online/num_updates": num_updates,
            "online/replay_rows": len(ring),
            "online/replay_age_mean": ring.mean_age(num_updates),
            **self._of_episodes(),
            **self._rates(num_env_steps, num_updates),
        }
        if self._staleness:
            numbers["online/staleness_mean"] = float(np.concatenate(self._staleness).mean())
        self._finished, self._staleness = [], []
        return numbers

    def _of_episodes(self) -> dict[str, float]:
        """With exploration noise."""
        if not self._finished:
            return {}
        numbers = {
            "online/episode_return": float(np.mean([each.episode_return for each in self._finished])),
            "online/episode_length": float(np.mean([each.length for each in self._finished])),
        }
        successes = [each.is_success for each in self._finished if each.is_success is not None]
        return {**numbers, "online/success_rate": float(np.mean(successes))} if successes else numbers

    def _rates(self, num_env_steps: int, num_updates: int) -> dict[str, float]:
        steps_before, updates_before, started = self._lap
        self._lap = num_env_steps, num_updates, time.perf_counter()
        seconds = self._lap[2] - started
        return {
            "time/env_steps_per_second": (num_env_steps - steps_before) / seconds,
            "time/updates_per_second": (num_updates - updates_before) / seconds,
        }
