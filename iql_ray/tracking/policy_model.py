"""The registered model's code: MLflow runs this file wherever the model is loaded ("models from code").

It needs mlflow, numpy and safetensors and nothing else: no torch, nothing of this package. The policy itself comes
with the model, code and weights, so that a registered model acts as it did on the day it was registered. Nobody
imports this file; `registry.py` ships it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

MODULE_NAME = "iql_ray_model_policy"


def load_policy_class(path):
    """The class `Policy` of the file that came with the model, whatever package is or is not installed here."""
    specification = importlib.util.spec_from_file_location(MODULE_NAME, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[MODULE_NAME] = module  # dataclasses look their own module up while it is being run
    specification.loader.exec_module(module)
    return module.Policy


class PolicyModel(PythonModel):
    """Raw observations in, actions as the environment takes them out."""

    def load_context(self, context):
        folder = Path(context.artifacts["policy"])
        self.policy = load_policy_class(folder / "policy.py").load(folder)

    def predict(self, context, model_input: np.ndarray, params=None):
        """Actions for observations (batch, observation_dim): (batch, action_dim), float32, or (batch,), int64 choices.

        Args:
            context: unused; MLflow's convention.
            model_input: observations.
            params: `deterministic` (default True) acts at the mean, or takes the most likely action; otherwise
                `temperature` (default 1.0) scales the standard deviation, or samples softmax(logits / temperature).
        """
        params = params or {}
        is_deterministic = params.get("deterministic", True)
        temperature = 0.0 if is_deterministic else params.get("temperature", 1.0)
        return self.policy.act(model_input, temperature=temperature)


set_model(PolicyModel())
