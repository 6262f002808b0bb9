"""Population based training (PBT, Jaderberg et al. 2017) by files that every trial sees.

    generations/000001000.json   after so many updates: which trials took another one over, and their settings then
    TRIAL/checkpoints/000001000  where each trial stood then: what is taken over

Tune's scheduler decides; it is written here before any trial acts on it, so that a trial that is started again, by Tune
or after a crash, finds what it is to go on from. Trains nothing, imports no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iql_ray import config as config_io
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.search_plan import TrialSpec
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.evaluation.schedules import Change, Settings, TrialSchedule


def generation_file(search_folder: Path, num_updates: int) -> Path:
    return search_folder / "generations" / f"{num_updates:09d}.json"


def write_generation(search_folder: Path, num_updates: int, changes: Mapping[str, Change]) -> None:
    """What was decided, of the trials that change; whole or not at all."""
    file = generation_file(search_folder, num_updates)
    file.parent.mkdir(parents=True, exist_ok=True)
    config_io.write_json({trial: config_io.to_dict(change) for trial, change in changes.items()}, file)


def read_generation(search_folder: Path, num_updates: int) -> dict[str, Change] | None:
    """What was decided then, by trial; None where nothing is yet."""
    file = generation_file(search_folder, num_updates)
    if not file.is_file():
        return None
    return {trial: _change(values) for trial, values in json.loads(file.read_text()).items()}


def first_undecided(search_folder: Path, generations: Sequence[int]) -> int | None:
    """The number of updates after which something is to be decided next; None: all is."""
    return next((each for each in generations if not generation_file(search_folder, each).is_file()), None)


def schedules(config: SearchConfig, search_folder: Path, specs: Sequence[TrialSpec]) -> dict[str, TrialSchedule]:
    """What was decided so far, by trial."""
    decided = [read_generation(search_folder, num_updates) or {} for num_updates in config.generations]
    return {
        spec.name: TrialSchedule(
            first=first_settings(spec), changes=tuple(each[spec.name] for each in decided if spec.name in each)
        )
        for spec in specs
    }


def first_settings(spec: TrialSpec) -> dict[str, Any]:
    """Of a trial that is one configuration."""
    (expectile,), (inverse_temperature,) = spec.expectiles, spec.inverse_temperatures
    return spec.configuration(expectile, inverse_temperature).settings


def with_settings(config: TrainConfig, settings: Settings) -> TrainConfig:
    """A trial's training configuration with other settings."""
    varied = {path: value for path, value in settings.items() if "." in path}
    return config_io.override(
        config,
        {
            **varied,
            "expectiles": (settings["expectile"],),
            "inverse_temperatures": (settings["inverse_temperature"],),
        },
    )


def settings_of(config: TrainConfig, names: Sequence[str]) -> dict[str, Any]:
    """Of a trial's training configuration, those that `names` says."""
    flat = config_io.flatten(config_io.to_dict(config))
    (expectile,), (inverse_temperature,) = config.expectiles, config.inverse_temperatures
    own = {"expectile": expectile, "inverse_temperature": inverse_temperature}
    return {name: own[name] if name in own else flat[name] for name in names}


def _change(values: Mapping[str, Any]) -> Change:
    return Change(**values)
