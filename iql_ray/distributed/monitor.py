"""The monitor of a run: keeps its record and evaluates its checkpoints while the learners go on.

It is the run's only writer to tracking. Plain Python: its process and its rollout workers are `monitor_actor.py`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from iql_ray import checkpoint, run_folder
from iql_ray.policy import Policy
from iql_ray.tracking.runs import FinalStatus, RunLogger

Evaluate = Callable[[Policy], dict[str, Any]]
"""From a policy to what `summarize` says of its episodes, or `fqe_summary` of its value."""

SERVER_TIMEOUT_SECONDS = 60.0
"""How long the end of a run waits for a tracking server, which may be away."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands, for whoever watches it."""

    step: int
    """Updates, online environment steps."""
    metrics: dict[str, float]
    evaluation: dict[str, Any] | None
    messages: tuple[str, ...]
    """Everything the run has had to say so far."""


@dataclass(frozen=True, kw_only=True)
class PolicyModel:
    """The policy that a run hands on."""

    policy_folder: Path
    update_count: int
    register_as: str | None
    tags: dict[str, str]
    example_observations: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """What is kept of a run beyond its curves and its model."""

    artifacts: tuple[Path, ...] = ()
    """In the run's folder."""
    tags: dict[str, str] = field(default_factory=dict)
    """Of the run and of its model."""
    result: dict[str, Any] = field(default_factory=dict)
    """For whoever asked for the run, as plain JSON types."""


class RunMonitor:
    """Records one run and evaluates its checkpoints, in order, on a thread of its own.

    Args:
        logger: of the run, just started or reopened.
        evaluate: None where no checkpoint is evaluated.
    """

    def __init__(self, logger: RunLogger, evaluate: Evaluate | None) -> None:
        self.folder = logger.folder
        self._logger = logger
        self._evaluate = evaluate
        self._step = 0
        self._metrics: dict[str, float] = {}
        self._messages: list[str] = []
        self._error: Exception | None = None
        self._damaged: dict[int, int] = {}
        self._is_ending = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._evaluate_pending, name="evaluation", daemon=True)
        if evaluate is not None:
            self._thread.start()

    def record(self, step: int, metrics: dict[str, float]) -> None:
        """A point of the training curves; on the disk when this returns."""
        self._logger.log_metrics(step, metrics)
        self._step, self._metrics = step, metrics

    def checkpoint_saved(self, update_count: int, step: int) -> None:
        """A checkpoint is there; it is evaluated if it says so."""
        self._step = max(self._step, step)
        self._logger.set_tags({"iql_ray.last_checkpoint": run_folder.checkpoint_folder(self.folder, update_count)})
        with self._news:
            self._news.notify_all()

    def warn(self, message: str) -> None:
        """Something that the user should read, and that does not end the run."""
        self._messages.append(message)

    def progress(self) -> Progress:
        evaluations = run_folder.read_evaluations(self.folder)
        return Progress(
            step=self._step,
            metrics=self._metrics,
            evaluation=evaluations[max(evaluations)] if evaluations else None,
            messages=tuple(self._messages),
        )

    def wait_for_evaluation(self, update_count: int) -> dict[str, Any]:
        """The evaluation of a checkpoint that asks for one, once it is done.

        Raises:
            RuntimeError: an evaluation failed, or the checkpoint is damaged.
        """
        with self._news:
            while update_count not in (evaluations := run_folder.read_evaluations(self.folder)):
                self._raise_error()
                if update_count in self._damaged:
                    raise RuntimeError(f"checkpoint {update_count} of {self.folder} was damaged before its evaluation")
                self._news.wait(timeout=1.0)
        return evaluations[update_count]

    def finish_evaluations(self) -> None:
        """Wait until every checkpoint that asks for it is evaluated.

        Raises:
            RuntimeError: an evaluation failed; training and its checkpoints are not touched by that.
        """
        with self._news:
            self._is_ending = True
            self._news.notify_all()
        if self._evaluate is not None:
            self._thread.join()
        self._raise_error()

    def keep(self, conclusion: Conclusion) -> None:
        """Have a conclusion recorded."""
        for path in conclusion.artifacts:
            self._logger.log_artifact(path)
        self._logger.set_tags(conclusion.tags)

    def close(
        self, status: FinalStatus, model: PolicyModel | None = None, timeout_seconds: float = SERVER_TIMEOUT_SECONDS
    ) -> dict[str, Any]:
        """End the run's record.

        Args:
            status: how the run ended.
            model: the policy to log as the run's model, and to register.
            timeout_seconds: how long to wait for the store to take what is left.

        Returns:
            `model_uri` and `model_version`, None where there is none or the store has not taken it yet, and
            `is_tracking_complete`; False means that `iql-ray sync` has something left to send.
        """
        if model is not None:
            self._logger.log_model(
                model.policy_folder,
                step=model.update_count,
                register_as=model.register_as,
                metrics=run_folder.read_evaluations(self.folder).get(model.update_count),
                tags=model.tags,
                example_observations=model.example_observations,
            )
        is_complete = self._logger.close(status, timeout_seconds)
        if not is_complete:
            self.warn(
                f"the tracking store has not taken everything yet; send the rest: iql-ray sync --run {self.folder}"
            )
        registered = next(iter(self._logger.registered().values()), {}) if model is not None else {}
        return {
            "model_uri": registered.get("model_uri"),
            "model_version": registered.get("version"),
            "is_tracking_complete": is_complete,
        }

    def _raise_error(self) -> None:
        if self._error is not None:
            raise RuntimeError(f"evaluation failed: {self._error}") from self._error

    def _evaluate_pending(self) -> None:
        """The evaluation thread: the oldest pending checkpoint first, until the run ends and none is left."""
        try:
            while True:
                pending = [update for update in checkpoint.pending_evaluations(self.folder) if self._is_new(update)]
                if pending:
                    self._evaluate_one(pending[0])
                    continue
                with self._news:
                    if self._is_ending:
                        return
                    self._news.wait(timeout=1.0)
        except Exception as error:
            self.warn(f"evaluation failed, training goes on: {error}")
            with self._news:
                self._error = error
                self._news.notify_all()

    def _is_new(self, update_count: int) -> bool:
        """Not one that was found damaged and is still the same."""
        return update_count not in self._damaged or self._damaged[update_count] != self._written_at(update_count)

    def _written_at(self, update_count: int) -> int:
        return run_folder.checkpoint_folder(self.folder, update_count).stat().st_ctime_ns

    def _evaluate_one(self, update_count: int) -> None:
        assert self._evaluate is not None
        try:
            policy, _ = checkpoint.load_policy(self.folder, update_count)
        except checkpoint.CorruptCheckpointError as error:
            self._damaged[update_count] = self._written_at(update_count)
            self.warn(f"{error}; it is evaluated if it is written anew")
            return
        state = checkpoint.read_state(run_folder.checkpoint_folder(self.folder, update_count))
        online = {"num_env_steps": state.step} if state.online else {}
        result = {"num_updates": update_count, **online, **self._evaluate(policy)}
        # In this order: a crash in between repeats the evaluation, whose points are then recognised as logged.
        self._logger.log_metrics(state.step, evaluation_metrics(result))
        with self._news:
            run_folder.append_evaluation(self.folder, result)
            self._news.notify_all()
        best = run_folder.checkpoint_folder(self.folder, run_folder.best_update(self.folder) or 0)
        self._logger.set_tags({"iql_ray.best_checkpoint": best})


def evaluation_metrics(result: dict[str, Any]) -> dict[str, float]:
    """An evaluation as curves: its numbers under `eval/`, an interval as two of them, warnings as their number."""
    numbers = {name: value for name, value in result.items() if isinstance(value, int | float)}
    for name in (name for name in result if name.endswith("_ci")):
        numbers[f"{name}_low"], numbers[f"{name}_high"] = result[name]
    if "warnings" in result:
        numbers["num_warnings"] = len(result["warnings"])
    return {f"eval/{name}": float(value) for name, value in numbers.items() if name != "num_updates"}
