"""The record of one run: what is logged goes to the run folder's spool first, and from there to MLflow by itself.

Logging costs a file write and never waits for the store, which may be slow, away, or never come. One process holds a
run's logger; this room knows no Ray.

    logger = RunLogger.start(storage="runs", experiment="pendulum")
    logger.log_metrics(500, {"train/value_loss": 0.3})
    all_sent = logger.close("FINISHED")
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from iql_ray.redaction import redacted, redacted_values
from iql_ray.tracking import system_metrics
from iql_ray.tracking.names import MAX_PARAM_LENGTH, check_model_name, check_name, numbers_of
from iql_ray.tracking.saved_policy import find_policy
from iql_ray.tracking.sending import read_registered
from iql_ray.tracking.shipping import Shipper
from iql_ray.tracking.spool import Spool
from iql_ray.tracking.starting import aim, begin
from iql_ray.tracking.store import RUN_ID_TAG, RunAddress, load_address

MAX_EXAMPLE_ROWS = 5
FinalStatus = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often the background threads wake."""

    ship_seconds: float = 5.0
    sample_seconds: float | None = 10.0
    """Between two samples of the machine's load; None samples none."""
    start_wait_seconds: float = 5.0
    """How long the start waits for a server before the run goes on without it."""


class RunLogger:
    """Logs one run; made by `start` or `reopen`. Its methods may be called from any thread."""

    def __init__(
        self,
        folder: Path,
        address: RunAddress,
        spool: Spool,
        pace: Pace,
        shipper: Shipper | None = None,
        wait_for: Callable[[], object] | None = None,
    ) -> None:
        self.folder = folder
        self.run_id = address.run_id
        self._spool = spool
        self._lock = threading.Lock()
        self._logged_steps, num_samples = _logged_steps(spool)
        self._shipper = shipper or Shipper(pace.ship_seconds)
        self._shipment = self._shipper.add(spool, address, wait_for)
        self._sampler: system_metrics.SystemSampler | None = None
        if pace.sample_seconds:
            self._sampler = system_metrics.SystemSampler(self._record_sample, pace.sample_seconds, num_samples)

    @classmethod
    def start(
        cls,
        *,
        storage: str | Path,
        experiment: str,
        tracking_uri: str | None = None,
        run_name: str | None = None,
        tags: Mapping[str, Any] | None = None,
        pace: Pace | None = None,
        shipper: Shipper | None = None,
    ) -> RunLogger:
        """Begin a run and its folder `storage/run_id`.

        The run's id is MLflow's if the store answers in time; otherwise one of ours, and the MLflow run is created
        when the store is there, tagged `iql_ray.run_id`.

        Args:
            storage: the folder of all runs, created if need be.
            tracking_uri: the store; without, MLFLOW_TRACKING_URI, or the SQLite file in `storage`.
            shipper: the thread that sends this run among others, whose file is then opened for every record alone; its
                process holds the run that the tag HOLDER_TAG names for as long. Without: a thread of its own.

        Raises:
            ValueError: an unusable URI, or a store that answers and refuses.
        """
        pace = pace or Pace()
        folder, address, creation = begin(
            Path(os.path.abspath(storage)),
            experiment,
            tracking_uri,
            run_name,
            tags or {},
            wait_seconds=pace.start_wait_seconds,
        )
        spool = Spool(folder, is_kept_open=shipper is None)
        logger = cls(folder, address, spool, pace, shipper, wait_for=creation.exception)
        logger.set_tags({RUN_ID_TAG: address.run_id, "iql_ray.run_folder": logger.folder})
        return logger

    @classmethod
    def reopen(
        cls,
        folder: str | Path,
        *,
        tracking_uri: str | None = None,
        pace: Pace | None = None,
        shipper: Shipper | None = None,
    ) -> RunLogger:
        """Go on with a run that was interrupted: its MLflow run is RUNNING again, its curves go on.

        Args:
            folder: the run's folder.
            tracking_uri: another store than the run began with; it then gets the whole record.
            shipper: as for `start`.

        Raises:
            ValueError: no run folder, or another process still logs to it.
        """
        folder = Path(os.path.abspath(folder))
        address = load_address(folder)
        spool = Spool(folder, is_kept_open=shipper is None)
        try:
            logger = cls(folder, aim(folder, address, tracking_uri), spool, pace or Pace(), shipper)
        except ValueError:
            spool.close()
            raise
        spool.append("status", status="RUNNING")
        return logger

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record a point of each named curve at `step` (updates, or environment steps).

        A curve has one point a step, the first recorded: a resumed run that repeats its last updates adds none.
        NaN is kept; MLflow stores an infinite value as the largest float.

        Raises:
            ValueError: a name that MLflow refuses.
        """
        step = int(step)
        numbers = {check_name(name): float(value) for name, value in values.items()}
        with self._lock:
            fresh = {name: number for name, number in numbers.items() if step not in self._steps_of(name)}
            for name in fresh:
                self._steps_of(name).add(step)
        if fresh:
            self._spool.append("metrics", step=step, values=fresh)

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Record parameters, flat, each cut at MLflow's 6,000 characters; log the file they come from as an artifact.

        Secrets in them are hidden, here and in tags: what is in the spool is what everybody sees.

        Raises:
            ValueError: a name that MLflow refuses.
        """
        self._spool.append(
            "params",
            values={check_name(name): str(value)[:MAX_PARAM_LENGTH] for name, value in redacted_values(values).items()},
        )

    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Record tags of the run; a later value replaces an earlier one."""
        self._spool.append("tags", values={name: str(value) for name, value in redacted_values(values).items()})

    def log_dataset(
        self, *, name: str, digest: str, source: str, num_rows: int, profile: Mapping[str, Any] | None = None
    ) -> None:
        """Record what the run learns from.

        Args:
            digest: of the content; MLflow shows 36 characters of it, the tag `dataset.sha256` has all.
            source: where it came from.
            profile: further facts, as plain JSON types.
        """
        profile = dict(profile or {})
        self._spool.append(
            "dataset", name=name, digest=digest, source=redacted(source), num_rows=num_rows, profile=profile
        )
        self.set_tags({"dataset.sha256": digest})

    def log_artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """Have a file or folder of the run folder sent, as it is when its turn comes.

        Args:
            path: relative to the run folder, or absolute within it.
            artifact_path: the folder among the run's artifacts; the top one without.

        Raises:
            ValueError: it is not in the run folder, or does not exist.
        """
        self._spool.append("artifact", path=self._within_folder(path), artifact_path=artifact_path)

    def log_model(
        self,
        policy_folder: str | Path,
        *,
        step: int,
        register_as: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        example_observations: Any = None,
    ) -> None:
        """Have a policy logged as a model, and registered; `registered` tells what became of it.

        Args:
            policy_folder: in the run folder; holds weights.safetensors and policy.json.
            step: the update that the policy comes from.
            register_as: the registered model's name; None logs without registering.
            metrics: of this policy; values that are no numbers are left out.
            tags: for the model and its version, such as the dataset's digest.
            example_observations: (rows, observation_dim); the first rows are shipped as the input example.

        Raises:
            ValueError: no policy there, or a name that MLflow refuses.
        """
        if register_as is not None:
            check_model_name(register_as)
        relative = self._within_folder(policy_folder)
        find_policy(self.folder / relative)
        rows = None if example_observations is None else np.asarray(example_observations, np.float32)
        self._spool.append(
            "model",
            policy=relative,
            step=int(step),
            register_as=register_as,
            metrics=numbers_of(metrics or {}),
            tags={
                "num_updates": str(step),
                **{name: str(value) for name, value in redacted_values(tags or {}).items()},
            },
            example_observations=None if rows is None else rows[:MAX_EXAMPLE_ROWS].tolist(),
        )

    def registered(self) -> dict[str, dict[str, Any]]:
        """Policy folder -> `model_uri`, `model_id`, `version`, for the policies that the store has taken by now."""
        return read_registered(self.folder)

    def close(self, status: FinalStatus = "FINISHED", timeout_seconds: float = 60.0) -> bool:
        """End the run and send what is left; whether all of it was sent. `iql-ray sync` sends the rest later."""
        if self._sampler:
            self._sampler.close()
        self._spool.append("status", status=status)
        all_sent = self._shipper.close(self._shipment, timeout_seconds)
        self._spool.close()
        return all_sent

    def _steps_of(self, name: str) -> set[int]:
        return self._logged_steps.setdefault(name, set())

    def _record_sample(self, step: int, values: dict[str, float]) -> None:
        self._spool.append("metrics", step=step, values=values)

    def _within_folder(self, path: str | Path) -> str:
        """The path from the run folder; a relative one may also start where the process stands."""
        for candidate in (self.folder / path, Path(path)):
            absolute = Path(os.path.abspath(candidate))
            if absolute.is_relative_to(self.folder) and absolute.exists():
                return absolute.relative_to(self.folder).as_posix()
        raise ValueError(f"{path} is sent from the run folder {self.folder}, and is not in it; put it there first")


def _logged_steps(spool: Spool) -> tuple[dict[str, set[int]], int]:
    """The steps that each curve has already, and the number of the next system sample."""
    steps: dict[str, set[int]] = {}
    num_samples = 0
    for record in spool.read():
        if record.kind != "metrics":
            continue
        if any(name.startswith(system_metrics.PREFIX) for name in record.fields["values"]):
            num_samples = record.fields["step"] + 1
            continue
        for name in record.fields["values"]:
            steps.setdefault(name, set()).add(record.fields["step"])
    return steps, num_samples
