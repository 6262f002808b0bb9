"""What can be refused before a search starts anything, and what it amounts to: needs no Ray, and imports none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from iql_ray import checkpoint, run_folder
from iql_ray import config as config_io
from iql_ray.data.prepared import read_manifest
from iql_ray.distributed.checking import CheckedRun, check_settings, taken_up
from iql_ray.distributed.search_config import Range, SearchConfig
from iql_ray.distributed.search_plan import TrialSpec, planned_trials, sampled_axes, sampled_spec, trial_config
from iql_ray.distributed.train_config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class CheckedSearch:
    """A search that nothing about its input speaks against."""

    config: SearchConfig
    run: CheckedRun
    """Of the settings that are not varied."""
    resumed_folder: Path | None
    critics_from: Path | None
    """The run that policies are extracted from."""


def check_search(asked: SearchConfig) -> CheckedSearch:
    """Refuse what cannot work before anything is spent or written.

    Raises:
        ValueError: names what was got, what was expected, and the fix.
    """
    is_dry_run = asked.dry_run
    if asked.resume is not None:
        _require_search(run_folder.find_run(asked.storage, asked.resume))
    asked, resumed_folder = taken_up(replace(asked, dry_run=False))
    storage = asked.storage if resumed_folder is None else str(resumed_folder.parent)  # where its members' runs are
    asked = replace(asked, dry_run=is_dry_run, storage=storage)
    if asked.search == "optuna":
        _require_optuna()
    critics_from = None
    if asked.critics_from is not None:
        critics_from = run_folder.find_run(asked.storage, asked.critics_from)
        asked = replace(_with_critics_of(asked, critics_from), critics_from=str(critics_from))
    specs = planned_trials(asked, members_per_trial=1) if asked.search != "optuna" else _corners(asked)
    if asked.scheduler == "pbt" and len(specs) < 2:
        raise ValueError(
            f"scheduler = pbt over {len(specs)} trial: it takes two to take one over; give several --expectiles, "
            "--inverse-temperatures or values to --vary, or more --num-samples"
        )
    checked = {spec.varied: spec for spec in specs}
    run = check_settings(trial_config(asked, next(iter(checked.values()))))
    for spec in list(checked.values())[1:]:  # the environment is the same for all
        check_settings(replace(trial_config(asked, spec), env=None, eval_method="none"))
    if asked.register_as is not None:
        check_settings(replace(run.config, register_as=asked.register_as))
    return CheckedSearch(config=asked, run=run, resumed_folder=resumed_folder, critics_from=critics_from)


def _require_search(folder: Path) -> None:
    if "search" not in config_io.read(folder / run_folder.CONFIG_FILE):
        raise ValueError(f"--resume {folder.name}: it is no search, but a run; finish it with iql-ray train --resume")


def _require_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "search = optuna needs Optuna: pip install 'iql-ray[optuna]', or use --search random"
        ) from error


def _corners(config: SearchConfig) -> list[TrialSpec]:
    """Samples at the ends of every range, and of every choice."""
    axes = sampled_axes(config)
    ends = {name: (axis.low, axis.high) if isinstance(axis, Range) else axis for name, axis in axes.items()}
    longest = max(map(len, ends.values()))
    return [
        sampled_spec(config, {name: values[min(index, len(values) - 1)] for name, values in ends.items()})
        for index in range(longest)
    ]


def _with_critics_of(asked: SearchConfig, run: Path) -> SearchConfig:
    """The search over the critics of a run that is there: its seeds, expectiles, networks and transforms.

    Raises:
        ValueError: the run has no checkpoint, learned from other data, or has not the seeds and expectiles asked for.
    """
    trained = config_io.load(TrainConfig, run / run_folder.CONFIG_FILE)
    updates = run_folder.checkpoint_updates(run)
    if not updates:
        raise ValueError(f"critics_from = {run}: it has no checkpoint yet")
    digest = checkpoint.read_state(run_folder.checkpoint_folder(run, updates[-1])).dataset_digest
    if digest != (found := read_manifest(asked.dataset).digest):
        raise ValueError(
            f"critics_from = {run}: its critics learned from a dataset with digest {digest}, {asked.dataset} has "
            f"{found}; give the one that it was trained on"
        )
    there = trained.population
    if len(set(there.objectives)) > 1:
        raise ValueError(
            f"critics_from = {run}: its critics learn different things ({', '.join(there.objectives)}), and a search "
            "has one kind; give a run of one"
        )
    taken = replace(
        asked,
        agent=replace(trained.agent, inverse_temperature=asked.agent.inverse_temperature, critic=there.objectives[0]),
        transforms=trained.transforms,
        top_episode_share=trained.top_episode_share,
        seeds=asked.seeds or there.seeds,
        expectiles=asked.expectiles or there.expectiles,
    )
    for name in ("seeds", "expectiles"):
        missing = set(getattr(taken, name)) - set(getattr(there, name))
        if missing:
            raise ValueError(
                f"critics_from = {run}: it has no critics with {name} {', '.join(map(str, sorted(missing)))}; it has "
                f"{', '.join(map(str, getattr(there, name)))}"
            )
    return taken
