"""Perceptrons with layer normalisation, for values learned from fixed data: normed units cannot grow without bound.

A plain network that is asked about actions far from the data's extrapolates along a line, and a target that it makes
itself carries that on until it diverges; with normed hidden units the last layer's weights bound what it says (Ball et
al. 2023, arXiv:2302.02948; Gallici et al. 2024, arXiv:2407.04811). Torch differentiates it: the agent's own networks,
where every microsecond counts, are `networks.EnsembleMLP`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from iql_ray.algorithm.networks import FlatParameters


class NormedMLP:
    """Multilayer perceptrons, one per member, over layers `0.weight`, `0.bias`, `1.weight`, ...

    Hidden units are relu(norm(h W + b)), norm the layer's own mean 0 and variance 1, without scale or shift.
    """

    def __init__(self, parameters: FlatParameters, num_layers: int) -> None:
        names = [f"{layer}.{part}" for layer in range(num_layers) for part in ("weight", "bias")]
        self._values = [parameters.views[name].detach().requires_grad_() for name in names]
        self._gradients = [parameters.gradient_views[name] for name in names]
        self._outputs: Tensor | None = None

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """(members, batch, in) -> (members, batch, out)."""
        return self._forward(inputs)

    @torch.enable_grad()
    def traced(self, inputs: Tensor) -> Tensor:
        """The same; `backward` may follow."""
        self._outputs = self._forward(inputs)
        return self._outputs.detach()

    def backward(self, output_gradients: Tensor) -> None:
        """Write the gradient of every parameter, given that of the last traced outputs."""
        assert self._outputs is not None
        for place, gradient in zip(
            self._gradients, torch.autograd.grad(self._outputs, self._values, output_gradients), strict=True
        ):
            place.copy_(gradient)
        self._outputs = None

    def _forward(self, inputs: Tensor) -> Tensor:
        *hidden, last = zip(self._values[::2], self._values[1::2], strict=True)
        for weight, bias in hidden:
            units = torch.baddbmm(bias.unsqueeze(1), inputs, weight)
            inputs = functional.layer_norm(units, units.shape[-1:]).relu()
        weight, bias = last  # few columns run many times slower than few rows, so it is computed transposed
        return torch.baddbmm(bias.unsqueeze(2), weight.transpose(1, 2), inputs.transpose(1, 2)).transpose(1, 2)
