"""The monitor's actor: the process in which a run's record and its rollout workers are opened, on the driver's node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from iql_ray.data.prepared import Manifest
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.metrics import RunGauges
from iql_ray.distributed.monitor import SERVER_TIMEOUT_SECONDS, Evaluate, PolicyModel, RunMonitor
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

EMBEDDED_TIMEOUT_SECONDS = 600.0
"""How long for the embedded store, which is only ever busy."""


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
