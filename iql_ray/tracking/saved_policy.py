"""A policy's folder as a complete MLflow model on disk, and the policy's folder inside such a model.

Nothing here talks to a store.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iql_ray import policy as policy_code
from iql_ray.policy import DESCRIPTION_FILE, WEIGHTS_FILE, Policy

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

ARTIFACT_NAME = "policy"
"""Under which the policy's files lie in a saved model: `artifacts/policy`."""
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
        shipped.mkdir()
        for file in (policy_folder / WEIGHTS_FILE, policy_folder / DESCRIPTION_FILE, policy_code.__file__):
            shutil.copy(file, shipped)
        mlflow.pyfunc.save_model(
            path,
            python_model=str(Path(__file__).with_name("policy_model.py")),
            artifacts={ARTIFACT_NAME: str(shipped)},
            signature=_signature(policy),
            input_example=example,
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIRED_PACKAGES],
            mlflow_model=mlflow_model,
        )


def _signature(policy: Policy) -> ModelSignature:
    """float32 observations (-1, observation_dim) to float32 actions (-1, action_dim) or int64 choices (-1,)."""
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    description, float32 = policy.description, np.dtype(np.float32)
    if description.kind == "categorical":
        actions = TensorSpec(np.dtype(np.int64), (-1,))
    else:
        actions = TensorSpec(float32, (-1, len(description.action_low)))
    return ModelSignature(
        inputs=Schema([TensorSpec(float32, (-1, description.observation_dim))]),
        outputs=Schema([actions]),
        params=ParamSchema(
            [
                ParamSpec("deterministic", DataType.boolean, True),
                ParamSpec("temperature", DataType.double, 1.0),
            ]
        ),
    )
