"""From a registered policy back to the run that it came from, whose folder has the whole agent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from iql_ray import run_folder
from iql_ray.redaction import redacted
from iql_ray.tracking.names import parse_reference
from iql_ray.tracking.reaching import answering
from iql_ray.tracking.registry import DIGEST_TAG, find_version
from iql_ray.tracking.saved_policy import policy_digest
from iql_ray.tracking.store import open_client, require_store

RUN_FOLDER_TAG = "iql_ray.run_folder"


@dataclass(frozen=True, kw_only=True)
class ModelRun:
    """Where a registered policy was trained."""

    folder: Path
    num_updates: int
    """Of its checkpoint."""


def run_of_model(uri: str, tracking_uri: str, storage: str | Path) -> ModelRun:
    """The run and the checkpoint of a registered policy.

    Args:
        uri: models:/NAME/VERSION or models:/NAME@ALIAS.
        storage: where runs are kept, should the folder that the run names not be within reach.

    Raises:
        ValueError: no such model; or its run, or that checkpoint, is gone, or holds another policy.
        StoreUnavailableError: the store does not answer.
    """
    reference = parse_reference(uri)
    require_store(tracking_uri)
    client = open_client(tracking_uri)
    with answering(tracking_uri):
        version = find_version(client, reference, f"'{uri}' on {redacted(tracking_uri)}")
        tags = client.get_run(str(version.run_id)).data.tags
    folder = _within_reach(uri, Path(tags.get(RUN_FOLDER_TAG, "")), storage, str(version.run_id))
    num_updates = int(version.tags["num_updates"])
    _check_same_policy(uri, folder, num_updates, version.tags.get(DIGEST_TAG))
    return ModelRun(folder=folder, num_updates=num_updates)


def _within_reach(uri: str, recorded: Path, storage: str | Path, run_id: str) -> Path:
    for folder in (recorded, Path(storage) / recorded.name, Path(storage) / run_id):
        if (folder / run_folder.CONFIG_FILE).is_file():
            return folder.absolute()
    raise ValueError(
        f"model '{uri}' comes from the run in {recorded}, which is not within reach: a registered model is a policy "
        f"alone, and its critics are in that folder; bring it back, or into --storage {storage}"
    )


def _check_same_policy(uri: str, folder: Path, num_updates: int, digest: str | None) -> None:
    checkpoint = run_folder.checkpoint_folder(folder, num_updates)
    kept = run_folder.checkpoint_updates(folder)
    if num_updates not in kept:
        raise ValueError(
            f"model '{uri}' is checkpoint {num_updates} of {folder}, which is gone; there are {kept}: "
            f"choose one with --run {folder} --checkpoint N"
        )
    if digest is not None and policy_digest(checkpoint / "policy") != digest:
        raise ValueError(f"model '{uri}' is not the policy in {checkpoint}: the files there have changed since")
