"""The update rule as one compiled graph: products, losses, gradients, Adam and the target's step, fused where it pays.

It computes on the very tensors of the held networks, so an agent can change between both from one update to the next.
Inside the graph everything is a new value, which is what a compiler wants, and what running step by step does not.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from iql_ray.algorithm.held_networks import TRAINED, HeldNetworks
from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.algorithm.networks import NARROW, MakeMask, named_views
from iql_ray.algorithm.update_rule import UpdateRule
from iql_ray.experience import TransitionBatch

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Of `torch.optim.Adam`, which moves the held networks."""

Precision = Literal["float32", "bf16"]
"""Of the factors of matrix products."""

COMPILERS = ("g++", "clang++", "c++")


def check_compilable(config: IQLConfig, *, is_alone: bool) -> None:
    """Refuse what no single graph can hold.

    Args:
        is_alone: whether there is but one learner.

    Raises:
        ValueError: dropout, several learners, or no C++ compiler on PATH; says what to do.
    """
    reasons = {
        f"dropout ({config.dropout_rate:g}), whose masks come from generators": config.dropout_rate > 0,
        "several learners, whose gradients are averaged half-way": not is_alone,
        f"no C++ compiler on PATH ({', '.join(COMPILERS)})": not any(map(shutil.which, COMPILERS)),
    }
    found = [reason for reason, is_so in reasons.items() if is_so]
    if found:
        raise ValueError(f"the update cannot be compiled with {' and '.join(found)}; use --compile off")


class CompiledUpdate:
    """One update of the held networks; compiled at its first call, which takes some ten seconds.

    Where the compiler fails (no headers, no room on the disk, ...), that call warns, and it and all others run plain.

    Args:
        precision: bf16 rounds the factors of all matrix products to bfloat16; parameters, their sums and everything
            else stay as they are.
    """

    def __init__(self, rule: UpdateRule, networks: HeldNetworks, precision: Precision = "float32") -> None:
        self._rule, self._networks = rule, networks
        self._config, self._num_layers = networks.config, networks.num_layers
        self._shapes = {
            name: {each: view.shape for each, view in parameters.views.items()}
            for name, parameters in networks.parameters.items()
        }
        self._state: dict[str, dict[str, Tensor]] = {
            name: {"values": parameters.values.detach(), **(networks.moments(name) if name in TRAINED else {})}
            for name, parameters in networks.parameters.items()
        }
        values = self._state["value"]["values"]
        self._products = torch.bfloat16 if precision == "bf16" else values.dtype
        self._policy_learning_rate = values.new_zeros(())
        from torch._inductor import config as inductor  # heavy, and most agents are never compiled

        inductor.compile_threads = 1  # a pool of compilers would stay in memory, several hundred megabytes of it
        self._step: Callable[..., dict[str, Tensor]] | None = torch.compile(self._traced, fullgraph=True, dynamic=False)

    def __call__(self, batch: TransitionBatch, policy_learning_rate: float) -> dict[str, Tensor]:
        """See `UpdateRule`."""
        if self._step is None:
            return self._rule(self._networks, batch, policy_learning_rate)
        self._policy_learning_rate.fill_(policy_learning_rate)
        try:
            return self._step(self._state, batch, self._policy_learning_rate)
        except RuntimeError as error:
            from torch._dynamo.exc import TorchDynamoException  # heavy

            if not isinstance(error, TorchDynamoException):  # those come before anything is computed
                raise
            reason = " ".join(str(error).split("\n")[:2])
            warnings.warn(f"the update could not be compiled and runs plain: {reason}", RuntimeWarning, stacklevel=2)
            self._step = None
            return self(batch, policy_learning_rate)

    def _traced(
        self, state: Mapping[str, Mapping[str, Tensor]], batch: TransitionBatch, policy_learning_rate: Tensor
    ) -> dict[str, Tensor]:
        networks = TracedNetworks(state, self._shapes, self._num_layers, self._config, self._products)
        return self._rule(networks, batch, policy_learning_rate)


class TracedNetworks:
    """The held networks' numbers as networks of a graph that is being traced."""

    def __init__(
        self,
        state: Mapping[str, Mapping[str, Tensor]],
        shapes: Mapping[str, Mapping[str, torch.Size]],
        num_layers: int,
        config: IQLConfig,
        products: torch.dtype,
    ) -> None:
        self.value, self.policy, self.critic, self.target = (
            TracedMLP(state[name], shapes[name], num_layers, products)
            for name in ("value", "policy", "critic", "target_critic")
        )
        self._config = config

    def step(self, *names: str, policy_learning_rate: float | Tensor = 0.0) -> None:
        rate = self._config.learning_rate
        if "value" in names:
            self.value.step(rate)
        if "policy" in names:
            self.policy.step(policy_learning_rate)
        if "critic" in names:
            self.critic.step(rate)
            self.target.follow(self.critic, self._config.target_update_rate)


class TracedMLP:
    """What `EnsembleMLP` computes, in new tensors; gradients are kept until the step.

    Args:
        products: type of the matrix products' factors; everything else has the parameters' own.
    """

    def __init__(
        self, state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], num_layers: int, products: torch.dtype
    ) -> None:
        self._state, self._shapes, self._num_layers, self._products = state, shapes, num_layers, products
        self._views = named_views(state["values"], shapes)
        self._gradients: dict[str, Tensor] = {}
        self._activations: list[Tensor] = []

    def __call__(self, inputs: Tensor, make_mask: MakeMask | None = None) -> Tensor:
        assert make_mask is None, "masks come from generators, which no graph has"
        self._views = named_views(self._state["values"], self._shapes)
        self._activations = [inputs.to(self._products)]
        for layer in range(self._num_layers - 1):
            weight, bias = self._layer(layer)
            sums = torch.bmm(self._activations[-1], weight) + bias
            self._activations.append(torch.relu(sums).to(self._products))
        weight, bias = self._layer(self._num_layers - 1)
        return _outputs(self._activations[-1], weight) + bias

    def parameter(self, name: str) -> Tensor | None:
        return self._views.get(name)

    def backward(self, output_gradients: Tensor, **others: Tensor) -> None:
        gradients = output_gradients
        self._gradients = dict(others)
        for layer in reversed(range(self._num_layers)):
            inputs, weight = self._activations[layer], self._layer(layer)[0]
            self._gradients[f"{layer}.bias"] = gradients.sum(1)
            factors = gradients.to(self._products)
            self._gradients[f"{layer}.weight"] = _weight_gradient(inputs, factors).to(gradients.dtype)
            if layer > 0:
                gradients = _input_gradient(factors, weight).to(gradients.dtype) * (inputs > 0)

    def _layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Weight, (members, in, out), and bias, (members, 1, out)."""
        return self._views[f"{layer}.weight"].to(self._products), self._views[f"{layer}.bias"].unsqueeze(1)

    def step(self, learning_rate: float | Tensor) -> None:
        """Adam's (Kingma and Ba 2015), as torch's fused one does it."""
        state = self._state
        gradients = torch.cat([self._gradients[name].reshape(-1) for name in self._shapes])
        exp_avg = state["exp_avg"].lerp_(gradients, 1 - BETA_1)
        exp_avg_sq = state["exp_avg_sq"].mul_(BETA_2).addcmul_(gradients, gradients, value=1 - BETA_2)
        step = state["step"].add_(1).double()  # in float32, 1 - 0.999^step would be off by 6e-5 at first
        step_size = (learning_rate / (1 - BETA_1**step)).to(gradients.dtype)
        correction = (1 - BETA_2**step).sqrt().to(gradients.dtype)
        state["values"].sub_(step_size * exp_avg / (exp_avg_sq.sqrt() / correction + EPSILON))

    def follow(self, other: TracedMLP, rate: float) -> None:
        """Polyak averaging."""
        self._state["values"].lerp_(other._state["values"], rate)


def _outputs(inputs: Tensor, weight: Tensor) -> Tensor:
    """One output is a sum, and few are computed transposed: see `networks.py`."""
    if weight.shape[2] == 1:
        return (inputs * weight.transpose(1, 2)).sum(-1, keepdim=True)
    return torch.bmm(weight.transpose(1, 2), inputs.transpose(1, 2)).transpose(1, 2)


def _weight_gradient(inputs: Tensor, gradients: Tensor) -> Tensor:
    if gradients.shape[2] >= NARROW:
        return torch.bmm(inputs.transpose(1, 2), gradients)
    return torch.bmm(gradients.transpose(1, 2), inputs).transpose(1, 2)


def _input_gradient(gradients: Tensor, weight: Tensor) -> Tensor:
    return gradients * weight.transpose(1, 2) if weight.shape[2] == 1 else torch.bmm(gradients, weight.transpose(1, 2))
