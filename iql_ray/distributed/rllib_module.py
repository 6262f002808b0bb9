"""A policy as RLlib's users hold one: a `TorchRLModule` for their EnvRunners, evaluation and further training.

    config.rl_module(rl_module_spec=rl_module_spec("pendulum-policy"))

It acts in RLlib's own units, [-1, 1], which RLlib maps to the environment's bounds (`normalize_actions`, its default).
There is no value function in it, and nothing here trains.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from iql_ray.policy import ACTION_LIMIT, Policy, PolicyDescription

POLICY_FOLDER = "policy_folder"


class PolicyRLModule(TorchRLModule):
    """The policy that lies in `model_config["policy_folder"]`, with its weights as parameters.

    Inference takes the mean, or the most likely action, by the policy's own arithmetic on the parameters as they are
    now, so that it is the policy's action to the last bit. Exploration and training get the inputs of RLlib's
    distributions: means and log standard deviations, or logits.
    """

    def setup(self) -> None:
        """Load the policy.

        Raises:
            ValueError: there is none, it was changed, or the module's spaces are not its own.
        """
        policy = Policy.load(self.model_config[POLICY_FOLDER])
        _check_spaces(policy.description, self.observation_space, self.action_space)
        self._description = _in_units(policy.description)
        self._names = {name: name.replace(".", "_") for name in policy.weights}
        for name, attribute in self._names.items():
            self.register_parameter(attribute, torch.nn.Parameter(torch.from_numpy(policy.weights[name].copy())))
        for name, fallback in (("observation_mean", 0.0), ("observation_std", 1.0)):
            values = getattr(policy.description, name)
            self.register_buffer(name, torch.tensor(fallback if values is None else values, dtype=torch.float32))

    def _weight(self, name: str) -> Tensor:
        return getattr(self, self._names[name])

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        weights = {name: self._weight(name).detach().cpu().numpy() for name in self._names}
        actions = Policy(weights, self._description).act(batch[Columns.OBS].detach().cpu().numpy())
        return {Columns.ACTIONS: torch.from_numpy(actions)}

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        features = (batch[Columns.OBS].float() - self.observation_mean) / self.observation_std
        for layer in range(self._description.num_hidden_layers):
            features = torch.relu(self._product(f"hidden.{layer}", features))
        if self._description.kind == "categorical":
            return {Columns.ACTION_DIST_INPUTS: self._product("logits", features)}
        means = torch.tanh(self._product("mean", features)).clamp(-ACTION_LIMIT, ACTION_LIMIT)
        log_stds = self._weight("log_std").clamp(self._description.log_std_min, self._description.log_std_max)
        return {Columns.ACTION_DIST_INPUTS: torch.cat([means, log_stds.expand_as(means)], dim=-1)}

    def _product(self, name: str, values: Tensor) -> Tensor:
        return values @ self._weight(f"{name}.weight") + self._weight(f"{name}.bias")


def rl_module_spec(policy_folder: str | Path) -> RLModuleSpec:
    """What `AlgorithmConfig.rl_module` takes; RLlib adds the environment's spaces.

    Args:
        policy_folder: a checkpoint's `policy/`, or what `iql-ray export` wrote; on every node that builds the module.
    """
    return RLModuleSpec(module_class=PolicyRLModule, model_config={POLICY_FOLDER: str(Path(policy_folder).absolute())})


def _in_units(description: PolicyDescription) -> PolicyDescription:
    """The same policy over [-1, 1].

    RLlib's way from there to the bounds, low + (a + 1) * (high - low) / 2, is exact in what the policy's own leaves
    undone, so that both come to the same bits.
    """
    num_actions = len(description.action_low)
    return replace(description, action_low=(-1.0,) * num_actions, action_high=(1.0,) * num_actions)


def _check_spaces(description: PolicyDescription, observations: Any, actions: Any) -> None:
    expected = (description.observation_dim,)
    if getattr(observations, "shape", None) != expected:
        raise ValueError(f"the module's observations are {observations}, the policy takes shape {expected}")
    if isinstance(actions, gymnasium.spaces.Discrete):
        fits = description.kind == "categorical" and (actions.n, actions.start) == (description.num_actions, 0)
    else:
        fits = description.kind == "gaussian" and getattr(actions, "shape", None) == (len(description.action_low),)
    if not fits:
        raise ValueError(f"the module's actions are {actions}, the policy's {_actions(description)}")


def _actions(description: PolicyDescription) -> str:
    if description.kind == "categorical":
        return f"one of {description.num_actions}"
    return f"numbers from {list(description.action_low)} to {list(description.action_high)}"
