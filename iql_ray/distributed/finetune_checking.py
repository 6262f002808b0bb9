"""What can be refused before fine-tuning starts anything, and where it begins: needs no Ray, and imports none."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iql_ray import checkpoint, run_folder
from iql_ray import config as config_io
from iql_ray.algorithm.iql_config import Member
from iql_ray.data.locations import absolute
from iql_ray.data.transforms import Transforms
from iql_ray.distributed.checking import CheckedRun, check_settings, resumed_config
from iql_ray.distributed.data_memory import groups_per_window
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.envs.action_limits import Limiter
from iql_ray.envs.catalog import check_spaces, environment_spaces

NEVER = 2**62
"""An interval in updates that no run reaches: online, what is due goes by environment steps."""


@dataclass(frozen=True, kw_only=True)
class CheckedFinetune:
    """Fine-tuning that nothing about its input speaks against."""

    config: FinetuneConfig
    """With everything that the run it goes on from says filled in, and absolute paths."""
    run: CheckedRun
    """Its learner's side: as of training with the same agent."""
    source: Path
    """The run that it goes on from."""
    num_source_updates: int
    """Of the checkpoint there."""
    member: Member


def check_finetune(asked: FinetuneConfig) -> CheckedFinetune:
    """Refuse what cannot work before anything is spent or written.

    Raises:
        ValueError: names what was got, what was expected, and the fix.
    """
    resumed_folder = None
    if asked.resume is not None:
        resumed_folder = run_folder.find_run(asked.storage, asked.resume)
        _require_finetune(resumed_folder)
        asked = resumed_config(asked, resumed_folder)
    asked = replace(asked, resume=None, storage=os.path.abspath(asked.storage))
    own = _own_state(resumed_folder) if resumed_folder else None
    if own is not None:
        source, num_updates, state, index = Path(str(asked.run)), int(asked.checkpoint), own, 0
    else:
        source, num_updates = _source(asked)
        state, index = _state(source, num_updates), asked.member
    trained = config_io.from_dict(TrainConfig, state.configuration)
    member = _member(trained, index, source)
    asked = _filled_in(asked, trained, source, num_updates)
    config = learner_config(asked, trained, member)
    run = check_settings(config, resumed_folder)
    run = replace(run, transforms=config_io.from_dict(Transforms, state.transforms))
    if asked.eval_env is not None:
        spaces = environment_spaces(str(asked.env))
        check_spaces(str(asked.env), spaces, run.manifest.spaces, f"dataset {asked.dataset}")
    _check_action_limits(asked, run)
    _check_held(asked, run)
    return CheckedFinetune(config=asked, run=run, source=source, num_source_updates=num_updates, member=member)


def learner_config(asked: FinetuneConfig, trained: TrainConfig, member: Member) -> TrainConfig:
    """What the learners of fine-tuning are told: the member's own agent, with a constant rate.

    Args:
        trained: of the run that it goes on from.
    """
    agent = replace(
        trained.agent,
        policy_schedule="constant",
        critic=member.critic,
        expectile=_or(asked.expectile, member.expectile),
        inverse_temperature=_or(asked.inverse_temperature, member.inverse_temperature),
        learning_rate=_or(asked.learning_rate, trained.agent.learning_rate),
    )
    shared = {
        name: getattr(asked, name)
        for name in (
            "seed", "num_updates", "num_learners", "device", "cpus_per_learner", "learner_resources",
            "rollout_resources", "compile", "precision", "memory_limit", "num_checkpoints_to_keep",
            "num_eval_episodes", "num_eval_workers", "max_failures",
            "storage", "tracking_uri", "experiment", "run_name", "register_as",
        )
    }  # fmt: skip
    return TrainConfig(
        dataset=str(asked.dataset),
        env=asked.eval_env or asked.env,
        agent=agent,
        transforms=trained.transforms,
        top_episode_share=trained.top_episode_share,
        batch_size=_or(asked.batch_size, trained.batch_size),
        log_interval_updates=NEVER,
        checkpoint_interval_updates=NEVER,
        eval_interval_updates=NEVER,
        **shared,
    )


def _require_finetune(folder: Path) -> None:
    if "num_env_steps" not in config_io.read(folder / run_folder.CONFIG_FILE):
        raise ValueError(
            f"--resume {folder.name}: it is no fine-tuning; finish it with iql-ray train --resume, or go on from it "
            f"online with --run {folder.name}"
        )


def _source(asked: FinetuneConfig) -> tuple[Path, int]:
    """The run to go on from, and which of its checkpoints."""
    if asked.model is not None:
        from iql_ray.tracking.model_run import run_of_model
        from iql_ray.tracking.store import resolve_tracking_uri

        found = run_of_model(asked.model, resolve_tracking_uri(asked.tracking_uri, asked.storage), asked.storage)
        return found.folder, found.num_updates
    folder = run_folder.find_run(asked.storage, str(asked.run))
    which: Any = asked.checkpoint
    if which == "best" and run_folder.best_update(folder) is None:
        which = "last"
    if which not in ("best", "last"):
        if not which.isdigit():
            raise ValueError(f"checkpoint = {which}: expected best, last or the number of its updates")
        which = int(which)
    return folder, int(checkpoint.policy_folder(folder, which).parent.name)


def _state(source: Path, num_updates: int) -> checkpoint.CheckpointState:
    """What the checkpoint that it goes on from says of itself."""
    try:
        return checkpoint.read_state(run_folder.checkpoint_folder(source, num_updates))
    except checkpoint.CorruptCheckpointError as error:
        raise ValueError(f"{error}; choose another with --checkpoint") from error


def _own_state(resumed_folder: Path) -> checkpoint.CheckpointState | None:
    """What the newest whole checkpoint of interrupted fine-tuning says: it then needs the run it began from no more."""
    for update_count in reversed(run_folder.checkpoint_updates(resumed_folder)):
        with contextlib.suppress(checkpoint.CorruptCheckpointError):
            return checkpoint.read_state(run_folder.checkpoint_folder(resumed_folder, update_count))
    return None


def _member(trained: TrainConfig, index: int, source: Path) -> Member:
    members = trained.population.members()
    if index >= len(members):
        raise ValueError(f"member = {index}: run {source.name} has the members 0 to {len(members) - 1}")
    if members[index].critic != "implicit":
        raise ValueError(
            f"run {source.name} has a critic of kind {members[index].critic}; online, implicit ones alone are learned"
        )
    return members[index]


def _filled_in(asked: FinetuneConfig, trained: TrainConfig, source: Path, num_updates: int) -> FinetuneConfig:
    """The same, with what the run says where nothing was said."""
    env = asked.env or trained.env
    if env is None:
        raise ValueError(f"run {source.name} does not say in which environment it acts; name one with --env")
    dataset = absolute(asked.dataset or trained.dataset)
    # The checkpoint by its number: a resumed run must not meet another best one.
    return replace(asked, env=env, dataset=dataset, run=str(source), model=None, checkpoint=str(num_updates))


def _check_action_limits(asked: FinetuneConfig, run: CheckedRun) -> None:
    if asked.action_limits:
        Limiter(asked.action_limits, run.manifest.spaces, f"environment '{asked.env}'")
    if asked.epsilon > 0 and not run.manifest.spaces.is_discrete:
        raise ValueError(
            f"epsilon = {asked.epsilon}: is of discrete actions; '{asked.env}' has a box, explored by --temperature"
        )


def _check_held(asked: FinetuneConfig, run: CheckedRun) -> None:
    """Refuse a uniform draw over offline rows that are streamed."""
    if asked.without_offline_data or asked.online_fraction is not None or run.config.memory_limit is None:
        return
    if groups_per_window(run.config, run.manifest, run.num_rows, run.config.memory_limit) is not None:
        raise ValueError(held_refusal(run.config))


def held_refusal(config: TrainConfig) -> str:
    """Why a dataset that is streamed cannot be drawn from uniformly with what is collected."""
    return (
        f"dataset {config.dataset} does not fit the memory limit of {config.memory_limit} GiB and would be streamed, "
        "and streamed rows cannot be drawn uniformly together with online ones; give --online-fraction, or raise "
        "--memory-limit"
    )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
