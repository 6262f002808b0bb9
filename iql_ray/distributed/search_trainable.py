"""A trial of a search inside its Ray actor: what Tune starts, steps and uses again for the next trial."""

from __future__ import annotations

import fcntl
import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch
from ray import ObjectRef, tune

from iql_ray import config as config_io
from iql_ray.data.transforms import Transforms
from iql_ray.distributed.learner import RunPlan, begin_learning
from iql_ray.distributed.rollout_workers import RolloutWorker
from iql_ray.distributed.search_config import SearchConfig, hashable
from iql_ray.distributed.search_generations import first_settings
from iql_ray.distributed.search_plan import TrialSpec, Varied, data_key, trial_config
from iql_ray.distributed.search_trial import TRIALS_FOLDER, Judge, TrialPlan, TrialRun
from iql_ray.distributed.shards import learner_rows
from iql_ray.distributed.stopping import listener_to
from iql_ray.evaluation.episodes import split_into_groups
from iql_ray.evaluation.fqe import fitted_evaluation
from iql_ray.evaluation.statistics import summarize
from iql_ray.experience import Spaces
from iql_ray.policy import Policy
from iql_ray.seeding import child_seed

SPEC_KEY = "trial"
"""In Tune's configuration of a trial, where its members are listed and not sampled."""


@dataclass(frozen=True, kw_only=True)
class TrialData:
    """What trials of the same varied settings learn from."""

    shard: list[ObjectRef]
    """One reference, in a list so that Ray leaves it unresolved: one copy a node, for all trials."""
    transforms: Transforms


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """What all trials of a search have in common."""

    config: SearchConfig
    search_folder: Path
    spaces: Spaces
    dataset_digest: str
    device: str
    critics_from: Path | None
    read_spec: Callable[[Mapping[str, Any]], TrialSpec]
    """From Tune's configuration of a trial."""
    data: Mapping[Varied, TrialData]
    """By the varied settings that it depends on (`data_key`)."""
    stop_order: Any
    """Actor handle of a `StopOrder`."""


def trial_folder(search_folder: Path, spec: TrialSpec) -> Path:
    return search_folder / TRIALS_FOLDER / spec.name


def listed_spec(values: Mapping[str, Any]) -> TrialSpec:
    """The trial that stands in Tune's configuration as it is."""
    spec = config_io.from_dict(TrialSpec, {**values[SPEC_KEY], "varied": ()})
    return replace(spec, varied=tuple((path, hashable(value)) for path, value in values[SPEC_KEY]["varied"]))


def trial_plan(settings: TrialSettings, spec: TrialSpec) -> TrialPlan:
    """What a trial is to do."""
    config = settings.config
    is_after = config.extract == "after"
    train = replace(trial_config(config, spec), num_updates=config.policy_updates)
    run = RunPlan(
        config=train,
        run_folder=trial_folder(settings.search_folder, spec),
        spaces=settings.spaces,
        transforms=settings.data[data_key(spec.varied)].transforms,
        dataset_digest=settings.dataset_digest,
        device=settings.device,
    )
    return TrialPlan(
        run=run,
        search_folder=settings.search_folder,
        critic_updates=config.num_updates if is_after and settings.critics_from is None else None,
        critics_from=settings.critics_from,
        rungs=config.rungs,
        generations=config.generations,
        setting_names=tuple(first_settings(spec)) if config.generations else (),
        reduction_factor=config.reduction_factor,
        is_judged_on_the_way=config.evaluation_method == "rollouts",
    )


class RolloutJudge:
    """Scores policies by episodes, in this process, always the same ones."""

    def __init__(self, config: SearchConfig) -> None:
        assert config.env is not None
        self._config, self._environment = config, config.env
        self._worker = RolloutWorker(config.env)

    def __call__(self, policy: Policy, is_final: bool) -> dict[str, Any]:
        config = self._config
        name, num_episodes = "evaluation", config.num_eval_episodes
        if is_final:
            name, num_episodes = "final evaluation", config.num_final_episodes
        groups = split_into_groups(num_episodes, child_seed(config.seed, name))
        is_discounted = config.score == "discounted-return"
        discount = config.agent.discount if is_discounted else 1.0
        results = [result for group in groups for result in self._worker.run(policy, group, 0.0, discount)]
        summary = summarize(results, self._environment)
        if is_discounted:
            summary.pop("normalized_score", None)  # its reference is undiscounted
        return {**summary, "returns": [result.episode_return for result in results]}

    def close(self) -> None:
        self._worker.close()


def judge_of(config: SearchConfig) -> Judge:
    """By rollouts, or from data; all by the discount of the search, so that varied ones can be compared."""
    if config.evaluation_method == "rollouts":
        return RolloutJudge(config)
    seed = child_seed(config.seed, "evaluation")
    evaluate = fitted_evaluation(config.dataset, config.fqe, config.agent.discount, seed)
    return lambda policy, is_final: evaluate(policy)


class FolderLock:
    """One process trains in a folder at a time: Optuna may choose the same sample twice, side by side."""

    def __init__(self) -> None:
        self._file: IO[str] | None = None

    def take(self, folder: Path) -> None:
        """Wait for whoever has this folder; the one before is given back."""
        self.release()
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "lock").open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class TrialTrainable(tune.Trainable):
    """What Tune runs. It saves nothing through Tune: a trial's folder says where it stands."""

    def setup(self, config: dict[str, Any], settings: TrialSettings | None = None) -> None:
        assert settings is not None
        begin_learning(settings.config)
        for name in ("ray.tune", "ray.train"):  # of pbt they tell every pause
            logging.getLogger(name).setLevel(logging.WARNING)
        self._settings = settings
        self._judge = judge_of(settings.config)
        self._lock = FolderLock()
        self._stop = listener_to(settings.stop_order)
        self._trial: TrialRun | None = None
        self._begin(config)

    def step(self) -> dict[str, Any]:
        assert self._trial is not None
        with self._stop:
            state = self._trial.advance()
            while not (self._trial.is_done or self._is_heard(state) or self._stop.is_set()):
                state = self._trial.advance()
        if self._stop.is_set():
            threading.Event().wait()  # all is saved, and this process is about to be killed; Tune is told nothing more
        if self._trial.is_waiting:
            self._lock.release()  # another process may go on with it
            state["score"] = state["score"] if math.isfinite(state["score"]) else -math.inf  # the worst, not unknown
        return {**state, "done": self._trial.is_done}

    def _is_heard(self, state: Mapping[str, Any]) -> bool:
        """Whether Tune is to know: Optuna takes no report without a score, and pbt decides where all wait for it."""
        assert self._trial is not None
        if self._settings.config.scheduler == "pbt":
            return self._trial.is_waiting
        return self._settings.config.search != "optuna" or state["score"] is not None

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: the trial's folder has it. Tune's pbt takes over only what has been saved through it."""
        assert self._trial is not None
        return {"num_updates": self._trial.state()["num_updates"]}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: where the trial stands was read from its folder when it began."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next trial in this process: it has imported everything, and holds its environments."""
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        self._stop.close()
        self._lock.release()
        if isinstance(self._judge, RolloutJudge):
            self._judge.close()

    def _begin(self, config: dict[str, Any]) -> None:
        settings = self._settings
        spec = settings.read_spec(config)
        self._trial = None  # its rows and networks go before the next one's come
        self._lock.take(trial_folder(settings.search_folder, spec))
        device = torch.device("cuda" if settings.device == "cuda" else "cpu")
        rows = learner_rows(settings.data[data_key(spec.varied)].shard[0], device)
        self._trial = TrialRun(trial_plan(settings, spec), rows, self._judge, self._stop.is_set)
