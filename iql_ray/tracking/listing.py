"""What is registered, for people and programs: a row for each version, and the lineage of one.

Reads alone; tables are printed elsewhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from iql_ray.redaction import redacted
from iql_ray.tracking import verdicts
from iql_ray.tracking.champions import NOTE_TAG
from iql_ray.tracking.names import parse_reference
from iql_ray.tracking.registry import DIGEST_TAG, find_version, known_versions, model_names

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

LEARNED_WITH = (
    "env",
    "recipe",
    "num_updates",
    "seed",
    "agent.expectile",
    "agent.inverse_temperature",
    "agent.discount",
)
"""The settings of a run that a lineage names; the run has all of them."""


def list_versions(client: MlflowClient, name: str | None = None) -> list[dict[str, Any]]:
    """Every version of every registered model, or of one: models by name, newest version first.

    Returns:
        name, version, aliases, decision, score and score_ci of its promotion (or return_mean at registration, without
        interval), method, environment, dataset_sha256, age_seconds.

    Raises:
        ValueError: no model of that name.
    """
    names = sorted(model_names(client))
    if name is not None and name not in names:
        raise ValueError(f"model '{name}' does not exist: {known_versions(client, name)}")
    rows = []
    for each in names if name is None else [name]:
        aliases = _aliases(client, each)
        versions = client.search_model_versions(f"name = '{each}'")
        newest_first = sorted(versions, key=lambda version: -int(version.version))
        rows += [_row(version, aliases.get(str(version.version), [])) for version in newest_first]
    return rows


def lineage(client: MlflowClient, reference: str) -> dict[str, Any]:
    """Where a version comes from, from the data's digest to the decision that made it what it is.

    Returns:
        model (the row of `list_versions`), dataset, run, policy, promotion and rollback (None where there was none),
        and unfinished: whether a promotion of this name was cut off, which the next one finishes.

    Raises:
        ValueError: there is no such version.
    """
    parsed = parse_reference(reference)
    version = find_version(client, parsed, f"'{reference}'")
    model = client.get_registered_model(parsed.name)
    aliases = sorted(alias for alias, number in model.aliases.items() if str(number) == str(version.version))
    tags = version.tags
    return {
        "model": _row(version, aliases),
        "dataset": {
            "sha256": tags.get("dataset.sha256"),
            **{key: tags.get(f"dataset.{key}") for key in ("source", "licence", "fixes", "prepared_by")},
        },
        "run": _run(client, version.run_id),
        "policy": {
            "sha256": tags.get(DIGEST_TAG),
            "num_updates": tags.get("num_updates"),
            "checkpoint": tags.get("checkpoint"),
            "selected_by": tags.get("selected_by"),
            "code": tags.get("iql_ray.code_version"),
            "location": redacted(version.source or ""),
        },
        "promotion": verdicts.read_record(tags),
        "rollback": json.loads(tags[verdicts.ROLLBACK_TAG]) if verdicts.ROLLBACK_TAG in tags else None,
        "unfinished": NOTE_TAG in model.tags,
    }


def _aliases(client: MlflowClient, name: str) -> dict[str, list[str]]:
    """Version -> its aliases."""
    by_version: dict[str, list[str]] = {}
    for alias, version in sorted(client.get_registered_model(name).aliases.items()):
        by_version.setdefault(str(version), []).append(alias)
    return by_version


def _row(version: ModelVersion, aliases: list[str]) -> dict[str, Any]:
    record = verdicts.read_record(version.tags) or {}
    return {
        "name": version.name,
        "version": str(version.version),
        "aliases": aliases,
        "decision": record.get("decision"),
        **_score(record, version.tags),
        "environment": record.get("protocol", {}).get("environment") or version.tags.get("environment"),
        "dataset_sha256": version.tags.get("dataset.sha256"),
        "age_seconds": round(time.time() - version.creation_timestamp / 1000),
    }


def _score(record: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, Any]:
    """That of the promotion; without one, what was measured when it was registered."""
    if record:
        return {"score": record["score"], "score_ci": record["score_ci"], "method": record["protocol"]["method"]}
    score = tags.get("return_mean")
    return {"score": float(score) if score else None, "score_ci": None, "method": tags.get("selected_by")}


def _run(client: MlflowClient, run_id: str | None) -> dict[str, Any] | None:
    """The run that logged the policy; only its id where it has been deleted for good."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {"id": run_id, "name": None, "status": "deleted"}
    settings = {key: run.data.params[key] for key in LEARNED_WITH if key in run.data.params}
    return {"id": run_id, "name": run.info.run_name, "status": run.info.status, "settings": settings}
