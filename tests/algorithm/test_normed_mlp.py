"""Normed perceptrons against one written with torch's own layers, and what the norm is there for."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from iql_ray.algorithm.networks import FlatParameters, initial_layers, stack_members
from iql_ray.algorithm.normed_mlp import NormedMLP

SIZES = (3, 8, 8, 2)


def parameters(num_members: int) -> FlatParameters:
    members = [initial_layers(SIZES, 0, member) for member in range(num_members)]
    return FlatParameters(stack_members(members, torch.float32, torch.device("cpu")))


def by_torch(flat: FlatParameters, member: int) -> nn.Sequential:
    """The same network as modules."""
    layers: list[nn.Module] = []
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(SIZES)):
        linear = nn.Linear(inputs, outputs)
        linear.weight.data = flat.views[f"{layer}.weight"][member].T.clone()
        linear.bias.data = flat.views[f"{layer}.bias"][member].clone()
        layers += [linear, nn.LayerNorm(outputs, elementwise_affine=False), nn.ReLU()]
    return nn.Sequential(*layers[:-2])


def some_inputs(num_members: int) -> Tensor:
    return torch.randn(num_members, 5, 3, generator=torch.Generator().manual_seed(0))


def test_every_member_says_what_torchs_own_layers_say():
    flat, inputs = parameters(2), some_inputs(2)
    outputs = NormedMLP(flat, 3)(inputs)
    for member in range(2):
        assert torch.allclose(outputs[member], by_torch(flat, member)(inputs[member]), atol=1e-6)


def test_gradients_are_those_of_torchs_own_layers():
    flat, inputs = parameters(1), some_inputs(1)
    network, reference = NormedMLP(flat, 3), by_torch(flat, 0)
    outputs = network.traced(inputs)
    network.backward(2 * outputs)
    reference(inputs[0]).square().sum().backward()
    for layer in range(3):
        linear = reference[3 * layer]
        assert isinstance(linear, nn.Linear)
        assert linear.weight.grad is not None
        assert linear.bias.grad is not None
        assert torch.allclose(flat.gradient_views[f"{layer}.weight"][0].T, linear.weight.grad, atol=1e-5)
        assert torch.allclose(flat.gradient_views[f"{layer}.bias"][0], linear.bias.grad, atol=1e-5)


def test_inputs_that_grow_without_bound_do_not_make_outputs_grow():
    network, inputs = NormedMLP(parameters(1), 3), some_inputs(1)
    assert torch.allclose(network(1e4 * inputs), network(1e6 * inputs), atol=1e-3)


def test_a_step_of_the_parameters_is_seen_at_once():
    flat = parameters(1)
    network, inputs = NormedMLP(flat, 3), some_inputs(1)
    before = network(inputs)
    flat.values.mul_(2.0)
    assert not torch.allclose(network(inputs), before)
