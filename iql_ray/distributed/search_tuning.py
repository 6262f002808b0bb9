"""A search on Ray Tune: what Tune is told of its trials, and what is heard of them.

Tune places trials, starts them again after a failure and asks Optuna for the next one. It saves and logs nothing that
is read again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from iql_ray import config as config_io
from iql_ray import run_folder
from iql_ray.distributed.metrics import SearchGauges
from iql_ray.distributed.run_roles import trial_role
from iql_ray.distributed.search_config import Axis, Range, SearchConfig
from iql_ray.distributed.search_pbt import Generations
from iql_ray.distributed.search_plan import TrialSpec, sampled_axes
from iql_ray.distributed.search_record import SearchRecord
from iql_ray.distributed.search_trainable import SPEC_KEY, TrialSettings, TrialTrainable
from iql_ray.seeding import child_seed_32
from iql_ray.tracking.spool import bytes_waiting

TUNE_FOLDER = "tune"
SAMPLES_FILE = "samples.jsonl"
"""What Optuna has chosen so far."""
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # curves are in the trials' own folders
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the search as it ends any command
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # nothing is restored from what Tune saves of itself
    "RAY_AIR_NEW_OUTPUT": "0",  # the other one greets even where it is told to be quiet
}


@dataclass(frozen=True, kw_only=True)
class SearchProgress:
    """Where a search stands, for whoever watches it."""

    num_trials: int
    num_finished: int
    running: dict[str, dict[str, Any]]
    """By trial: what it last reported."""
    best_score: float | None
    messages: tuple[str, ...]
    """Everything that trials have had to say so far."""


Show = Callable[[SearchProgress], None]


def tuned(settings: TrialSettings, waiting: Sequence[TrialSpec], device: str, follower: Follower) -> tune.ResultGrid:
    """Run these trials, or those that Optuna chooses.

    Args:
        device: cpu or cuda.
    """
    config, folder = settings.config, settings.search_folder
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    each = trial_role(config, device, 1).each
    resources = {name.lower() if name in ("CPU", "GPU") else name: amount for name, amount in each.items()}
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(TrialTrainable, settings=settings), resources),
        param_space=_param_space(config, waiting),
        tune_config=_tune_config(config, folder),
        run_config=_run_config(config, folder, follower),
    ).fit()


def _param_space(config: SearchConfig, waiting: Sequence[TrialSpec]) -> dict[str, Any]:
    if config.search != "optuna":
        return {SPEC_KEY: tune.grid_search([config_io.to_dict(spec) for spec in waiting])}
    return {name: _domain(axis) for name, axis in sampled_axes(config).items()}


def _domain(axis: Axis) -> Any:
    if not isinstance(axis, Range):
        return tune.choice(list(axis))
    return (tune.loguniform if axis.is_logarithmic else tune.uniform)(axis.low, axis.high)


def _tune_config(config: SearchConfig, folder: Path) -> tune.TuneConfig:
    common: dict[str, Any] = {"max_concurrent_trials": config.max_concurrent_trials, "reuse_actors": True}
    if config.scheduler == "pbt":
        return tune.TuneConfig(scheduler=Generations(config, folder), **common)
    if config.search != "optuna":
        return tune.TuneConfig(**common)
    from ray.tune.search.optuna import OptunaSearch

    # Samples of before come first again: those that are over say so at once, the others go on.
    earlier = run_folder.read_lines(folder / SAMPLES_FILE)
    searcher = OptunaSearch(
        metric="score",
        mode="max",
        seed=child_seed_32(config.seed, "search", len(earlier)),  # else new samples would be the first ones again
        points_to_evaluate=earlier or None,
    )
    return tune.TuneConfig(search_alg=searcher, num_samples=config.num_samples, metric="score", mode="max", **common)


def _run_config(config: SearchConfig, folder: Path, follower: Follower) -> tune.RunConfig:
    return tune.RunConfig(
        name=str(len(list((folder / TUNE_FOLDER).glob("*")))),
        storage_path=str(folder / TUNE_FOLDER),
        failure_config=tune.FailureConfig(max_failures=config.max_failures),
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        callbacks=[follower],
        verbose=0,
    )


class Follower(tune.Callback):
    """Hears from Tune of trials, and tells the record and whoever watches."""

    def __init__(
        self, record: SearchRecord, settings: TrialSettings, num_trials: int, num_finished: int, show: Show
    ) -> None:
        self.finished: list[TrialSpec] = []
        self._record, self._settings, self._show = record, settings, show
        self._gauges = SearchGauges(record.run_id, settings.config.experiment)
        self._num_trials, self._num_before = num_trials, num_finished
        self._running: dict[str, dict[str, Any]] = {}
        self._best: float | None = None
        self._messages: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune saves its callbacks with a state of its own, from which nothing is restored."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self._settings.config.search == "optuna":
            values = {name: trial.config[name] for name in sampled_axes(self._settings.config)}
            file = self._record.folder / SAMPLES_FILE
            if values not in run_folder.read_lines(file):
                run_folder.append_line(file, values)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        spec = self._settings.read_spec(trial.config)
        self._record.follow(spec)
        self._running[spec.name] = result
        self._messages += [message for message in result["messages"] if message not in self._messages]
        score = result.get("score")
        if score is not None:
            self._best = score if self._best is None else max(self._best, score)
        self._tell()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        spec = self._settings.read_spec(trial.config)
        self._record.finish(spec)
        self._running.pop(spec.name, None)
        self.finished.append(spec)
        self._tell()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._running.pop(self._settings.read_spec(trial.config).name, None)

    def _tell(self) -> None:
        num_finished = self._num_before + len(self.finished)
        self._gauges.show(
            num_trials=self._num_trials,
            num_finished=num_finished,
            num_running=len(self._running),
            best_score=self._best,
            spool_bytes=bytes_waiting(self._record.folder),
        )
        self._show(
            SearchProgress(
                num_trials=self._num_trials,
                num_finished=num_finished,
                running=dict(self._running),
                best_score=self._best,
                messages=tuple(self._messages),
            )
        )
