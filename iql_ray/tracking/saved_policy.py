"""A policy's folder as a complete MLflow model on disk, and the policy's folder inside such a model.

Nothing here talks to a store.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iql_ray import policy as policy_code
from iql_ray.policy import DESCRIPTION_FILE, SUMS_FILE, WEIGHTS_FILE, Policy

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

ARTIFACT_NAME = "policy"
"""Under which the policy's files lie in a saved model: `artifacts/policy`."""
CODE_FILE = "policy.py"
DIGEST_METADATA = "iql_ray.policy_digest"
"""Under which a saved model's MLmodel file has `policy_digest`."""
REQUIRED_PACKAGES = ("mlflow", "numpy", "safetensors")


def is_policy_folder(folder: Path) -> bool:
    """Whether both of a policy's files are there."""
    return (folder / WEIGHTS_FILE).is_file() and (folder / DESCRIPTION_FILE).is_file()


def find_policy(folder: Path) -> Path:
    """The policy's folder: `folder` itself, or where a saved MLflow model keeps it.

    Raises:
        ValueError: there is no policy in either place.
    """
    for candidate in (folder, folder / "artifacts" / ARTIFACT_NAME):
        if is_policy_folder(candidate):
            return candidate
    raise ValueError(f"{folder} holds no policy: expected {WEIGHTS_FILE} and {DESCRIPTION_FILE} in it")


def policy_digest(folder: Path) -> str:
    """sha256 over the policy's two files, in hex."""
    digest = hashlib.sha256()
    for name in (WEIGHTS_FILE, DESCRIPTION_FILE):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def check_digest(folder: Path, recorded: str, what: str) -> None:
    """Refuse a policy that is not the one that its digest was recorded of, outside of its own folder.

    Args:
        recorded: what `policy_digest` said, as a registry has it in its tag.
        what: names the policy in the message.

    Raises:
        ValueError: it was changed since.
    """
    found = policy_digest(folder)
    if found != recorded:
        raise ValueError(
            f"{what} was changed since it was registered: its digest is {found[:12]}..., recorded was "
            f"{recorded[:12]}...; it is not loaded. Restore its files, or register the policy of its run again"
        )


def ship_policy(policy_folder: Path, destination: Path) -> None:
    """Copy a policy with the code that acts with it, and the sha256 of all that: it needs numpy and safetensors.

    Args:
        policy_folder: holds weights.safetensors and policy.json.
        destination: made where it does not exist.

    Raises:
        ValueError: the policy does not load, or is not what its own sums were taken of.
    """
    Policy.load(policy_folder)
    destination.mkdir(parents=True, exist_ok=True)
    for file in (policy_folder / WEIGHTS_FILE, policy_folder / DESCRIPTION_FILE):
        shutil.copy(file, destination)
    shutil.copyfile(policy_code.__file__, destination / CODE_FILE)
    write_sums(destination, (WEIGHTS_FILE, DESCRIPTION_FILE, CODE_FILE))


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Record the sha256 of these files of the folder, before it goes where somebody might change them."""
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / SUMS_FILE).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))


def save_policy_model(
    policy_folder: Path, path: Path, *, example_observations: Any = None, mlflow_model: Model | None = None
) -> None:
    """Write an MLflow model that holds the policy, the code that acts with it, and what that code needs.

    Args:
        policy_folder: holds weights.safetensors and policy.json.
        path: the model's folder, which must not exist.
        example_observations: (rows, observation_dim), shipped as the input example; one row of zeros without.
        mlflow_model: the model's identity where it belongs to a run.
    """
    import mlflow.pyfunc

    policy = Policy.load(policy_folder)
    zeros = np.zeros((1, policy.description.observation_dim))
    example = np.asarray(zeros if example_observations is None else example_observations, np.float32)
    with tempfile.TemporaryDirectory() as temporary:
        shipped = Path(temporary) / ARTIFACT_NAME
        ship_policy(policy_folder, shipped)
        mlflow.pyfunc.save_model(
            path,
            python_model=str(Path(__file__).with_name("policy_model.py")),
            artifacts={ARTIFACT_NAME: str(shipped)},
            signature=_signature(policy),
            input_example=example,
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIRED_PACKAGES],
            mlflow_model=mlflow_model,
            metadata={DIGEST_METADATA: policy_digest(policy_folder)},
        )


def _signature(policy: Policy) -> ModelSignature:
    """float32 actions (-1, action_dim) or int64 choices (-1,), and the parameters.

    Nothing is said of the inputs: MLflow would refuse float64, a single observation and a dict of several parts, all
    of which the policy takes, and what does not fit the policy names better.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    description = policy.description
    if description.kind == "categorical":
        actions = TensorSpec(np.dtype(np.int64), (-1,))
    else:
        actions = TensorSpec(np.dtype(np.float32), (-1, len(description.action_low)))
    parameters = [ParamSpec("deterministic", DataType.boolean, True), ParamSpec("temperature", DataType.double, None)]
    return ModelSignature(outputs=Schema([actions]), params=ParamSchema(parameters))
