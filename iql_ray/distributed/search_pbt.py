"""Tune's population based training, made exact: what it decides depends on nothing but scores and the search's seed.

All trials meet at every generation; the worst quarter then takes over one of the best. What was decided is a file
before any trial goes on (`search_generations.py`), and what is needed for the next decision are the scores of that
generation alone: a search that was killed decides the rest as it would have.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray.tune.schedulers import PopulationBasedTraining

from iql_ray.distributed.search_config import Axis, Range, SearchConfig
from iql_ray.distributed.search_generations import first_settings, first_undecided, schedules, write_generation
from iql_ray.distributed.search_plan import draw, rounded, sampled_axes
from iql_ray.distributed.search_trainable import SPEC_KEY, listed_spec
from iql_ray.evaluation.leaderboard import by_size
from iql_ray.evaluation.schedules import Change
from iql_ray.seeding import child_seed


class Generations(PopulationBasedTraining):
    """The scheduler of one search, new or resumed."""

    def __init__(self, config: SearchConfig, search_folder: Path) -> None:
        self._search, self._folder = config, search_folder
        self._axes = changed_axes(config)
        self._specs: dict[str, Any] = {}
        self._waits_at: dict[str, int] = {}
        super().__init__(
            time_attr="num_updates",
            metric="score",
            mode="max",
            perturbation_interval=config.perturbation_interval,
            burn_in_period=first_undecided(search_folder, config.generations) or config.num_updates,
            hyperparam_mutations={name: mutation(axis) for name, axis in self._axes.items()},
            custom_explore_fn=self._within,
            log_config=False,  # search_generations has it
            synch=True,
        )

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """The settings that Tune is to change stand beside the trial's spec, as they are now."""
        spec = listed_spec(trial.config)
        schedule = schedules(self._search, self._folder, [spec])[spec.name]
        self._specs[trial.trial_id] = trial.config[SPEC_KEY]
        trial.config.update(schedule.settings_after(self._search.num_updates))
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Tune's decision, by chance that depends on the generation alone; written down once all have met."""
        num_updates = result["num_updates"]
        self._waits_at[trial.trial_id] = num_updates
        state = random.getstate()
        random.seed(child_seed(self._search.seed, "generation", num_updates))
        try:
            decision = super().on_trial_result(tune_controller, trial, result)
        finally:
            random.setstate(state)
        others = tune_controller.get_live_trials()
        if all(self._waits_at.get(each.trial_id, 0) >= num_updates for each in others):
            changes = dict(self._changes(tune_controller.get_trials(), num_updates))
            write_generation(self._folder, num_updates, changes)
        return decision

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Where all wait for one that has failed for good, any of them: it reports again, and what is left decides."""
        chosen = super().choose_trial_to_run(tune_controller)
        live = tune_controller.get_live_trials()
        if chosen is not None or not live or any(trial.status != "PAUSED" for trial in live):
            return chosen
        return min(live, key=lambda trial: trial.trial_id)

    def _changes(self, trials: list[Any], num_updates: int) -> Iterator[tuple[str, Change]]:
        """Of trials that have just been given another one's configuration; each is given its own spec back."""
        for trial in trials:
            own, taken = self._specs[trial.trial_id], trial.config[SPEC_KEY]
            if taken == own:
                continue
            spec, source = listed_spec({SPEC_KEY: own}), listed_spec({SPEC_KEY: taken}).name
            settings = {name: trial.config[name] for name in first_settings(spec)}
            trial.set_config({**trial.config, SPEC_KEY: own})
            yield spec.name, Change(num_updates=num_updates, source=source, settings=settings)

    def _within(self, settings: dict[str, Any]) -> dict[str, Any]:
        """As Tune has changed them, inside of their ranges."""
        bounded = {name: bounded_to(axis, settings[name]) for name, axis in self._axes.items()}
        return {**settings, **bounded}


def changed_axes(config: SearchConfig) -> dict[str, Axis]:
    """Settings that have more than one value."""
    return {name: axis for name, axis in sampled_axes(config).items() if isinstance(axis, Range) or len(axis) > 1}


def mutation(axis: Axis) -> list[Any] | Callable[[], Any]:
    """What Tune takes: neighbours in order, or where to draw anew from."""
    if not isinstance(axis, Range):
        return sorted(axis, key=by_size)
    return lambda: draw(axis, random.Random(random.getrandbits(64)))


def bounded_to(axis: Axis, value: Any) -> Any:
    """A number of a range, rounded as samples are."""
    return rounded(min(max(value, axis.low), axis.high)) if isinstance(axis, Range) else value
