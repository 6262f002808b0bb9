"""The held networks' numbers as networks of a graph that is being traced, see `compiled_update.py`.

Everything is a new value, which is what a compiler wants, and what running step by step does not; Adam alone and the
target's step write into the held buffers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iql_ray.algorithm.held_networks import TRAINED
from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.algorithm.networks import NARROW, MakeMask, named_views

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Of `torch.optim.Adam`, which moves the held networks."""


class AdamScales(NamedTuple):
    """What Adam's step depends on beside gradients and moments, one number a network, in the order of `TRAINED`.

    They come from outside the graph: in it, their powers would be taken again for every few parameters.
    """

    step_sizes: Tensor
    """Learning rate / (1 - BETA_1^step)."""
    corrections: Tensor
    """Square root of (1 - BETA_2^step)."""

    @staticmethod
    def of(steps: Tensor, learning_rates: Tensor, dtype: torch.dtype) -> AdamScales:
        """Of the step that is made now; both (networks,) in float64, where 1 - 0.999 is not off by 6e-5."""
        step_sizes, corrections = learning_rates / (1 - BETA_1**steps), (1 - BETA_2**steps).sqrt()
        return AdamScales(step_sizes.to(dtype), corrections.to(dtype))


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
        masks: Sequence[Tensor] = (),
        scales: AdamScales | None = None,
    ) -> None:
        self.value, self.critic, self.target = (
            TracedMLP(state[name], shapes[name], num_layers, products) for name in ("value", "critic", "target_critic")
        )
        self.policy = TracedMLP(state["policy"], shapes["policy"], num_layers, products, masks)
        self._trained = {"value": self.value, "policy": self.policy, "critic": self.critic}
        self._config = config
        self._scales = scales

    def step(self, *names: str, policy_learning_rate: float = 0.0) -> None:
        """The policy's learning rate is in the scales, as all are."""
        assert self._scales is not None
        for name in names:
            index = TRAINED.index(name)
            self._trained[name].step(self._scales.step_sizes[index], self._scales.corrections[index])
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
            self._gradients[f"{layer}.bias"] = _sum_over_batch(gradients)
            factors = gradients.to(self._products)
            self._gradients[f"{layer}.weight"] = _weight_gradient(inputs, factors).to(gradients.dtype)
            if layer > 0:
                gradients = _input_gradient(factors, weight).to(gradients.dtype) * (inputs > 0)
                if len(self._masks) > 0:
                    gradients = gradients * self._masks[layer - 1]

    def _layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Weight, (members, in, out), and bias, (members, 1, out)."""
        return self._views[f"{layer}.weight"].to(self._products), self._views[f"{layer}.bias"].unsqueeze(1)

    def step(self, step_size: Tensor, correction: Tensor) -> None:
        """Adam's (Kingma and Ba 2015), as torch's fused one does it."""
        state, gradients = self._state, self.gradients() if self.taken is None else self.taken
        exp_avg = state["exp_avg"].lerp_(gradients, 1 - BETA_1)
        exp_avg_sq = state["exp_avg_sq"].mul_(BETA_2).addcmul_(gradients, gradients, value=1 - BETA_2)
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


def _sum_over_batch(gradients: Tensor) -> Tensor:
    """(members, batch, units) -> (members, 1, units)."""
    return _row_product(gradients.new_ones(1, 1, gradients.shape[1]).expand(gradients.shape[0], -1, -1), gradients)


def _weight_gradient(inputs: Tensor, gradients: Tensor) -> Tensor:
    if gradients.shape[2] >= NARROW:
        return torch.bmm(inputs.transpose(1, 2), gradients)
    if gradients.shape[2] == 1:
        return _row_product(gradients.transpose(1, 2), inputs).transpose(1, 2)
    return torch.bmm(gradients.transpose(1, 2), inputs).transpose(1, 2)


def _row_product(row: Tensor, matrix: Tensor) -> Tensor:
    """(members, 1, batch) times (members, batch, units), in the library: compiled, it would be a sum of strided rows,
    which takes 5 to 10 times as long; with an addend the compiler leaves it alone."""
    return torch.baddbmm(row.new_zeros(1, 1, 1), row, matrix, beta=0)


def _input_gradient(gradients: Tensor, weight: Tensor) -> Tensor:
    return gradients * weight.transpose(1, 2) if weight.shape[2] == 1 else torch.bmm(gradients, weight.transpose(1, 2))
