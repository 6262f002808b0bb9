"""Networks of a population: every weight is (members, in, out), so all members share a few matrix products.

Parameters are views of one flat buffer and their gradients of another: an optimiser step, a Polyak step and an
all-reduce are each one pass over memory. Nothing here knows losses or optimisers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from iql_ray.seeding import child_seed

INITIAL_SCALE = math.sqrt(2.0)
NARROW = 16
"""Products with fewer columns are computed transposed."""

MakeMask = Callable[[Tensor], Tensor]
"""From features (members, batch, hidden), a mask of 0 and 1 / keep_rate of that shape."""


class FlatParameters:
    """Named parameters as views of one flat tensor `values`, their gradients as views of `gradients`.

    Args:
        tensors: initial values by name, shapes (members, ...); they are copied.
        gradients: the flat buffer that gradients are written into; a fresh one where None.
    """

    def __init__(self, tensors: Mapping[str, Tensor], gradients: Tensor | None = None) -> None:
        self.values = torch.cat([tensor.reshape(-1) for tensor in tensors.values()])
        self.gradients = torch.zeros_like(self.values) if gradients is None else gradients
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self.views = named_views(self.values, shapes)
        self.gradient_views = named_views(self.gradients, shapes)


def named_views(flat: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    views, start = {}, 0
    for name, shape in shapes.items():
        views[name] = flat[start : start + shape.numel()].view(shape)
        start += shape.numel()
    return views


def initial_layers(sizes: Sequence[int], seed: int, *names: str | int) -> dict[str, Tensor]:
    """One member's layers: orthogonal weights of scale sqrt 2, zero biases, as the authors initialise.

    Args:
        sizes: (in, hidden, ..., out).
        seed: run seed; `names` make the network's own generator.

    Returns:
        `K.weight` (in, out) and `K.bias` (out,), float64 so that every precision starts from the same numbers.
    """
    generator = torch.Generator().manual_seed(child_seed(seed, "initial", *names))
    tensors: dict[str, Tensor] = {}
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        weight = torch.empty(fan_in, fan_out, dtype=torch.float64)
        tensors[f"{layer}.weight"] = torch.nn.init.orthogonal_(weight, INITIAL_SCALE, generator=generator)
        tensors[f"{layer}.bias"] = torch.zeros(fan_out, dtype=torch.float64)
    return tensors


def stack_members(
    members: Sequence[Mapping[str, Tensor]], dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """Per-member tensors of one architecture, stacked along a new leading member axis."""
    return {name: torch.stack([member[name] for member in members]).to(device, dtype) for name in members[0]}


class Workspace:
    """Buffers of a batch's size, kept between calls and shared by networks that take turns.

    An update then allocates nothing large, and what it touches stays in the processor's cache: on a CPU, page faults
    and cold memory would cost a third of its time.
    """

    def __init__(self) -> None:
        self._memory: dict[tuple[str, int], Tensor] = {}
        self._views: dict[tuple[str, int, torch.Size], Tensor] = {}

    def take(self, name: str, layer: int, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A tensor of that shape with `like`'s type; it holds until the same name and layer are taken again."""
        size = torch.Size(shape)
        view = self._views.get((name, layer, size))
        if view is None:
            memory = self._memory.get((name, layer))
            if memory is None or memory.numel() < size.numel():
                self._memory[name, layer] = memory = like.new_empty(size.numel())
            self._views[name, layer, size] = view = memory[: size.numel()].view(size)
        return view


class EnsembleMLP:
    """Multilayer perceptrons with ReLU, one per member, over layers `0.weight`, `0.bias`, `1.weight`, ...

    activations   h0 = inputs --W0--> h1 --W1--> h2 --W2--> outputs       hidden h = mask * relu(h W + b)
    gradients     dW_k = h_k^T dz_k     db_k = sum over the batch of dz_k     dh_k = dz_k W_k^T

    Forward and backward are written out, over the buffers of a workspace. Networks may share one: a backward then
    follows its own forward before another network's.
    """

    def __init__(self, parameters: FlatParameters, num_layers: int, workspace: Workspace | None = None) -> None:
        self._parameters = parameters
        self._workspace = workspace or Workspace()
        self.weights = [parameters.views[f"{layer}.weight"] for layer in range(num_layers)]
        self.biases = [parameters.views[f"{layer}.bias"].unsqueeze(1) for layer in range(num_layers)]
        self.weight_gradients = [parameters.gradient_views[f"{layer}.weight"] for layer in range(num_layers)]
        self.bias_gradients = [parameters.gradient_views[f"{layer}.bias"].unsqueeze(1) for layer in range(num_layers)]
        self._activations: list[Tensor] = []
        self._masks: list[Tensor] = []

    @torch.no_grad()
    def __call__(self, inputs: Tensor, make_mask: MakeMask | None = None) -> Tensor:
        """(members, batch, in) -> new outputs (members, batch, out); `make_mask` drops hidden units."""
        self._activations, self._masks = [inputs], []
        for layer in range(len(self.weights) - 1):
            hidden = self.buffer("activation", layer, inputs.shape[1])
            torch.baddbmm(self.biases[layer], self._activations[-1], self.weights[layer], out=hidden).relu_()
            if make_mask is not None:
                self._masks.append(make_mask(hidden))
                hidden.mul_(self._masks[-1])
            self._activations.append(hidden)
        return _outputs(self._activations[-1], self.weights[-1], self.biases[-1])

    def parameter(self, name: str) -> Tensor | None:
        """One that is not of a layer, (members, ...), None where there is no such."""
        return self._parameters.views.get(name)

    @torch.no_grad()
    def backward(self, output_gradients: Tensor, **others: Tensor) -> None:
        """Write the gradient of every parameter.

        Args:
            output_gradients: of the last call's outputs, (members, batch, out).
            others: of the parameters that are not of a layer, by name.
        """
        for name, gradient in others.items():
            self._parameters.gradient_views[name].copy_(gradient)
        gradients = output_gradients
        for layer in reversed(range(len(self.weights))):
            inputs = self._activations[layer]
            _weight_gradient(inputs, gradients, out=self.weight_gradients[layer])
            torch.sum(gradients, 1, keepdim=True, out=self.bias_gradients[layer])
            if layer > 0:
                gradients = _input_gradient(self, layer, gradients)
                torch.ops.aten.threshold_backward.grad_input(gradients, inputs, 0, grad_input=gradients)
                if self._masks:
                    gradients.mul_(self._masks[layer - 1])

    def buffer(self, name: str, layer: int, batch_size: int) -> Tensor:
        """Of the workspace: (members, batch, units of that layer)."""
        weight = self.weights[layer]
        return self._workspace.take(name, layer, weight, (weight.shape[0], batch_size, weight.shape[2]))


# A last layer is narrow, and a batched product with few columns runs 5 to 15 times slower than the same product with
# few rows: it is computed transposed, and the gradient of a single output is an outer product.


def _outputs(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.baddbmm(bias.transpose(1, 2), weight.transpose(1, 2), inputs.transpose(1, 2)).transpose(1, 2)


def _weight_gradient(inputs: Tensor, gradient: Tensor, out: Tensor) -> None:
    if gradient.shape[2] < NARROW:
        out.copy_(torch.bmm(gradient.transpose(1, 2), inputs).transpose(1, 2))
    else:
        torch.bmm(inputs.transpose(1, 2), gradient, out=out)


def _input_gradient(network: EnsembleMLP, layer: int, gradient: Tensor) -> Tensor:
    out = network.buffer("gradient", layer - 1, gradient.shape[1])
    transposed = network.weights[layer].transpose(1, 2)
    if gradient.shape[2] > 1:
        return torch.bmm(gradient, transposed, out=out)
    return torch.mul(gradient, transposed, out=out)
