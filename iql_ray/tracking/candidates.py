"""What is to be promoted: found by run, by model URI or as a folder, and made a version of the name in its time.

Finding writes nothing. Candidates are not compared or promoted here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iql_ray.redaction import redacted
from iql_ray.tracking import verdicts
from iql_ray.tracking.names import ModelReference, parse_reference
from iql_ray.tracking.registry import (
    DIGEST_TAG,
    MODEL_NAME,
    download_policy,
    find_logged_model,
    find_version,
    register,
)
from iql_ray.tracking.runs import Pace, RunLogger
from iql_ray.tracking.saved_policy import find_policy, policy_digest
from iql_ray.tracking.store import ADDRESS_FILE, load_address

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

EXPERIMENT = "iql_ray"
QUIET = Pace(sample_seconds=None)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A policy that may become the champion of a name."""

    folder: Path
    """The policy's, on this machine."""
    source: str
    """What it was given as."""
    version: str | None
    """Of the name, where it is one already."""
    tags: dict[str, str]
    """Lineage: of its dataset, its run, its code."""
    register: Callable[[], str]
    """Make it a version of the name; returns the number."""


def run_uri(run: str, storage: Path) -> str:
    """The model that a run hands on, by the run's id in the storage, its folder or its MLflow id."""
    for folder in (storage / run, Path(run)):
        if (folder / ADDRESS_FILE).is_file():
            address = load_address(folder)
            return f"runs:/{address.mlflow_run_id or address.run_id}/{MODEL_NAME}"
    return f"runs:/{run}/{MODEL_NAME}"


def find_candidate(client: MlflowClient, tracking_uri: str, uri: str, name: str, storage: Path) -> Candidate:
    """The policy behind a URI or in a folder.

    Args:
        uri: as `registry.download_policy` takes it.
        name: under which it is to be registered.
        storage: where a folder without a run gets one.

    Raises:
        ValueError: there is no such model, version, run or folder, or no policy in it.
    """
    folder = download_policy(uri, tracking_uri)
    if ":/" not in uri:
        return _found_folder(client, tracking_uri, folder, uri, name, storage)
    wanted = f"'{uri}' on {redacted(tracking_uri)}"
    reference = _reference(uri)
    if reference and reference.name == name:
        version = find_version(client, reference, wanted)
        number = str(version.version)
        tags = dict(version.tags)
        return Candidate(folder=folder, source=uri, version=number, tags=tags, register=lambda: number)
    model = find_logged_model(client, uri, wanted)
    tags = dict(find_version(client, reference, wanted).tags) if reference else _model_tags(model)
    tags = {key: value for key, value in tags.items() if not key.startswith(verdicts.PREFIXES)}
    return Candidate(
        folder=folder,
        source=uri,
        version=_version_at(client, name, model),
        tags=tags,
        register=lambda: str(register(client, model.model_id, name, str(model.source_run_id), tags).version),
    )


def _reference(uri: str) -> ModelReference | None:
    try:
        return parse_reference(uri) if uri.startswith("models:/") else None
    except ValueError:
        return None  # models:/MODEL_ID


def _model_tags(model: LoggedModel) -> dict[str, str]:
    """What training would have written on the version."""
    tags = {key: value for key, value in model.tags.items() if not key.startswith("mlflow.")}
    return {**tags, **{metric.key: f"{metric.value:.6g}" for metric in model.metrics or []}}


def _version_at(client: MlflowClient, name: str, model: LoggedModel) -> str | None:
    """The version of the name that this model is already."""
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{model.source_run_id}'"):
        if version.source == model.artifact_location:
            return str(version.version)
    return None


def _found_folder(
    client: MlflowClient, tracking_uri: str, folder: Path, uri: str, name: str, storage: Path
) -> Candidate:
    """A policy on this disk; one with the same weights may be a version already."""
    digest = policy_digest(find_policy(folder))
    same = [
        version
        for version in client.search_model_versions(f"name = '{name}'")
        if version.tags.get(DIGEST_TAG) == digest
    ]
    known = max(same, key=lambda version: int(version.version), default=None)
    return Candidate(
        folder=folder,
        source=uri,
        version=str(known.version) if known else None,
        tags=dict(known.tags) if known else {},
        register=lambda: str(known.version) if known else _register_folder(folder, tracking_uri, name, storage),
    )


def _register_folder(folder: Path, tracking_uri: str, name: str, storage: Path) -> str:
    """By way of a run of its own, which keeps a copy of it."""
    logger = RunLogger.start(
        storage=storage, experiment=EXPERIMENT, tracking_uri=tracking_uri, run_name=f"policy for {name}", pace=QUIET
    )
    copy = logger.folder / MODEL_NAME
    shutil.copytree(folder, copy)
    logger.log_model(copy, step=0, register_as=name, tags={"copied_from": str(folder.absolute())})
    if not logger.close():
        raise ConnectionError(f"the policy in {folder} was not registered; send it: iql-ray sync --run {logger.folder}")
    return next(iter(logger.registered().values()))["version"]
