"""A training run from its configuration to its result, on Ray Train's worker group.

Ray Train places the learners, starts their process group and restarts them after a failure; where a run stands is
read from its own folder, so that a killed learner, a killed driver and a corrupt checkpoint are one case.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import ray
import torch
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from iql_ray import checkpoint, run_folder
from iql_ray.data.lineage import lineage_tags
from iql_ray.data.prepared import shard_paths
from iql_ray.distributed.checking import CheckedRun
from iql_ray.distributed.cluster_room import RoomWatch, Say, alive_nodes, await_room, may_grow
from iql_ray.distributed.compiling import resolved_compile
from iql_ray.distributed.data_memory import default_memory_limit, groups_per_window
from iql_ray.distributed.finetune_checking import held_refusal
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.job import job_tags
from iql_ray.distributed.learner import RunPlan, run_learner
from iql_ray.distributed.monitor import Conclusion, PolicyModel, Progress
from iql_ray.distributed.monitor_actor import RunSetup, start_monitor
from iql_ray.distributed.process_group import NodeAddressConfig
from iql_ray.distributed.roles import Node, Role
from iql_ray.distributed.run_roles import cpus_of_workers, learner_role, least_roles, train_roles
from iql_ray.distributed.shards import learner_shards
from iql_ray.distributed.shared_folder import check_shared
from iql_ray.distributed.stopping import terminated
from iql_ray.distributed.train_config import TrainConfig

Show = Callable[[Progress], None]

TRAINER_FOLDER = "trainer"
"""Within the run's folder: what Ray Train writes of its own."""
PROGRESS_INTERVAL_SECONDS = 1.0
NUM_EXAMPLE_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the learners of a run execute, and what the run is recorded as."""

    execute: Callable[[dict[str, Any]], None] = run_learner
    settings: dict[str, Any] = field(default_factory=dict)
    """For `execute`, beside the plan, the shards and the monitor."""
    recorded_config: TrainConfig | FinetuneConfig | None = None
    """What the run's folder and record say it was asked for; None: the learners' configuration."""
    has_data: bool = True
    """Whether learners take rows of the dataset."""
    num_other_workers: int = 0
    """Beside those that evaluate."""
    roles: Callable[[str, Sequence[Node]], Sequence[Role]] | None = None
    """From device and nodes; by default the roles of training."""
    needs_held_data: bool = False
    """Whether these must not be streamed."""
    conclude: Callable[[Path], Conclusion] = lambda folder: Conclusion()
    """From the run's folder, once all is evaluated, to what is to be kept of it."""


def train(
    run: CheckedRun, show: Show = lambda progress: None, work: Work | None = None, say: Say = lambda line: None
) -> dict[str, Any]:
    """Train as configured, or finish an interrupted run; Ray must be initialised.

    Args:
        run: what `check` made of the configuration.
        show: called about every second with where the run stands.
        work: of the learners; by default they train offline.
        say: called with a line now and then while the cluster has no room for the run, and may grow.

    Returns:
        run_id, run_folder, num_updates, model_uri, model_selected_by (rollouts or fqe, or last where nothing was
        evaluated), the evaluation of the model, ...; plain JSON types.

    Raises:
        ValueError: the cluster does not have what the configuration asks for.
        RuntimeError: learners failed more often than `max_failures`, or an evaluation failed.
    """
    work = work or Work()
    run, device, window_groups, roles = _decided(run, work, say)
    num_workers = run.config.num_eval_workers + work.num_other_workers
    num_cpus = cpus_of_workers(run.config, device, alive_nodes(), num_workers)
    setup = _setup(run, work, num_cpus)
    check_shared(run.config.storage, run.config.dataset, learner_role(run.config, device).each)
    monitor = start_monitor()
    with terminated() as termination, _ended(monitor):
        opened = monitor.open.remote(setup)  # takes seconds; the data is packed meanwhile
        shards = _shards(run, window_groups) if work.has_data else [ray.put(None)] * run.config.num_learners
        run_id, folder = ray.get(opened)
        monitor.keep.remote(Conclusion(tags=job_tags()))
        _warn(monitor, run.warnings)
        with _watched(monitor, show, RoomWatch(roles, say)):
            plan = _plan(run, folder, device, num_cpus)
            with termination.saves(lambda: ray.get(monitor.stop.remote()), _how_to_go_on(setup, run_id)):
                _fit(plan, work.execute, {**work.settings, "plan": plan, "shards": shards, "monitor": monitor})
            ray.get(monitor.finish_evaluations.remote())
            checkpoint.prune(folder, run.config.num_checkpoints_to_keep)
            conclusion = work.conclude(folder)
            ray.get(monitor.keep.remote(conclusion))
            model = _model(run, folder, conclusion.tags)
            evaluation = _evaluation_of(folder, model)
            _warn(monitor, [each["message"] for each in evaluation.get("warnings", ())])
            ended: dict[str, Any] = ray.get(monitor.end.remote("FINISHED", model))
    return {
        "run_id": run_id,
        "run_folder": str(folder),
        "num_updates": run.config.num_updates,
        "dataset_digest": run.manifest.digest,
        "memory_limit": run.config.memory_limit,
        "is_streamed": window_groups is not None,
        "is_compiled": run.config.is_compiled,
        "data_return_mean": run.manifest.episode_returns.mean,
        **ended,
        "model_update": model.update_count if model else None,
        "model_selected_by": _selected_by(model),
        **{name: value for name, value in evaluation.items() if name != "num_updates"},
        **conclusion.result,
    }


def _setup(run: CheckedRun, work: Work, num_cpus_per_worker: float) -> RunSetup:
    return RunSetup(
        config=run.config,
        recorded_config=_recorded_config(run, work),
        manifest=run.manifest,
        tracking_uri=run.tracking_uri,
        resumed_folder=run.resumed_folder,
        num_cpus_per_eval_worker=num_cpus_per_worker,
    )


def _decided(run: CheckedRun, work: Work, say: Say) -> tuple[CheckedRun, str, int | None, list[Role]]:
    """The run with what the cluster decides of it, its kind of device, the row groups of a window where its data
    are streamed, and what it needs of the cluster at the least.

    It is saved with the run, so that rows are held or streamed and updates compiled alike wherever it is resumed.
    """
    device, roles_of = device_of(run), work.roles or partial(train_roles, run.config)
    nodes = alive_nodes()
    roles = least_roles(roles_of(device, nodes), nodes)
    await_room(roles, say)
    memory_limit = run.config.memory_limit or default_memory_limit(run.config, device, ray.nodes())
    compiled = resolved_compile(run.config, device)
    run = replace(run, config=replace(run.config, memory_limit=memory_limit, compile=compiled))
    window_groups = groups_per_window(run.config, run.manifest, run.num_rows, memory_limit) if work.has_data else None
    if work.needs_held_data and window_groups is not None:
        raise ValueError(held_refusal(run.config))
    return run, device, window_groups, roles


def _recorded_config(run: CheckedRun, work: Work) -> TrainConfig | FinetuneConfig:
    if work.recorded_config is None:
        return run.config
    return replace(work.recorded_config, memory_limit=run.config.memory_limit, compile=run.config.compile)


def device_of(run: CheckedRun) -> str:
    """Which kind of device the cluster has for every learner; a resumed run stays on its own kind.

    Raises:
        ValueError: cuda was asked for, and this cluster will never have it.
    """
    asked, num_gpus = run.config, _num_gpus()
    device = run.resumed_device or asked.device
    if device == "cuda" and num_gpus < asked.num_learners and not may_grow():
        raise ValueError(
            f"device cuda needs {asked.num_learners} GPUs, the cluster has {num_gpus} for torch {torch.__version__}; "
            "use --device cpu (a run that began on GPUs continues on GPUs)"
        )
    if device == "auto":
        return "cuda" if num_gpus >= asked.num_learners else "cpu"
    return device


def _num_gpus() -> int:
    """Cards that learners can use: Ray counts those of this node too where this node's torch cannot use one."""
    here, *others = alive_nodes()
    nodes = others if torch.version.cuda is None else [here, *others]
    return int(sum(node.total.get("GPU", 0) for node in nodes))


def _shards(run: CheckedRun, window_groups: int | None) -> list[ray.ObjectRef]:
    asked = run.config
    return learner_shards(
        asked.dataset, run.manifest, run.transforms, asked.num_learners, asked.selection, window_groups
    )


def _plan(run: CheckedRun, folder: Path, device: str, num_cpus_per_worker: float) -> RunPlan:
    return RunPlan(
        config=run.config,
        run_folder=folder,
        spaces=run.manifest.spaces,
        transforms=run.transforms,
        dataset_digest=run.manifest.digest,
        device=device,
        num_cpus_per_worker=num_cpus_per_worker,
    )


def _fit(plan: RunPlan, execute: Callable[[dict[str, Any]], None], settings: dict[str, Any]) -> None:
    """Let the learners run to the end of the run."""
    asked, folder, is_cuda = plan.config, plan.run_folder, plan.device == "cuda"
    trainer = TorchTrainer(
        execute,
        train_loop_config=settings,
        torch_config=NodeAddressConfig(backend="nccl" if is_cuda else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=asked.num_learners,
            use_gpu=is_cuda,
            resources_per_worker=dict(learner_role(asked, plan.device).each),
        ),
        run_config=RunConfig(
            name=f"{folder.name}-{len(list((folder / TRAINER_FOLDER).glob('*')))}",
            storage_path=str(folder / TRAINER_FOLDER),
            failure_config=FailureConfig(max_failures=asked.max_failures),
        ),
    )
    trainer.fit()


def _how_to_go_on(setup: RunSetup, run_id: str) -> str:
    command = "finetune" if isinstance(setup.recorded_config, FinetuneConfig) else "train"
    return f"to go on: iql-ray {command} --resume {run_id} --storage {setup.recorded_config.storage}"


def _model(run: CheckedRun, folder: Path, tags: dict[str, str]) -> PolicyModel | None:
    """The policy that the run hands on: the best by evaluation, the last where nothing was evaluated; a grid of
    members has none before they are evaluated."""
    if run.config.population.num_policies > 1:
        return None
    which = "last" if run_folder.best_update(folder) is None else "best"
    policy_folder = checkpoint.policy_folder(folder, which)
    return PolicyModel(
        policy_folder=policy_folder,
        update_count=int(policy_folder.parent.name),
        register_as=run.config.register_as,
        tags={
            **lineage_tags(run.manifest),
            "environment": str(run.config.env),
            "checkpoint": which,
            "selected_by": str(run.config.evaluation_method) if which == "best" else "last",
            **tags,
        },
        example_observations=_example_observations(run.config.dataset),
    )


def _selected_by(model: PolicyModel | None) -> str | None:
    return model.tags["selected_by"] if model else None


def _evaluation_of(folder: Path, model: PolicyModel | None) -> dict[str, Any]:
    """What was found of the policy that the run hands on; nothing where nothing was evaluated."""
    return run_folder.read_evaluations(folder).get(model.update_count, {}) if model else {}


def _warn(monitor: Any, messages: Sequence[str]) -> None:
    ray.get([monitor.warn.remote(message) for message in messages])


def _example_observations(dataset: str) -> np.ndarray:
    with pyarrow.parquet.ParquetFile(shard_paths(dataset)[0]) as shard:
        rows = next(shard.iter_batches(NUM_EXAMPLE_ROWS, columns=["observations"]))
    return np.array(rows.column("observations").to_pylist(), np.float32)


@contextlib.contextmanager
def _ended(monitor: Any) -> Iterator[None]:
    """Whatever happens inside, the run's record says how it ended."""
    try:
        yield
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"
        with contextlib.suppress(RayActorError):  # the monitor itself may be what died; `error` is what happened
            ray.get(monitor.end.remote(status))
        raise
    finally:
        ray.kill(monitor)


@contextlib.contextmanager
def _watched(monitor: Any, show: Show, room: RoomWatch) -> Iterator[None]:
    """Show where the run stands until the block ends, and once more then; say where it has lost its place."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(PROGRESS_INTERVAL_SECONDS):
            show(ray.get(monitor.progress.remote()))
            room.look(time.monotonic())

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        show(ray.get(monitor.progress.remote()))
