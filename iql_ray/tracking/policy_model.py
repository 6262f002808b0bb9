"""The registered model's code: MLflow runs this file wherever the model is loaded ("models from code").

It needs mlflow, numpy and safetensors and nothing else: no torch, nothing of this package. The policy itself comes
with the model, code and weights, so that a registered model acts as it did on the day it was registered. The sha256
of each file came along, and is checked before the file is used: a model that was changed does not load. Nobody
imports this file; `saved_policy.py` ships it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

MODULE_NAME = "iql_ray_model_policy"
CODE_FILE = "policy.py"
SUMS_FILE = "SHA256SUMS"


def load_policy(folder):
    """The policy that came with the model, by the code that came with it, once that is known to be unchanged."""
    check_code(folder)
    specification = importlib.util.spec_from_file_location(MODULE_NAME, folder / CODE_FILE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[MODULE_NAME] = module  # dataclasses look their own module up while it is being run
    specification.loader.exec_module(module)
    return module.Policy.load(folder)


def check_code(folder):
    """Refuse code that is not what was recorded; once it runs, it checks the weights and the description."""
    sums, code = folder / SUMS_FILE, folder / CODE_FILE
    recorded = sums.read_text().splitlines() if sums.is_file() else []
    if not code.is_file() or f"{hashlib.sha256(code.read_bytes()).hexdigest()}  {CODE_FILE}" not in recorded:
        raise ValueError(f"{folder}: {CODE_FILE} is missing or is not the one recorded in {SUMS_FILE}; not loaded")


class PolicyModel(PythonModel):
    """Raw observations in, actions as the environment takes them out."""

    def load_context(self, context):
        self.policy = load_policy(Path(context.artifacts["policy"]))

    # The hint is for MLflow, which warns of a method without; it checks nothing by it.
    def predict(self, context, model_input: np.ndarray, params=None):
        """Actions for observations: one action for one observation, a batch of them for a batch.

        Args:
            context: unused; MLflow's convention.
            model_input: (observation_dim,) or (batch, observation_dim), any real dtype, or what `Policy.act` takes
                beside.
            params: `deterministic` (default True) acts at the mean, or takes the most likely action. With False,
                `temperature` (default 1.0) scales the standard deviation, or samples softmax(logits / temperature).

        Returns:
            (action_dim,) or (batch, action_dim), float32, or int64 choices without the last axis.

        Raises:
            ValueError: observations of another shape, or a temperature for an action without noise.
        """
        return self.policy.act(model_input, temperature=chosen_temperature(**(params or {})))


def chosen_temperature(deterministic=True, temperature=None):
    """What both parameters come to for `Policy.act`."""
    if not deterministic:
        return 1.0 if temperature is None else temperature
    if temperature:
        raise ValueError(f"temperature is {temperature} and deterministic is true; give deterministic=False with it")
    return 0.0


set_model(PolicyModel())
