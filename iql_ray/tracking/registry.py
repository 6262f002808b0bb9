"""The policy as a model of MLflow: logged with its run, registered under a name, fetched again by URI.

Aliases are read, never set or moved: that is done in `champions`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iql_ray.redaction import redacted
from iql_ray.tracking.names import LOCK_NAME_PATTERN, MODEL_ID_PATTERN, ModelReference, parse_reference
from iql_ray.tracking.reaching import answering
from iql_ray.tracking.saved_policy import check_digest, find_policy, policy_digest, save_policy_model
from iql_ray.tracking.store import open_client, require_store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

MODEL_NAME = "policy"
"""The model's name within its run: `runs:/RUN_ID/policy`."""
MODEL_TYPE = "iql_ray.policy"
DIGEST_TAG = "iql_ray.policy_digest"
VERSIONS_TAG = "mlflow.modelVersions"
"""By this MLflow's pages lead from a run's model to its versions."""
URI_FORMS = "models:/NAME/VERSION, models:/NAME@ALIAS, models:/MODEL_ID, runs:/RUN_ID/policy or a folder"


@dataclass(frozen=True, kw_only=True)
class LoggedPolicy:
    """What a policy became in the store."""

    model_uri: str
    """`models:/NAME/VERSION` where it was registered, `models:/MODEL_ID` otherwise."""
    model_id: str
    version: str | None


def log_policy_model(
    client: MlflowClient,
    run_id: str,
    policy_folder: Path,
    *,
    register_as: str | None = None,
    step: int = 0,
    time: int = 0,
    metrics: dict[str, float] | None = None,
    tags: dict[str, str] | None = None,
    example_observations: Any = None,
) -> LoggedPolicy:
    """Log a policy as a model of the run and register it; the same policy of the same run only once.

    Args:
        policy_folder: holds weights.safetensors and policy.json.
        register_as: the registered model's name; None logs without registering.
        step, time: the update, and the milliseconds since 1970, at which `metrics` were measured.
        metrics: linked to the model, and written as tags on the version.
        tags: written on the model and on the version.
        example_observations: (rows, observation_dim), shipped as the input example.

    Raises:
        ValueError: the folder holds no policy.
    """
    digest = policy_digest(find_policy(policy_folder))
    metrics, tags = metrics or {}, {DIGEST_TAG: digest, **(tags or {})}
    model = _find_or_create_model(client, run_id, tags)
    if model.status.value != "READY":
        _link(client, run_id, model.model_id, metrics, step, time)
        _upload(client, run_id, model, policy_folder, example_observations)
    if register_as is None:
        return LoggedPolicy(model_uri=f"models:/{model.model_id}", model_id=model.model_id, version=None)
    version_tags = {**tags, **{name: f"{value:.6g}" for name, value in metrics.items()}}
    registered = register(client, model.model_id, register_as, run_id, version_tags)
    uri = f"models:/{register_as}/{registered.version}"
    return LoggedPolicy(model_uri=uri, model_id=model.model_id, version=str(registered.version))


def register(client: MlflowClient, model_id: str, name: str, run_id: str, tags: dict[str, str]) -> ModelVersion:
    """A version of the registered model `name` for a logged model of a run; the one it has, if it has one."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # The source is the place itself: MLflow resolves `models:/MODEL_ID` in its global tracking store, not in ours.
    model = client.get_logged_model(model_id)
    source = model.artifact_location
    for known in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        if known.source == source:
            return known
    created = client.create_model_version(name, source, run_id, tags=tags, model_id=model_id)
    links = [*json.loads(model.tags.get(VERSIONS_TAG, "[]")), {"name": name, "version": created.version}]
    client.set_logged_model_tags(model_id, {VERSIONS_TAG: json.dumps(links)})
    return created


def download_policy(uri: str, tracking_uri: str, destination: Path | None = None) -> Path:
    """Fetch a policy's folder (weights.safetensors and policy.json, ready for `Policy.load`).

    Args:
        uri: models:/NAME/VERSION, models:/NAME@ALIAS, models:/MODEL_ID, runs:/RUN_ID/policy or a local folder.
        tracking_uri: the store that knows the model.
        destination: where to put the files; a new temporary folder without. A local folder is returned as it is.

    Raises:
        ValueError: there is no such model, version, alias, run or folder, no policy in it, or another one than was
            registered.
        StoreUnavailableError: the store does not answer.
    """
    scheme, separator, path = uri.partition(":/")
    if not separator:
        return find_policy(Path(uri))
    if scheme not in ("models", "runs"):
        raise ValueError(f"model URI '{uri}' is not understood; expected {URI_FORMS}")
    require_store(tracking_uri)
    client = open_client(tracking_uri)
    from mlflow.artifacts import download_artifacts

    wanted = f"'{uri}' on {redacted(tracking_uri)}"
    with answering(tracking_uri):
        found = _located(client, path.strip("/"), wanted) if scheme == "models" else _of_run(client, path, wanted)
        destination = destination or Path(tempfile.mkdtemp(prefix="iql_ray_policy_"))
        copied = download_artifacts(found.location, dst_path=str(destination), tracking_uri=tracking_uri)
    folder = find_policy(Path(copied))
    if found.digest is not None:
        check_digest(folder, found.digest, f"model {uri}")
    return folder


@dataclass(frozen=True, kw_only=True)
class _Located:
    """Where a model's artifacts lie, and what the store says that they are."""

    location: str
    digest: str | None


def _located(client: MlflowClient, path: str, wanted: str) -> _Located:
    """Of NAME/VERSION, NAME@ALIAS or MODEL_ID."""
    if MODEL_ID_PATTERN.fullmatch(path):
        source, tags = f"models:/{path}", None
    else:
        version = find_version(client, parse_reference(path), wanted)
        source, tags = str(version.source), version.tags
    if not source.startswith("models:/"):
        return _Located(location=source, digest=(tags or {}).get(DIGEST_TAG))
    with _missing_is_misuse(wanted, lambda: "the model's artifacts were deleted"):
        model = client.get_logged_model(source.removeprefix("models:/"))
    return _Located(location=model.artifact_location, digest=(tags or model.tags).get(DIGEST_TAG))


def _of_run(client: MlflowClient, path: str, wanted: str) -> _Located:
    """Of the run's newest model of that name, given RUN_ID/NAME."""
    model = _run_model(client, path.strip("/"), wanted)
    return _Located(location=model.artifact_location, digest=model.tags.get(DIGEST_TAG))


def find_version(client: MlflowClient, reference: ModelReference, wanted: str) -> ModelVersion:
    """The registered version that is meant.

    Args:
        wanted: how the user named it, for the message.

    Raises:
        ValueError: there is none; says which there are.
    """
    name = reference.name
    with _missing_is_misuse(wanted, lambda: known_versions(client, name)):
        if reference.alias is not None:
            return client.get_model_version_by_alias(name, reference.alias)
        return client.get_model_version(name, str(reference.version))


def find_logged_model(client: MlflowClient, uri: str, wanted: str) -> LoggedModel:
    """The logged model behind models:/NAME/VERSION, models:/NAME@ALIAS, models:/MODEL_ID or runs:/RUN_ID/policy.

    Raises:
        ValueError: there is none.
    """
    scheme, _, path = uri.partition(":/")
    path = path.strip("/")
    if scheme == "runs":
        return _run_model(client, path, wanted)
    if MODEL_ID_PATTERN.fullmatch(path):
        with _missing_is_misuse(wanted, lambda: "the store has no such model"):
            return client.get_logged_model(path)
    version = find_version(client, parse_reference(uri), wanted)
    source = version.source or ""
    if source.startswith("models:/"):
        return client.get_logged_model(source.removeprefix("models:/"))
    return _model_at(client, source, str(version.run_id), wanted)


def _model_at(client: MlflowClient, location: str, run_id: str, wanted: str) -> LoggedModel:
    """The model of a run whose artifacts lie there: a version names its place and not its model."""
    with _missing_is_misuse(wanted, lambda: "the run that it came from was deleted"):
        experiment_id = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if model.artifact_location == location:
            return model
    raise ValueError(f"model {wanted} is no policy that a run of iql-ray logged; promote one that is")


def _run_model(client: MlflowClient, path: str, wanted: str) -> LoggedModel:
    """The run's newest model of that name, given RUN_ID/NAME."""
    run_id, _, name = path.partition("/")
    with _missing_is_misuse(wanted, lambda: "the store has no such run"):
        experiment_id = client.get_run(run_id).info.experiment_id
    logged = client.search_logged_models([experiment_id], f"name = '{name}' AND source_run_id = '{run_id}'")
    models = [model for model in logged if model.status.value == "READY"]
    if not models:
        raise ValueError(f"model {wanted} does not exist: the run has logged no model '{name}'")
    return models[0]


@contextmanager
def _missing_is_misuse(wanted: str, explain: Callable[[], str]) -> Iterator[None]:
    """What the store does not know is the user's mistake: a ValueError that says what there is."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ValueError(f"model {wanted} does not exist: {explain()}") from error


def known_versions(client: MlflowClient, name: str) -> str:
    """The versions and aliases of a registered model, in words."""
    versions = client.search_model_versions(f"name = '{name}'")
    if not versions:
        names = ", ".join(sorted(model_names(client))) or "none"
        return f"no version of '{name}' is registered (models with a name: {names})"
    numbers = ", ".join(sorted((str(version.version) for version in versions), key=int))
    aliases = ", ".join(sorted(client.get_registered_model(name).aliases)) or "none"
    return f"'{name}' has the versions {numbers} and the aliases {aliases}"


def model_names(client: MlflowClient) -> list[str]:
    """Every registered model, without those that are locks."""
    names: list[str] = []
    token = None
    while True:
        page = client.search_registered_models(page_token=token)
        names += [model.name for model in page if not LOCK_NAME_PATTERN.search(model.name)]
        token = page.token
        if not token:
            return names


def _find_or_create_model(client: MlflowClient, run_id: str, tags: dict[str, str]) -> LoggedModel:
    """The run's model of this very policy: a crash half way is taken up again, not repeated beside it."""
    experiment_id = client.get_run(run_id).info.experiment_id
    models = client.search_logged_models([experiment_id], f"name = '{MODEL_NAME}' AND source_run_id = '{run_id}'")
    for model in models:
        if model.tags.get(DIGEST_TAG) == tags[DIGEST_TAG]:
            return model
    return client.create_logged_model(experiment_id, MODEL_NAME, run_id, tags=tags, model_type=MODEL_TYPE)


def _link(client: MlflowClient, run_id: str, model_id: str, metrics: dict[str, float], step: int, time: int) -> None:
    """Name the model as the run's output and tie its metrics to it."""
    from mlflow.entities import LoggedModelOutput, Metric

    outputs = client.get_run(run_id).outputs
    if model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=step)])  # the store refuses it a second time
    linked = [Metric(name, value, time, step, model_id=model_id, run_id=run_id) for name, value in metrics.items()]
    client.log_batch(run_id, metrics=linked, synchronous=True)


def _upload(
    client: MlflowClient, run_id: str, model: LoggedModel, policy_folder: Path, example_observations: Any
) -> None:
    from mlflow.models import Model

    identity = Model(artifact_path=model.artifact_location, run_id=run_id, model_id=model.model_id)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model"
        save_policy_model(policy_folder, path, example_observations=example_observations, mlflow_model=identity)
        client.log_model_artifacts(model.model_id, str(path))
    client.finalize_logged_model(model.model_id, "READY")
