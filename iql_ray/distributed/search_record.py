"""The record of a search: one MLflow run of its own, and under it one for every member, though many shared a process.

    STORAGE/SEARCH/config.json      the search's configuration
    STORAGE/SEARCH/trials/TRIAL     where each trial stands (`search_trial.py`)
    STORAGE/SEARCH/members.jsonl    which run is whose, and which are over
    STORAGE/MEMBER/                 a member's own run: curves, configuration, its last checkpoint, its policy

A member's run is what `iql-ray train` would have left: it can be evaluated, trained on, extracted from, registered.
What trials write is sent from here, on one thread beside the search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from iql_ray import checkpoint, run_folder
from iql_ray import config as config_io
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import Member
from iql_ray.data.lineage import lineage_tags
from iql_ray.data.prepared import Manifest
from iql_ray.distributed.learner import export_policy
from iql_ray.distributed.members import load_agent
from iql_ray.distributed.monitor import evaluation_metrics
from iql_ray.distributed.recording import begin_record
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.search_plan import TrialSpec, member_config
from iql_ray.distributed.search_trainable import trial_folder
from iql_ray.distributed.search_trial import HISTORY_FILE
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.tracking.runs import FinalStatus, Pace, RunLogger

MEMBERS_FILE = "members.jsonl"
PARENT_TAG = "mlflow.parentRunId"
"""By this MLflow's pages show a run under another."""
CLOSE_SECONDS = 60.0
FINISHED_LINE, STARTED_LINE = "finished", "started"

MemberKey = tuple[str, int, float, float]
"""Trial, seed, expectile, inverse temperature."""


class SearchRecord:
    """The runs of one search.

    Args:
        logger: of the search's own run, just started or reopened.
    """

    def __init__(self, logger: RunLogger, config: SearchConfig, manifest: Manifest, tracking_uri: str) -> None:
        self.folder, self.run_id = logger.folder, logger.run_id
        self.parent = logger
        self._config, self._manifest, self._tracking_uri = config, manifest, tracking_uri
        self._storage = Path(config.storage)
        self._members: dict[MemberKey, RunLogger] = {}
        self._num_read: dict[str, int] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="search record")
        self._sent: list[Future[None]] = []
        lines = run_folder.read_lines(self.folder / MEMBERS_FILE)
        self.member_runs: dict[MemberKey, str] = {_key(line): line["run_id"] for line in lines}
        self._finished = {_key(line) for line in lines if line["event"] == FINISHED_LINE}

    def is_recorded(self, spec: TrialSpec) -> bool:
        """Whether every member of the trial has its finished run."""
        return all(_key_of(spec, member) in self._finished for member in _members(spec))

    def follow(self, spec: TrialSpec) -> None:
        """The trial has news: send them, soon."""
        self._soon(lambda: self._send_news(spec))

    def finish(self, spec: TrialSpec) -> None:
        """The trial is over: send what is left, and its members' policies, soon."""
        self._soon(lambda: self._finish(spec))

    def wait(self) -> None:
        """Until all that was asked for is done.

        Raises:
            Exception: of the first that failed.
        """
        for each in self._sent:
            each.result()
        self._sent.clear()

    def close(self, status: FinalStatus) -> bool:
        """End all runs that are not over, and those that a killed search began; whether the store has everything."""
        self._thread.shutdown(cancel_futures=status != "FINISHED")
        for key, run_id in self.member_runs.items():
            if key not in self._finished and key not in self._members:
                self._members[key] = RunLogger.reopen(self._storage / run_id, pace=Pace(sample_seconds=None))
        closed = [logger.close(status, CLOSE_SECONDS) for logger in (*self._members.values(), self.parent)]
        self._members.clear()
        return all(closed)

    def register(self, key: MemberKey, name: str, tags: Mapping[str, str]) -> dict[str, Any]:
        """Register a finished member's policy; its `model_uri` and `version`, empty where the store is away."""
        logger = RunLogger.reopen(self._storage / self.member_runs[key], pace=Pace(sample_seconds=None))
        self._log_model(logger, self._last_result(key), register_as=name, tags=tags)
        logger.close("FINISHED", CLOSE_SECONDS)
        return next(iter(logger.registered().values()), {})

    def _soon(self, work: Callable[[], None]) -> None:
        self._sent = [each for each in self._sent if not each.done() or each.exception()]
        self._sent.append(self._thread.submit(work))

    def _send_news(self, spec: TrialSpec) -> None:
        lines = run_folder.read_lines(trial_folder(self.folder, spec) / HISTORY_FILE)
        for line in lines[self._num_read.get(spec.name, 0) :]:
            for each in line["members"]:
                key = (spec.name, each["seed"], each["expectile"], each["inverse_temperature"])
                if key not in self._finished:
                    _send_line(self._logger(spec, key), line, each)
        self._num_read[spec.name] = len(lines)

    def _finish(self, spec: TrialSpec) -> None:
        self._send_news(spec)
        for member in _members(spec):
            key = _key_of(spec, member)
            if key in self._finished:
                continue
            logger = self._logger(spec, key)
            self._save_member(logger, spec, member, self._last_result(key)["num_updates"])
            self._log_model(logger, self._last_result(key))
            logger.close("FINISHED", CLOSE_SECONDS)
            del self._members[key]
            self._note(key, logger.run_id, FINISHED_LINE)
            self._finished.add(key)

    def _last_result(self, key: MemberKey) -> dict[str, Any]:
        evaluations = run_folder.read_evaluations(self._storage / self.member_runs[key])
        return evaluations[max(evaluations)]

    def _log_model(
        self,
        logger: RunLogger,
        result: Mapping[str, Any],
        register_as: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        logger.log_model(
            checkpoint.policy_folder(logger.folder, "last"),
            step=result["num_updates"],
            register_as=register_as,
            metrics=result,
            tags={
                **lineage_tags(self._manifest),
                "environment": str(self._config.env),
                "iql_ray.search": self.run_id,
                **(tags or {}),
            },
        )

    def _save_member(self, logger: RunLogger, spec: TrialSpec, member: Member, num_updates: int) -> None:
        """The member alone, as a run that ended, or was stopped, after so many updates."""
        folder = trial_folder(self.folder, spec)
        agent, transforms = load_agent(folder, num_updates)
        saved = checkpoint.load(folder, num_updates)
        config = config_io.load(TrainConfig, logger.folder / run_folder.CONFIG_FILE)
        alone = IQLAgent(config.agent, agent.spaces, population=config.population, num_updates=config.num_updates)
        alone.adopt(agent)
        sampled = saved.random_states[0].get(f"sampler.{spec.seeds.index(member.seed)}")
        states = alone.random_states() | ({} if sampled is None else {"sampler.0": sampled})
        state = replace(
            saved,
            tensors=alone.tensors(),
            random_states=(states,),
            configuration=config_io.to_dict(config),
            is_to_be_evaluated=False,
        )
        checkpoint.save(logger.folder, state, export_policy(alone.policy_weights(), alone.spaces, transforms))

    def _logger(self, spec: TrialSpec, key: MemberKey) -> RunLogger:
        """The member's open run; a search that goes on takes up the run that it had."""
        if key in self._members:
            return self._members[key]
        pace = Pace(sample_seconds=None)
        if key in self.member_runs:
            logger = RunLogger.reopen(self._storage / self.member_runs[key], pace=pace)
        else:
            logger = self._begin_member(spec, key, pace)
            self.member_runs[key] = logger.run_id
            self._note(key, logger.run_id, STARTED_LINE)
        self._members[key] = logger
        return logger

    def _begin_member(self, spec: TrialSpec, key: MemberKey, pace: Pace) -> RunLogger:
        _, seed, expectile, inverse_temperature = key
        configuration = spec.configuration(expectile, inverse_temperature)
        config = replace(
            member_config(self._config, configuration, seed),
            num_updates=self._config.policy_updates,
            tracking_uri=None,
            register_as=None,
        )
        logger = RunLogger.start(
            storage=self._config.storage,
            experiment=self._config.experiment,
            tracking_uri=self._tracking_uri,
            run_name=f"{configuration.label}, seed {seed}",
            tags={PARENT_TAG: self.run_id, "iql_ray.search": self.run_id, "iql_ray.trial": spec.name},
            pace=pace,
        )
        begin_record(logger, config, self._manifest)
        return logger

    def _note(self, key: MemberKey, run_id: str, event: str) -> None:
        trial, seed, expectile, inverse_temperature = key
        named = {"trial": trial, "seed": seed, "expectile": expectile, "inverse_temperature": inverse_temperature}
        run_folder.append_line(self.folder / MEMBERS_FILE, {"event": event, **named, "run_id": run_id})


def open_record(
    config: SearchConfig, manifest: Manifest, tracking_uri: str, resumed_folder: Path | None
) -> SearchRecord:
    """Begin or go on with a search's record."""
    torch.set_num_threads(1)
    if resumed_folder is not None:
        logger = RunLogger.reopen(resumed_folder, tracking_uri=config.tracking_uri)
    else:
        logger = RunLogger.start(
            storage=config.storage,
            experiment=config.experiment,
            tracking_uri=tracking_uri,
            run_name=config.run_name,
            tags={"iql_ray.kind": "search"},
        )
        begin_record(logger, replace(config, tracking_uri=None, dry_run=False), manifest)
    return SearchRecord(logger, config, manifest, tracking_uri)


def _members(spec: TrialSpec) -> list[Member]:
    return [
        Member(seed, expectile, inverse_temperature)
        for seed in spec.seeds
        for expectile in spec.expectiles
        for inverse_temperature in spec.inverse_temperatures
    ]


def _key_of(spec: TrialSpec, member: Member) -> MemberKey:
    return spec.name, member.seed, member.expectile, member.inverse_temperature


def _key(line: Mapping[str, Any]) -> MemberKey:
    return line["trial"], line["seed"], line["expectile"], line["inverse_temperature"]


def _send_line(logger: RunLogger, line: Mapping[str, Any], of_member: Mapping[str, Any]) -> None:
    """A member's part of a line of its trial's history."""
    num_updates = line["num_updates"]
    if line["kind"] == "evaluation":
        result = {"num_updates": num_updates, **of_member["result"]}
        logger.log_metrics(num_updates, evaluation_metrics(result))
        _note_evaluation(logger.folder, result)
        return
    prefix = "critics/" if line["phase"] == "critics" else ""
    logger.log_metrics(num_updates, {f"{prefix}{name}": value for name, value in of_member["values"].items()})


def _note_evaluation(folder: Path, result: dict[str, Any]) -> None:
    """Once: a search that goes on reads its trials' histories from the beginning."""
    if result["num_updates"] not in run_folder.read_evaluations(folder):
        run_folder.append_evaluation(folder, result)
