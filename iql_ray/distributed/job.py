"""Where a run was made, as tags of its record: the submitted job, if it is one, and the cluster. Nothing secret."""

from __future__ import annotations

import json
import os
import shlex
import sys

import ray

from iql_ray.redaction import redacted

PREFIX = "iql_ray.job."
JOB_CONFIG_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Under this name Ray tells a submitted job's driver of itself."""
USER_METADATA = ("job_name",)
"""Of what `ray job submit --metadata-json` gives."""


def job_tags() -> dict[str, str]:
    """Tags of this driver; Ray must be initialised.

    Ray's job id, the command as it was typed, the cluster's address and Ray's version; in a submitted job its
    submission id and name too.
    """
    context = ray.get_runtime_context()
    told = {
        "id": context.get_job_id(),
        "entrypoint": redacted(shlex.join(sys.argv)),
        "cluster_address": context.gcs_address,
        "ray_version": ray.__version__,
        **_of_submission(os.environ.get(JOB_CONFIG_VARIABLE)),
    }
    return {PREFIX + name: value for name, value in told.items()}


def _of_submission(told: str | None) -> dict[str, str]:
    """What the job server says of the job."""
    metadata = json.loads(told).get("metadata", {}) if told else {}
    named = {"submission_id": metadata.get("job_submission_id"), **{name: metadata.get(name) for name in USER_METADATA}}
    return {name: redacted(str(value)) for name, value in named.items() if value is not None}
