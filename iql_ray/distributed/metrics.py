"""What Prometheus sees of runs and searches: gauges of numbers that are measured anyway, set when they are recorded.

Ray's agent on every node exports them with `ray_` before their names, as long as the process that sets them lives.
Nothing is measured here, and nothing is kept: the curves are in the run's record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.util.metrics import Gauge

RUN_TAGS = ("run", "experiment")
OF_METRICS = {
    "iql_ray_updates_per_second": ("time/updates_per_second", "Updates of all learners together."),
    "iql_ray_env_steps_per_second": ("time/env_steps_per_second", "Environment steps of fine-tuning."),
    "iql_ray_staleness_updates": ("online/staleness_mean", "Updates since the policy that made the newest steps."),
    "iql_ray_pending_env_steps": ("online/num_pending_steps", "Steps asked of rollout workers, and not arrived."),
    "iql_ray_lost_env_steps": ("online/num_lost_steps", "Steps under way at workers that died, in all."),
    "iql_ray_env_failures": ("online/num_env_failures", "Failures of environments, in all."),
    "iql_ray_replay_rows": ("online/replay_rows", "Rows that replay holds."),
}
"""Gauges of a run that are points of its curves, by the curve."""
OF_RUN = {
    "iql_ray_step": "Updates, or environment steps of fine-tuning, of the newest point of the curves.",
    "iql_ray_recorded_timestamp_seconds": "When the newest point of the curves was recorded.",
    "iql_ray_evaluation_return": "Mean return of the newest evaluation.",
    "iql_ray_spool_bytes": "What the tracking store has not taken yet, on the disk.",
}
OF_SEARCH = {
    "iql_ray_trials": "Trials of a search, over or not.",
    "iql_ray_trials_finished": "Trials of a search that are over.",
    "iql_ray_trials_running": "Trials of a search that are at work.",
    "iql_ray_best_score": "The best score of a search so far.",
    "iql_ray_spool_bytes": OF_RUN["iql_ray_spool_bytes"],
}
NAMES = (*OF_METRICS, *OF_RUN, *(name for name in OF_SEARCH if name not in OF_RUN))

Evaluate = Callable[..., dict[str, Any]]


class Gauges:
    """Those of one run or search, each made when it is first set.

    Args:
        described: what each is, by name.
        run_id: its label `run`.
        experiment: its label `experiment`.
    """

    def __init__(self, described: Mapping[str, str], run_id: str, experiment: str) -> None:
        self._described = described
        self._tags = {"run": run_id, "experiment": experiment}
        self._gauges: dict[str, Gauge] = {}

    def set(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if name not in self._gauges:
                self._gauges[name] = Gauge(name, self._described[name], RUN_TAGS)
                self._gauges[name].set_default_tags(self._tags)
            self._gauges[name].set(value)


class RunGauges:
    """The gauges of a run of training or fine-tuning."""

    def __init__(self, run_id: str, experiment: str) -> None:
        described = {**{name: text for name, (_, text) in OF_METRICS.items()}, **OF_RUN}
        self._gauges = Gauges(described, run_id, experiment)

    def record(self, step: int, metrics: Mapping[str, float], spool_bytes: int) -> None:
        """A point of the curves; what it does not speak of stays as it was."""
        points = {name: metrics[curve] for name, (curve, _) in OF_METRICS.items() if curve in metrics}
        self._gauges.set(
            {
                **points,
                "iql_ray_step": step,
                "iql_ray_recorded_timestamp_seconds": time.time(),
                "iql_ray_spool_bytes": spool_bytes,
            }
        )

    def follow(self, evaluate: Evaluate | None) -> Evaluate | None:
        """The same evaluation, whose mean return is shown too; one from data alone has none."""
        if evaluate is None:
            return None

        def shown(policy: Any) -> dict[str, Any]:
            result = evaluate(policy)
            if "return_mean" in result:
                self._gauges.set({"iql_ray_evaluation_return": result["return_mean"]})
            return result

        return shown


class SearchGauges:
    """The gauges of a search."""

    def __init__(self, run_id: str, experiment: str) -> None:
        self._gauges = Gauges(OF_SEARCH, run_id, experiment)

    def show(
        self, *, num_trials: int, num_finished: int, num_running: int, best_score: float | None, spool_bytes: int
    ) -> None:
        """Where the search stands; `spool_bytes` of its own run."""
        self._gauges.set(
            {
                "iql_ray_trials": num_trials,
                "iql_ray_trials_finished": num_finished,
                "iql_ray_trials_running": num_running,
                "iql_ray_spool_bytes": spool_bytes,
                **({} if best_score is None else {"iql_ray_best_score": best_score}),
            }
        )
