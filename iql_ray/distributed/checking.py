"""What can be refused before a training run starts anything: needs no Ray, and imports none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from iql_ray import checkpoint, config, run_folder
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.data.prepared import Manifest, read_manifest
from iql_ray.data.transforms import Transforms
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.envs.catalog import check_spaces, environment_spaces
from iql_ray.tracking.names import check_model_name
from iql_ray.tracking.store import resolve_tracking_uri


@dataclass(frozen=True, kw_only=True)
class CheckedRun:
    """A run that nothing about its input speaks against."""

    config: TrainConfig
    manifest: Manifest
    transforms: Transforms
    resumed_folder: Path | None


def check(asked: TrainConfig) -> CheckedRun:
    """Refuse what cannot work before anything is spent or written; needs no Ray.

    Args:
        asked: the configuration; with `resume` set, the run's own replaces it.

    Raises:
        ValueError: names what was got, what was expected, and the fix.
    """
    resumed_folder = None
    if asked.resume is not None:
        resumed_folder = run_folder.find_run(asked.storage, asked.resume)
        asked = resumed_config(asked, resumed_folder)
    manifest = read_manifest(asked.dataset)
    if manifest.spaces.is_discrete:
        raise ValueError(
            f"dataset {asked.dataset} has {manifest.spaces.num_actions} discrete actions; training needs box actions"
        )
    if manifest.num_rows < asked.num_learners:
        raise ValueError(
            f"dataset {asked.dataset} has {manifest.num_rows} rows for {asked.num_learners} learners; every learner "
            "needs one at least: lower --num-learners"
        )
    if asked.env is not None:
        check_spaces(asked.env, environment_spaces(asked.env), manifest.spaces, f"dataset {asked.dataset}")
    if resumed_folder is not None:
        _check_resumable(asked, resumed_folder, manifest)
    resolve_tracking_uri(asked.tracking_uri, asked.storage)
    if asked.register_as is not None:
        check_model_name(asked.register_as)
    return CheckedRun(
        config=asked,
        manifest=manifest,
        transforms=Transforms.fit(asked.transforms, manifest),
        resumed_folder=resumed_folder,
    )


def resumed_config(asked: TrainConfig, folder: Path) -> TrainConfig:
    """The interrupted run's own configuration; where its record goes may be said anew.

    Raises:
        ValueError: another setting was given too, which could not be obeyed.
    """
    say_nothing = TrainConfig(resume=asked.resume, storage=asked.storage, tracking_uri=asked.tracking_uri)
    if asked != say_nothing:
        given = config.flatten(config.to_dict(asked))
        silent = config.flatten(config.to_dict(say_nothing))
        changed = sorted(name for name, value in given.items() if value != silent[name])
        raise ValueError(
            f"--resume {asked.resume} finishes the run as it was configured, so {', '.join(changed)} cannot be given; "
            "drop them, or start a new run"
        )
    saved = config.load(TrainConfig, folder / run_folder.CONFIG_FILE)
    return replace(saved, storage=asked.storage, tracking_uri=asked.tracking_uri or saved.tracking_uri)


def _check_resumable(asked: TrainConfig, folder: Path, manifest: Manifest) -> None:
    """What the learners would refuse of the newest whole checkpoint; which ones are damaged is theirs to say."""
    saved = checkpoint.load_newest(folder, warn=lambda message: None)
    if saved is None:
        return
    checkpoint.check_belongs(saved, folder, manifest.digest, asked.num_learners)
    agent = IQLAgent(asked.agent, manifest.spaces, seed=asked.seed)
    agent.load(saved.tensors, saved.random_states[0], saved.update_count)
