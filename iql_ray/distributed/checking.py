"""What can be refused before a training run starts anything: needs no Ray, and imports none."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from iql_ray import checkpoint, config, run_folder
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.critics import check_objectives
from iql_ray.data.locations import absolute
from iql_ray.data.prepared import Manifest, read_manifest
from iql_ray.data.selection import check_enough_rows, count_selected
from iql_ray.data.transforms import Transforms
from iql_ray.distributed.compiling import check_compile
from iql_ray.distributed.data_memory import groups_per_window
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.envs.catalog import check_spaces, environment_spaces
from iql_ray.tracking.names import check_model_name
from iql_ray.tracking.store import resolve_tracking_uri

AnyConfig = TypeVar("AnyConfig", bound=TrainConfig)
Resumable = TypeVar("Resumable", bound=TrainConfig | FinetuneConfig)

SAID_ANEW = ("storage", "tracking_uri", "learner_resources", "rollout_resources", "dry_run")
"""What may be given with --resume, for the run may go on elsewhere."""

MIN_EPISODES = 2
"""Fitted Q evaluation holds one out and learns from the other."""


@dataclass(frozen=True, kw_only=True)
class CheckedRun:
    """A run that nothing about its input speaks against."""

    config: TrainConfig
    manifest: Manifest
    transforms: Transforms
    num_rows: int
    """That the run learns from."""
    tracking_uri: str
    resumed_folder: Path | None
    resumed_device: str | None
    """Where the interrupted run computed; it goes on there."""
    warnings: tuple[str, ...] = ()
    """What the user should read before it begins."""


def check(asked: TrainConfig) -> CheckedRun:
    """Refuse what cannot work before anything is spent or written; needs no Ray.

    Args:
        asked: the configuration; with `resume` set, the run's own replaces it.

    Raises:
        ValueError: names what was got, what was expected, and the fix.
    """
    asked, resumed_folder = taken_up(asked)
    _check_one_policy(asked)
    return check_settings(asked, resumed_folder)


def taken_up(asked: AnyConfig) -> tuple[AnyConfig, Path | None]:
    """The configuration to go by, with absolute paths, and the folder of the run that it finishes, if any.

    Raises:
        ValueError: no such run, or settings that it cannot be given.
    """
    resumed_folder = None
    if asked.resume is not None:
        resumed_folder = run_folder.find_run(asked.storage, asked.resume)
        asked = resumed_config(asked, resumed_folder)
    # Absolute, for other processes and later commands have other working directories.
    dataset, storage = absolute(asked.dataset), os.path.abspath(asked.storage)
    return replace(asked, dataset=dataset, storage=storage, resume=None), resumed_folder


def check_settings(asked: TrainConfig, resumed_folder: Path | None = None) -> CheckedRun:
    """As `check`, of one policy or many; paths are absolute.

    Args:
        resumed_folder: of the run that is to be finished.
    """
    manifest = read_manifest(asked.dataset)
    check_objectives(asked.population, manifest.spaces)
    num_rows, _ = count_selected(asked.dataset, manifest, asked.selection)
    check_enough_rows(asked.dataset, manifest, asked.selection, num_rows, asked.num_learners)
    check_compile(asked)
    if asked.memory_limit is not None:
        groups_per_window(asked, manifest, num_rows, asked.memory_limit)
    if asked.env is not None:
        check_spaces(asked.env, environment_spaces(asked.env), manifest.spaces, f"dataset {asked.dataset}")
    asked, warnings = _with_enough_episodes(asked, manifest)
    resumed_device = _check_resumable(asked, resumed_folder, manifest) if resumed_folder else None
    if asked.register_as is not None:
        check_model_name(asked.register_as)
    return CheckedRun(
        config=asked,
        manifest=manifest,
        transforms=Transforms.fit(asked.transforms, manifest),
        num_rows=num_rows,
        tracking_uri=resolve_tracking_uri(asked.tracking_uri, asked.storage),
        resumed_folder=resumed_folder,
        resumed_device=resumed_device,
        warnings=warnings,
    )


def _check_one_policy(asked: TrainConfig) -> None:
    """Refuse what a run does with one policy alone, where it is to have many."""
    num_members = asked.population.num_policies
    if num_members == 1:
        return
    asked_for = {"env": asked.env, "register_as": asked.register_as}
    if asked.eval_method == "fqe":
        asked_for["eval_method"] = "fqe"
    for name, value in asked_for.items():
        if value is not None:
            raise ValueError(
                f"{name} = {value} with {num_members} members: iql-ray train trains a grid from data alone; leave it "
                "out, and evaluate its members afterwards: iql-ray evaluate --run RUN --member K; or let iql-ray "
                "search find the best of them"
            )


def resumed_config(asked: Resumable, folder: Path) -> Resumable:
    """The interrupted run's (or search's) own configuration; where it runs and its record goes may be said anew.

    Raises:
        ValueError: another setting was given too, which could not be obeyed.
    """
    kind = type(asked)
    anew: dict[str, Any] = {name: getattr(asked, name) for name in SAID_ANEW}
    say_nothing = kind(resume=asked.resume, **anew)
    if asked != say_nothing:
        given = config.flatten(config.to_dict(asked))
        silent = config.flatten(config.to_dict(say_nothing))
        changed = sorted(name for name, value in given.items() if value != silent[name])
        raise ValueError(
            f"--resume {asked.resume} finishes the run as it was configured, so {', '.join(changed)} cannot be given; "
            "drop them, or start a new run"
        )
    saved = config.load(kind, folder / run_folder.CONFIG_FILE)
    chosen = {name: value or getattr(saved, name) for name, value in anew.items()}
    return replace(saved, **chosen)


def _with_enough_episodes(asked: TrainConfig, manifest: Manifest) -> tuple[TrainConfig, tuple[str, ...]]:
    """The same run; but without evaluation, and a warning, where there is nothing to judge by and nobody asked for it.

    Raises:
        ValueError: evaluation from data was asked for.
    """
    num_episodes = manifest.num_episodes
    if asked.evaluation_method != "fqe" or num_episodes >= MIN_EPISODES:
        return asked, ()
    found = f"dataset {asked.dataset} has {num_episodes} episode{'s' * (num_episodes != 1)}"
    if asked.eval_method == "fqe":
        raise ValueError(
            f"eval_method = fqe: {found}; fitted Q evaluation learns from some and estimates on others, and needs at "
            f"least {MIN_EPISODES}; use --eval-method none, or --env"
        )
    warning = f"{found}, too few to judge checkpoints by: the run hands on its last one"
    return replace(asked, eval_method="none"), (warning,)


def _check_resumable(asked: TrainConfig, folder: Path, manifest: Manifest) -> str | None:
    """Refuse what the learners would of the newest whole checkpoint; which ones are damaged is theirs to say.

    Returns:
        The kind of device that it was trained on; None before the first checkpoint.
    """
    saved = checkpoint.load_newest(folder, warn=lambda message: None)
    if saved is None:
        return None
    checkpoint.check_belongs(saved, folder, manifest.digest, asked.num_learners, config.to_dict(asked))
    IQLAgent(asked.agent, manifest.spaces, population=asked.population).check_fits(saved.tensors)
    return saved.device
