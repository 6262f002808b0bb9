"""The monitor of a run: one actor that keeps its record and evaluates its checkpoints while the learners go on.

It is the run's only writer to tracking, and lives on the driver's node. `RunMonitor` is plain Python.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from iql_ray import checkpoint, run_folder
from iql_ray.data.prepared import Manifest
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.metrics import RunGauges
from iql_ray.distributed.recording import begin_record
from iql_ray.distributed.roles import parse_resources
from iql_ray.distributed.rollout_workers import RolloutWorkers
from iql_ray.distributed.stopping import Answer, StopOrder
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.envs.action_limits import NO_LIMITS
from iql_ray.evaluation.fqe import fitted_evaluation
from iql_ray.evaluation.statistics import summarize
from iql_ray.policy import Policy
from iql_ray.seeding import child_seed
from iql_ray.tracking.runs import FinalStatus, RunLogger
from iql_ray.tracking.spool import bytes_waiting
from iql_ray.tracking.store import is_embedded

Evaluate = Callable[[Policy], dict[str, Any]]
"""From a policy to what `summarize` says of its episodes, or `fqe_summary` of its value."""

SERVER_TIMEOUT_SECONDS = 60.0
"""How long the end of a run waits for a tracking server, which may be away."""
EMBEDDED_TIMEOUT_SECONDS = 600.0
"""How long for the embedded store, which is only ever busy."""


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


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """What the monitor's process needs to begin or go on with a run's record."""

    config: TrainConfig
    recorded_config: TrainConfig | FinetuneConfig
    """What the run was asked for."""
    manifest: Manifest
    tracking_uri: str
    resumed_folder: Path | None
    num_cpus_per_eval_worker: float


class RunMonitorActor(RunMonitor):
    """The monitor inside its actor: opens the run's record and its rollout workers there, passes on the order to end.

    It opens in a call of its own, before any other: what is refused then reaches the driver as the ValueError that it
    is, where a failing constructor would be a dead actor.
    """

    def __init__(self) -> None:
        self._order = StopOrder()
        self._workers: RolloutWorkers | None = None
        self._setup: RunSetup | None = None

    def open(self, setup: RunSetup) -> tuple[str, Path]:
        """Begin or go on with the run's record; its id and folder."""
        logger = _resume_record(setup) if setup.resumed_folder else _begin_record(setup)
        torch.set_num_threads(1)  # evaluation from data computes here
        self._gauges = RunGauges(logger.run_id, setup.recorded_config.experiment)
        super().__init__(logger, self._gauges.follow(self._evaluation(setup)))
        self._setup = setup
        return logger.run_id, logger.folder

    def record(self, step: int, metrics: dict[str, float]) -> None:
        super().record(step, metrics)
        self._gauges.record(step, metrics, bytes_waiting(self.folder))

    def end(self, status: FinalStatus, model: PolicyModel | None = None) -> dict[str, Any]:
        """Close workers and record; nothing where the record was never opened."""
        if self._workers is not None:
            self._workers.close()
        if self._setup is None:
            return {}
        is_here = is_embedded(self._setup.tracking_uri)
        return self.close(status, model, EMBEDDED_TIMEOUT_SECONDS if is_here else SERVER_TIMEOUT_SECONDS)

    def stop(self) -> bool:
        """As `StopOrder.stop`."""
        return self._order.stop()

    def heartbeat(self, worker: str, is_busy: bool) -> Answer:
        """As `StopOrder.heartbeat`."""
        return self._order.heartbeat(worker, is_busy)

    def _evaluation(self, setup: RunSetup) -> Evaluate | None:
        config = setup.config
        if config.evaluation_method == "fqe":
            seed = child_seed(config.seed, "evaluation")
            return fitted_evaluation(config.dataset, config.fqe, config.agent.discount, seed)
        if config.evaluation_method is None:
            return None
        environment_id, recorded = config.env, setup.recorded_config
        assert environment_id is not None
        limits = recorded.action_limits if isinstance(recorded, FinetuneConfig) else NO_LIMITS

        def evaluate(policy: Policy) -> dict[str, Any]:
            if self._workers is None:
                resources = parse_resources("rollout_resources", config.rollout_resources)
                self._workers = RolloutWorkers(
                    environment_id, config.num_eval_workers, setup.num_cpus_per_eval_worker, limits, resources
                )
            seed = child_seed(config.seed, "evaluation")
            return summarize(self._workers.evaluate(policy, config.num_eval_episodes, seed), environment_id)

        return evaluate


def _begin_record(setup: RunSetup) -> RunLogger:
    config = setup.recorded_config
    logger = RunLogger.start(
        storage=config.storage,
        experiment=config.experiment,
        tracking_uri=setup.tracking_uri,
        run_name=config.run_name,
    )
    told = replace(config, tracking_uri=None)  # it may hold a password, and the run's folder knows it anyway
    begin_record(logger, told, setup.manifest)
    return logger


def _resume_record(setup: RunSetup) -> RunLogger:
    assert setup.resumed_folder is not None
    return RunLogger.reopen(setup.resumed_folder, tracking_uri=setup.config.tracking_uri)


def start_monitor() -> Any:
    """The monitor's actor, on the node of the process that calls."""
    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
    actor_class = ray.remote(RunMonitorActor).options(num_cpus=0, max_concurrency=8, scheduling_strategy=here)
    return actor_class.remote()
