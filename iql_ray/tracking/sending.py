"""Spooled records to one MLflow run, in order: what each kind means there, and what is done with one it refuses.

Sending twice adds nothing: a point is the same row, a file replaces itself, a policy is registered once. When to send
is decided elsewhere; an unreachable store is an exception here.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iql_ray import config
from iql_ray.tracking import registry
from iql_ray.tracking.spool import Spool, SpooledRecord
from iql_ray.tracking.store import is_refusal

if TYPE_CHECKING:
    from mlflow import MlflowClient

RECORDS_PER_READ = 200
BATCHED_KINDS = ("metrics", "params", "tags")
REGISTERED_FILE = "registered.json"
"""In the run's folder: policy folder -> the model it became."""
DIGEST_LENGTH = 36
"""MLflow's limit for a dataset's digest; the whole of it goes into a tag."""

logger = logging.getLogger(__name__)


class RunSender:
    """Sends one run's records to the MLflow run `run_id`, from a spool that this process holds."""

    def __init__(self, client: MlflowClient, run_id: str, spool: Spool) -> None:
        self.client = client
        self.run_id = run_id
        self.spool = spool
        self._send_by_kind: dict[str, Callable[[dict[str, Any]], None]] = {
            "dataset": self._send_dataset,
            "artifact": self._send_artifact,
            "model": self._send_model,
            "status": self._send_status,
        }

    def send_waiting(self, should_stop: Callable[[], bool] = lambda: False) -> int:
        """Send everything behind the cursor and move it; the number of records that left the spool.

        Raises:
            Exception: the store is away; the cursor stands before the first record that it has not taken.
        """
        num_sent = 0
        while records := self.spool.read(self.spool.cursor, RECORDS_PER_READ):
            for group in _groups(records):
                self._send_group(group)
                if should_stop():
                    return num_sent  # closed meanwhile: the spool may have another holder, who sends this again
                self.spool.advance(group[-1].end)
                num_sent += len(group)
        return num_sent

    def _send_group(self, group: list[SpooledRecord]) -> None:
        """All in one request; if that is refused, one by one, so that a bad record takes no good one with it."""
        try:
            self._send(group)
        except Exception as error:
            if not is_refusal(error) or self._is_deleted():
                raise
            if len(group) > 1:
                for record in group:
                    self._send_group([record])
            else:
                logger.warning("the tracking store refused a record of kind %s: %s", group[0].kind, error)
                self.spool.reject(group[0], f"{type(error).__name__}: {error}")

    def _is_deleted(self) -> bool:
        """A deleted run refuses everything, yet may be restored: then its records wait."""
        return self.client.get_run(self.run_id).info.lifecycle_stage != "active"

    def _send(self, group: list[SpooledRecord]) -> None:
        if group[0].kind in BATCHED_KINDS:
            self._send_batch([record.fields for record in group])
        elif group[0].kind in self._send_by_kind:
            self._send_by_kind[group[0].kind](group[0].fields)
        else:
            raise ValueError(f"unknown kind of record '{group[0].kind}': was this spool written by a newer version?")

    def _send_batch(self, records: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(name, value, record["time"], record["step"])
            for record in records
            if record["kind"] == "metrics"
            for name, value in record["values"].items()
        ]
        params = {item for record in records if record["kind"] == "params" for item in record["values"].items()}
        tags = {key: value for record in records if record["kind"] == "tags" for key, value in record["values"].items()}
        self.client.log_batch(
            self.run_id,
            metrics=metrics,
            params=[Param(key, value) for key, value in sorted(params)],
            tags=[RunTag(key, value) for key, value in tags.items()],
            synchronous=True,
        )

    def _send_dataset(self, record: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=record["name"],
            digest=record["digest"][:DIGEST_LENGTH],
            source_type="local",
            source=json.dumps({"uri": record["source"]}),
            profile=json.dumps({"num_rows": record["num_rows"], **record["profile"]}),
        )
        tags = [InputTag("mlflow.data.context", "training"), InputTag("sha256", record["digest"])]
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])

    def _send_artifact(self, record: dict[str, Any]) -> None:
        path = self.spool.folder / record["path"]
        if not path.exists():
            raise FileNotFoundError(f"{path} is gone, so it cannot be sent")
        send = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        send(self.run_id, str(path), record["artifact_path"])

    def _send_model(self, record: dict[str, Any]) -> None:
        folder = self.spool.folder / record["policy"]
        logged = registry.log_policy_model(
            self.client,
            self.run_id,
            folder,
            register_as=record["register_as"],
            step=record["step"],
            time=record["time"],
            metrics=record["metrics"],
            tags=record["tags"],
            example_observations=record["example_observations"],
        )
        _note_registered(self.spool.folder, record["policy"], logged)

    def _send_status(self, record: dict[str, Any]) -> None:
        if record["status"] == "RUNNING":
            self.client.update_run(self.run_id, status="RUNNING")
        else:
            self.client.set_terminated(self.run_id, record["status"], record["time"])


def _groups(records: list[SpooledRecord]) -> Iterator[list[SpooledRecord]]:
    """Neighbours that fit one request together; every other record alone."""
    for is_batched, neighbours in itertools.groupby(records, lambda record: record.kind in BATCHED_KINDS):
        if is_batched:
            yield list(neighbours)
        else:
            yield from ([record] for record in neighbours)


def read_registered(folder: Path) -> dict[str, dict[str, Any]]:
    """What became of a run's policies so far: policy folder -> model_uri, model_id, version."""
    path = folder / REGISTERED_FILE
    return json.loads(path.read_text()) if path.exists() else {}


def _note_registered(folder: Path, policy: str, logged: registry.LoggedPolicy) -> None:
    config.write_json({**read_registered(folder), policy: asdict(logged)}, folder / REGISTERED_FILE)
