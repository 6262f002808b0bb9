"""A search from its configuration to its answer, on Ray Tune.

Where a trial stands is read from its own folder, so a killed trial, node or driver are one case: what is over is not
run again, and the rest goes on from its last checkpoint. What Tune does is in `search_tuning.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from iql_ray import config as config_io
from iql_ray.data.selection import count_selected
from iql_ray.data.transforms import Transforms
from iql_ray.distributed.cluster_room import Say, alive_nodes, await_room
from iql_ray.distributed.data_memory import default_memory_limit, groups_per_window
from iql_ray.distributed.job import job_tags
from iql_ray.distributed.run_roles import trial_role
from iql_ray.distributed.search_answer import PAGE_FILE, Answer, find_answer, write_answer
from iql_ray.distributed.search_checking import CheckedSearch
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.search_estimate import num_slots, resolved_search_compile
from iql_ray.distributed.search_plan import (
    TrialSpec,
    Varied,
    data_keys,
    members_per_trial,
    planned_trials,
    sampled_spec,
)
from iql_ray.distributed.search_record import SearchRecord, open_record
from iql_ray.distributed.search_trainable import (
    TrialData,
    TrialSettings,
    listed_spec,
)
from iql_ray.distributed.search_tuning import Follower, Show, tuned
from iql_ray.distributed.shards import learner_shards
from iql_ray.distributed.shared_folder import check_shared
from iql_ray.distributed.stopping import start_order, terminated
from iql_ray.distributed.training import device_of


def search(checked: CheckedSearch, show: Show = lambda progress: None, say: Say = lambda line: None) -> dict[str, Any]:
    """Search as configured, or finish an interrupted search; Ray must be initialised.

    Returns:
        run_id, run_folder, verdict, best (its settings, score and interval, its best seed and that member's run),
        leaderboard_json, search_png, search_html, best_yaml, model_uri where it was registered; plain JSON types.

    Raises:
        ValueError: the cluster does not have what the configuration asks for.
        RuntimeError: a trial failed more often than `max_failures`.
    """
    config, device = resolved(checked, say)
    manifest = checked.run.manifest
    check_shared(config.storage, config.dataset, trial_role(config, device, 1).each)
    record = open_record(config, manifest, checked.run.tracking_uri, checked.resumed_folder)
    with terminated() as termination, _ended(record):
        record.parent.set_tags(job_tags())
        order = start_order()
        how_to_go_on = f"to go on: iql-ray search --resume {record.run_id} --storage {config.storage}"
        with termination.saves(lambda: ray.get(order.stop.remote()), how_to_go_on):
            specs, failures = _run_trials(replace(checked, config=config), device, record, order, show)
        record.wait()
        try:
            answer = find_answer(config, record.folder, specs)
        except RuntimeError as error:
            raise RuntimeError(f"{error}; the first failure: {failures[0] if failures else 'none'}") from error
        paths = write_answer(answer, config, record.folder, record.member_runs)
        _log_answer(record, answer, list(paths.values()))
        if failures:
            raise RuntimeError(
                f"{len(failures)} of {len(specs)} trials failed, the first with: {failures[0]}\n"
                f"what the others found: {paths[PAGE_FILE]}; to try again: iql-ray search --resume {record.run_id}"
            )
        registered = _register(record, answer, config)
        is_complete = record.close("FINISHED")
    best = answer.standings[0]
    return {
        "run_id": record.run_id,
        "run_folder": str(record.folder),
        "num_trials": len(specs),
        "num_members": len(answer.scored),
        "verdict": answer.verdict,
        "best": {
            **best.configuration.settings,
            "score": best.iqm,
            "interval": list(best.interval),
            "seed": answer.best[1],
            "run_id": record.member_runs[answer.best],
        },
        **{path.stem + "_" + path.suffix[1:]: str(path) for path in paths.values()},
        "model_uri": registered.get("model_uri"),
        "is_tracking_complete": is_complete,
    }


def resolved(checked: CheckedSearch, say: Say = lambda line: None) -> tuple[SearchConfig, str]:
    """The configuration with everything decided that depends on the cluster, as it is saved with the search, and the
    device.

    Raises:
        ValueError: no node has room for a trial.
    """
    config = checked.config
    device = device_of(checked.run)
    nodes = await_room([trial_role(config, device, 1)], say)
    limit = config.memory_limit or default_memory_limit(checked.run.config, device, ray.nodes())
    slots = num_slots(config, device, nodes)
    members = members_per_trial(config, device, slots)
    compiled = resolved_search_compile(config, device)
    return replace(config, memory_limit=limit, members_per_trial=members, device=device, compile=compiled), device


def _run_trials(
    checked: CheckedSearch, device: str, record: SearchRecord, stop_order: Any, show: Show
) -> tuple[list[TrialSpec], list[Exception]]:
    """Run those that are not over; all that there are, in their order, and why some failed."""
    config = checked.config
    assert config.members_per_trial is not None
    planned = [] if config.search == "optuna" else list(planned_trials(config, config.members_per_trial))
    waiting = [spec for spec in planned if not record.is_recorded(spec)]
    if planned and not waiting:
        return planned, []
    settings = _settings(checked, device, record.folder, waiting, stop_order)
    follower = Follower(record, settings, len(planned) or config.num_samples, len(planned) - len(waiting), show)
    results = tuned(settings, waiting, device, follower)
    return planned or list(dict.fromkeys(follower.finished)), list(results.errors)


def _settings(
    checked: CheckedSearch, device: str, folder: Path, waiting: Sequence[TrialSpec], stop_order: Any
) -> TrialSettings:
    """What all trials have in common, their data included: one copy for those of the same rows."""
    config, manifest = checked.config, checked.run.manifest
    keys = data_keys(config, waiting)
    assert config.memory_limit is not None
    room = DataRoom(
        held=config.memory_limit / len(keys),
        streamed=config.memory_limit / num_slots(config, device, alive_nodes()),
    )
    return TrialSettings(
        config=config,
        search_folder=folder,
        spaces=manifest.spaces,
        dataset_digest=manifest.digest,
        device=device,
        critics_from=checked.critics_from,
        read_spec=partial(sampled_spec, config) if config.search == "optuna" else listed_spec,
        data={key: _data(checked, key, room, waiting) for key in keys},
        stop_order=stop_order,
    )


@dataclass(frozen=True, kw_only=True)
class DataRoom:
    """GiB for rows that are held, once a node for all trials of the same ones, or streamed by each trial."""

    held: float
    streamed: float


def _data(checked: CheckedSearch, varied: Varied, room: DataRoom, waiting: Sequence[TrialSpec]) -> TrialData:
    """The rows, as these settings make them, in the object store or to be streamed."""
    largest = max(waiting, key=lambda spec: len(spec.seeds), default=None)
    config = checked.run.config if largest is None else replace(checked.run.config, seeds=largest.seeds)
    config = config_io.override(config, dict(varied)) if varied else config
    manifest, transforms = checked.run.manifest, Transforms.fit(config.transforms, checked.run.manifest)
    num_rows, _ = count_selected(config.dataset, manifest, config.selection)
    window = groups_per_window(config, manifest, num_rows, room.held)
    if window is not None:
        window = groups_per_window(config, manifest, num_rows, min(room.held, room.streamed))
    shards = learner_shards(config.dataset, manifest, transforms, 1, config.selection, window)
    return TrialData(shard=shards, transforms=transforms)


def _log_answer(record: SearchRecord, answer: Answer, paths: Sequence[Path]) -> None:
    """On the search's own run, where people look first."""
    best = answer.standings[0]
    told = {"mlflow.note.content": answer.verdict, "iql_ray.verdict": answer.verdict}  # the former is shown on top
    record.parent.set_tags({**told, "iql_ray.best_run": record.member_runs[answer.best]})
    settings = {f"best/{name}": value for name, value in best.configuration.settings.items()}
    numbers = {name: value for name, value in settings.items() if isinstance(value, int | float)}
    low, high = best.interval
    scores = {"best/score": best.iqm, "best/score_low": low, "best/score_high": high}
    record.parent.log_metrics(0, {**numbers, **scores, "num_members": len(answer.scored)})
    for path in paths:
        record.parent.log_artifact(path)


def _register(record: SearchRecord, answer: Answer, config: SearchConfig) -> dict[str, Any]:
    """The best member's policy, where a name was given."""
    if config.register_as is None:
        return {}
    tags = {"selected_by": f"search over {len(answer.scored)} members", "iql_ray.verdict": answer.verdict}
    return record.register(answer.best, config.register_as, tags)


@contextlib.contextmanager
def _ended(record: SearchRecord) -> Iterator[None]:
    """Whatever happens inside, no run of the search stays RUNNING."""
    try:
        yield
    except BaseException as error:
        record.close("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")
        raise
