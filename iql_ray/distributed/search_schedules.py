"""The trials of population based training as a leaderboard ranks them: by what they ended as, with their number.

Reads what was decided and measured; trains nothing, imports no Ray.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iql_ray import run_folder
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.search_generations import schedules
from iql_ray.distributed.search_plan import TrialSpec, planned_trials
from iql_ray.distributed.search_trial import HISTORY_FILE, TRIALS_FOLDER
from iql_ray.evaluation.leaderboard import Configuration
from iql_ray.evaluation.schedules import TRIAL, Stretch, TrialCourse, lineage


def ended(config: SearchConfig, folder: Path, specs: Sequence[TrialSpec]) -> dict[str, Configuration]:
    """By trial: its last settings, and its number."""
    found = {}
    for number, (name, schedule) in enumerate(schedules(config, folder, specs).items(), start=1):
        last = dict(schedule.settings_after(config.num_updates))
        expectile, inverse_temperature = last.pop("expectile"), last.pop("inverse_temperature")
        varied = (*last.items(), (TRIAL, number))
        found[name] = Configuration(expectile=expectile, inverse_temperature=inverse_temperature, varied=varied)
    return found


def numbered_lineage(
    config: SearchConfig, folder: Path, spec: TrialSpec, specs: Sequence[TrialSpec]
) -> tuple[Stretch, ...]:
    """What the agents of a trial have gone through; trials by their numbers."""
    numbers = {each.name: str(number) for number, each in enumerate(specs, start=1)}
    stretches = lineage(schedules(config, folder, specs), spec.name)
    return tuple(replace(each, trial=numbers[each.trial]) for each in stretches)


def lineage_of(config: SearchConfig, folder: Path, spec: TrialSpec) -> tuple[Stretch, ...]:
    """As `numbered_lineage`, among all trials of the search."""
    return numbered_lineage(config, folder, spec, planned_trials(config, 1))


def trained_alone(configuration: Configuration) -> Configuration:
    """Without the trial's number, which is no setting."""
    return replace(configuration, varied=tuple(each for each in configuration.varied if each[0] != TRIAL))


def trial_courses(config: SearchConfig, folder: Path) -> list[TrialCourse]:
    """Of all trials, by their numbers, for a picture."""
    specs = planned_trials(config, 1)
    found = schedules(config, folder, specs)
    return [
        TrialCourse(name=str(number), points=_scores_along(folder, spec), schedule=found[spec.name])
        for number, spec in enumerate(specs, start=1)
    ]


def _scores_along(folder: Path, spec: TrialSpec) -> list[tuple[int, float]]:
    lines = run_folder.read_lines(folder / TRIALS_FOLDER / spec.name / HISTORY_FILE)
    return [
        (line["num_updates"], statistics.fmean(each["result"]["return_mean"] for each in line["members"]))
        for line in lines
        if line["kind"] == "evaluation"
    ]
