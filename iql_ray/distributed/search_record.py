"""The record of a search: one MLflow run of its own, and under it one for every member, though many shared a process.

    STORAGE/SEARCH/config.json      the search's configuration
    STORAGE/SEARCH/trials/TRIAL     where each trial stands (`search_trial.py`)
    STORAGE/SEARCH/members.jsonl    which run is whose, and which are over
    STORAGE/MEMBER/                 a member's own run: curves, configuration, its last checkpoint, its policy

A member's run is what `iql-ray train` would have left: it can be evaluated, trained on, extracted from, registered.
What trials write is put down here, on one thread beside the search, and sent by another, for however many members.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from iql_ray import checkpoint, run_folder
from iql_ray import config as config_io
from iql_ray.data.lineage import lineage_tags
from iql_ray.data.prepared import Manifest
from iql_ray.distributed.members import Trained, load_trained
from iql_ray.distributed.monitor import evaluation_metrics
from iql_ray.distributed.recording import begin_record
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.search_plan import MemberKey, TrialSpec, member_config, member_key, member_keys
from iql_ray.distributed.search_schedules import lineage_of
from iql_ray.distributed.search_trainable import trial_folder
from iql_ray.distributed.search_trial import HISTORY_FILE
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.evaluation import schedules
from iql_ray.tracking.runs import FinalStatus, Pace, RunLogger
from iql_ray.tracking.shipping import Shipper
from iql_ray.tracking.store import HOLDER_TAG, load_address

PARENT_TAG = "mlflow.parentRunId"
"""By this MLflow's pages show a run under another."""
MEMBER_PACE = Pace(sample_seconds=None)
"""The machine's load is in the search's own run, not in every member's."""
CLOSE_SECONDS, IMPATIENT_SECONDS = 60.0, 1.0
SCHEDULE_FILE = "schedule.json"
"""In the run of a member whose settings changed."""
FINISHED_LINE, STARTED_LINE = "finished", "started"


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
        self._shipper = Shipper(MEMBER_PACE.ship_seconds)
        self._read_to: dict[str, int] = {}
        self._evaluated: dict[MemberKey, set[int]] = {}
        self._close_seconds, self._is_complete = CLOSE_SECONDS, True
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="search record")
        self._sent: list[Future[None]] = []
        lines = run_folder.read_lines(self.folder / run_folder.MEMBERS_FILE)
        self.member_runs: dict[MemberKey, str] = {member_key(line["trial"], line): line["run_id"] for line in lines}
        self._finished = {member_key(line["trial"], line) for line in lines if line["event"] == FINISHED_LINE}

    def is_recorded(self, spec: TrialSpec) -> bool:
        """Whether every member of the trial has its finished run."""
        return all(key in self._finished for key in member_keys(spec))

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
                with contextlib.suppress(ValueError, OSError):  # one that is damaged keeps no other one open
                    self._members[key] = self._reopened(run_id)
        for logger in (*self._members.values(), self.parent):
            self._close(logger, status)
        self._members.clear()
        return self._is_complete

    def register(self, key: MemberKey, name: str, tags: Mapping[str, str]) -> dict[str, Any]:
        """Register a finished member's policy; what became of it, without a version where the store is away."""
        logger = self._reopened(self.member_runs[key])
        self._log_model(logger, self._last_result(key), register_as=name, tags=tags)
        self._close(logger, "FINISHED")
        return next(iter(logger.registered().values()), {})

    def _soon(self, work: Callable[[], None]) -> None:
        self._sent = [each for each in self._sent if not each.done() or each.exception()]
        self._sent.append(self._thread.submit(work))

    def _send_news(self, spec: TrialSpec) -> None:
        path = trial_folder(self.folder, spec) / HISTORY_FILE
        lines, read_to = run_folder.read_new_lines(path, self._read_to.get(spec.name, 0))
        for line in lines:
            for each in line["members"]:
                key = member_key(spec.name, each)
                if key not in self._finished:
                    self._send_line(self._logger(spec, key), self._evaluated[key], line, each)
        self._read_to[spec.name] = read_to

    def _send_line(
        self, logger: RunLogger, evaluated: set[int], line: Mapping[str, Any], of_member: Mapping[str, Any]
    ) -> None:
        """A member's part of a line of its trial's history; a search that goes on reads it from the beginning."""
        num_updates = line["num_updates"]
        if line["kind"] == "evaluation":
            result = {"num_updates": num_updates, **of_member["result"]}
            settings = line.get("settings", {})  # that led there, where they change
            numbers = {name: each for name, each in settings.items() if isinstance(each, int | float)}
            logger.log_metrics(num_updates, {f"settings/{name}": float(each) for name, each in numbers.items()})
            logger.log_metrics(num_updates, evaluation_metrics(result))
            if num_updates not in evaluated:
                run_folder.append_evaluation(logger.folder, result)
                evaluated.add(num_updates)
            return
        prefix = "critics/" if line["phase"] == "critics" else ""
        logger.log_metrics(num_updates, {f"{prefix}{name}": value for name, value in of_member["values"].items()})

    def _finish(self, spec: TrialSpec) -> None:
        self._send_news(spec)
        stood: dict[int, Trained] = {}
        for key in (key for key in member_keys(spec) if key not in self._finished):
            logger, result = self._logger(spec, key), self._last_result(key)
            last_update = result["num_updates"]
            if last_update not in stood:  # members that were stopped stand elsewhere than the others
                stood[last_update] = load_trained(trial_folder(self.folder, spec), last_update)
            config = config_io.load(TrainConfig, logger.folder / run_folder.CONFIG_FILE)
            if self._config.scheduler == "pbt":
                config = self._note_schedule(spec, logger, config)
            stood[last_update].save_alone(logger.folder, config)
            self._log_model(logger, result)
            self._close(logger, "FINISHED")
            del self._members[key]
            self._note(key, logger.run_id, FINISHED_LINE)
            self._finished.add(key)

    def _note_schedule(self, spec: TrialSpec, logger: RunLogger, config: TrainConfig) -> TrainConfig:
        """The member's run says that its settings changed, and has the last ones from here on."""
        stretches = lineage_of(self._config, self.folder, spec)
        logger.set_tags({"iql_ray.schedule": schedules.in_words(stretches)})
        config_io.write_json({"schedule": schedules.to_json(stretches)}, logger.folder / SCHEDULE_FILE)
        logger.log_artifact(SCHEDULE_FILE)
        last = stretches[-1].settings
        agent = {name if "." in name else f"agent.{name}": value for name, value in last.items()}
        config = config_io.override(config, agent)
        config_io.save(config, logger.folder / run_folder.CONFIG_FILE)
        logger.log_artifact(run_folder.CONFIG_FILE)
        return config

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
                HOLDER_TAG: self.run_id,
                **(tags or {}),
            },
        )

    def _logger(self, spec: TrialSpec, key: MemberKey) -> RunLogger:
        """The member's open run; a search that goes on takes up the run that it had."""
        if key in self._members:
            return self._members[key]
        if key in self.member_runs:
            logger = self._reopened(self.member_runs[key])
        else:
            logger = self._begin_member(spec, key)
            self.member_runs[key] = logger.run_id
            self._note(key, logger.run_id, STARTED_LINE)
        self._evaluated[key] = set(run_folder.read_evaluations(logger.folder))
        self._members[key] = logger
        return logger

    def _reopened(self, run_id: str) -> RunLogger:
        folder = self._storage / run_id
        return RunLogger.reopen(folder, tracking_uri=self._tracking_uri, pace=MEMBER_PACE, shipper=self._shipper)

    def _close(self, logger: RunLogger, status: FinalStatus) -> None:
        """A store that has not taken one run in time is not waited for as long with every other."""
        if not logger.close(status, self._close_seconds):
            self._close_seconds, self._is_complete = IMPATIENT_SECONDS, False

    def _begin_member(self, spec: TrialSpec, key: MemberKey) -> RunLogger:
        _, seed, expectile, inverse_temperature = key
        configuration = spec.configuration(expectile, inverse_temperature)
        config = replace(
            member_config(self._config, configuration, seed),
            num_updates=self._config.policy_updates,
            tracking_uri=None,
            register_as=None,
        )
        began = "began with " if self._config.scheduler == "pbt" else ""
        logger = RunLogger.start(
            storage=self._config.storage,
            experiment=self._config.experiment,
            tracking_uri=self._tracking_uri,
            run_name=f"{began}{configuration.label}, seed {seed}",
            tags={PARENT_TAG: self._parent_id(), HOLDER_TAG: self.run_id, "iql_ray.trial": spec.name},
            pace=MEMBER_PACE,
            shipper=self._shipper,
        )
        begin_record(logger, config, self._manifest)
        return logger

    def _parent_id(self) -> str:
        """MLflow's id of the search's run, once it has one: a server may have been away when the search began."""
        return load_address(self.folder).mlflow_run_id or self.run_id

    def _note(self, key: MemberKey, run_id: str, event: str) -> None:
        trial, seed, expectile, inverse_temperature = key
        named = {"trial": trial, "seed": seed, "expectile": expectile, "inverse_temperature": inverse_temperature}
        run_folder.append_line(self.folder / run_folder.MEMBERS_FILE, {"event": event, **named, "run_id": run_id})


def open_record(
    config: SearchConfig, manifest: Manifest, tracking_uri: str, resumed_folder: Path | None
) -> SearchRecord:
    """Begin or go on with a search's record."""
    torch.set_num_threads(1)
    if resumed_folder is not None:
        tracking_uri = config.tracking_uri or load_address(resumed_folder).tracking_uri
        logger = RunLogger.reopen(resumed_folder, tracking_uri=tracking_uri)
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
