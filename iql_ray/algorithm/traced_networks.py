"""The held networks' numbers as networks of a graph that is being traced, see `compiled_update.py`.

Everything is a new value, which is what a compiler wants, and what running step by step does not; Adam alone and the
target's step write into the held buffers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.algorithm.networks import NARROW, MakeMask, named_views

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Of `torch.optim.Adam`, which moves the held networks."""

State = Mapping[str, Mapping[str, Tensor]]
"""By network: its flat values, and Adam's moments and step where it is trained."""


class TracedNetworks:
    """The held networks' numbers as networks of a graph that is being traced."""

    def __init__(
        self,
        state: State,
        shapes: Mapping[str, Mapping[str, torch.Size]],
        num_layers: int,
        config: IQLConfig,
        products: torch.dtype,
        masks: Sequence[Tensor],
    ) -> None:
        self.value, self.critic, self.target = (
            TracedMLP(state[name], shapes[name], num_layers, products) for name in ("value", "critic", "target_critic")
        )
        self.policy = TracedMLP(state["policy"], shapes["policy"], num_layers, products, masks)
        self._trained = {"value": self.value, "policy": self.policy, "critic": self.critic}
        self._config = config

    def step(self, *names: str, policy_learning_rate: float | Tensor = 0.0) -> None:
        for name in names:
            self._trained[name].step(policy_learning_rate if name == "policy" else self._config.learning_rate)
        if "critic" in names:
            self.target.follow(self.critic, self._config.target_update_rate)

    def gradients(self, *names: str) -> Tensor:
        """Flat, one network's after the other's, as the held ones lie."""
        return torch.cat([self._trained[name].gradients() for name in names])

    def take_gradients(self, gradients: Tensor, *names: str) -> None:
        """What `gradients` gave, or its mean over learners; the next step goes along it."""
        sizes = [self._trained[name].size for name in names]
        for name, own in zip(names, gradients.split(sizes), strict=True):
            self._trained[name].taken = own


class TracedMLP:
    """What `EnsembleMLP` computes, in new tensors; gradients are kept until the step.

    Args:
        products: type of the matrix products' factors; everything else has the parameters' own.
        masks: of the hidden layers, for calls that are to drop units.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        shapes: Mapping[str, torch.Size],
        num_layers: int,
        products: torch.dtype,
        masks: Sequence[Tensor] = (),
    ) -> None:
        self._state, self._shapes, self._num_layers, self._products = state, shapes, num_layers, products
        self._masks = masks
        self.size = state["values"].numel()
        self.taken: Tensor | None = None
        self._views = named_views(state["values"], shapes)
        self._gradients: dict[str, Tensor] = {}
        self._activations: list[Tensor] = []

    def __call__(self, inputs: Tensor, make_mask: MakeMask | None = None) -> Tensor:
        """Masks come from generators, which no graph has: those that were handed in are taken, not `make_mask`."""
        self._views = named_views(self._state["values"], self._shapes)
        self._activations = [inputs.to(self._products)]
        for layer in range(self._num_layers - 1):
            weight, bias = self._layer(layer)
            hidden = torch.relu(torch.bmm(self._activations[-1], weight) + bias)
            if make_mask is not None:
                hidden = hidden * self._masks[layer]
            self._activations.append(hidden.to(self._products))
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
                if len(self._masks) > 0:
                    gradients = gradients * self._masks[layer - 1]

    def _layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Weight, (members, in, out), and bias, (members, 1, out)."""
        return self._views[f"{layer}.weight"].to(self._products), self._views[f"{layer}.bias"].unsqueeze(1)

    def step(self, learning_rate: float | Tensor) -> None:
        """Adam's (Kingma and Ba 2015), as torch's fused one does it."""
        state, gradients = self._state, self.gradients() if self.taken is None else self.taken
        exp_avg = state["exp_avg"].lerp_(gradients, 1 - BETA_1)
        exp_avg_sq = state["exp_avg_sq"].mul_(BETA_2).addcmul_(gradients, gradients, value=1 - BETA_2)
        step = state["step"].add_(1).double()  # in float32, 1 - 0.999^step would be off by 6e-5 at first
        step_size = (learning_rate / (1 - BETA_1**step)).to(gradients.dtype)
        correction = (1 - BETA_2**step).sqrt().to(gradients.dtype)
        state["values"].sub_(step_size * exp_avg / (exp_avg_sq.sqrt() / correction + EPSILON))

    def gradients(self) -> Tensor:
        """Of the last backward, flat."""
        return torch.cat([self._gradients[name].reshape(-1) for name in self._shapes])

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
