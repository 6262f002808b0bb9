"""Ensembles: the forward and backward written out equal autograd's, and no member knows of another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iql_ray.algorithm.networks import (
    EnsembleMLP,
    FlatParameters,
    initial_layers,
    stack_members,
)

IN, HIDDEN, BATCH = 4, (5, 7), 6


def parameters_of(members: int, out: int) -> FlatParameters:
    """Random weights and, unlike at the start of a run, random biases."""
    generator = torch.Generator().manual_seed(members)
    sizes = (IN, *HIDDEN, out)
    stacked = stack_members(
        [initial_layers(sizes, seed, "value") for seed in range(members)], torch.float64, torch.device("cpu")
    )
    for value in stacked.values():
        value += 0.1 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return FlatParameters(stacked)


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks_of(members: int) -> list[Tensor]:
    """Of both hidden layers: 0, or 1 / keep rate."""
    return [(random_tensor(members, BATCH, units, seed=units) > -0.5).double() / 0.7 for units in HIDDEN]


def by_autograd(views: dict[str, Tensor], inputs: Tensor, masks: list[Tensor] | None) -> Tensor:
    """The same network member by member in plain torch."""
    outputs = []
    for member in range(inputs.shape[0]):
        features = inputs[member]
        for layer in range(len(HIDDEN)):
            features = torch.relu(features @ views[f"{layer}.weight"][member] + views[f"{layer}.bias"][member])
            features = features if masks is None else features * masks[layer][member]
        outputs.append(features @ views["2.weight"][member] + views["2.bias"][member])
    return torch.stack(outputs)


@pytest.mark.parametrize("members", [1, 2, 6])
@pytest.mark.parametrize("out", [1, 3])
@pytest.mark.parametrize("has_dropout", [False, True])
def test_forward_and_backward_equal_autograds(members: int, out: int, has_dropout: bool):
    parameters = parameters_of(members, out)
    inputs, output_weights = random_tensor(members, BATCH, IN), random_tensor(members, BATCH, out, seed=1)
    masks = masks_of(members) if has_dropout else None
    remaining = iter(masks or ())
    network = EnsembleMLP(parameters, 3)
    outputs = network(inputs, (lambda features: next(remaining)) if masks else None)
    leaves = {name: view.clone().requires_grad_() for name, view in parameters.views.items()}
    expected = by_autograd(leaves, inputs, masks)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)

    network.backward(output_weights)
    gradients = torch.autograd.grad((expected * output_weights).sum(), list(leaves.values()))
    flat = torch.cat([each.reshape(-1) for each in gradients])
    torch.testing.assert_close(parameters.gradients, flat, rtol=0, atol=1e-12)


@pytest.mark.parametrize("out", [1, 3])
def test_members_do_not_touch_each_other(out: int):
    """A change of member 1 changes neither the output nor the gradient of the others."""
    inputs = random_tensor(3, BATCH, IN)

    def outcome(change: float) -> tuple[Tensor, Tensor]:
        parameters = parameters_of(3, out)
        for view in parameters.views.values():
            view[1] += change
        network = EnsembleMLP(parameters, 3)
        outputs = network(inputs)
        network.backward(2 * outputs)
        return outputs.clone(), parameters.gradient_views["0.weight"].clone()

    for before, after in zip(outcome(0.0), outcome(0.5), strict=True):
        assert torch.equal(before[[0, 2]], after[[0, 2]])
        assert not torch.equal(before[1], after[1])


def test_a_second_batch_leaves_nothing_behind_in_the_next_gradient():
    parameters = parameters_of(2, 1)
    network = EnsembleMLP(parameters, 3)
    gradients = []
    for seed in (0, 1, 0):
        network.backward(torch.ones_like(network(random_tensor(2, BATCH, IN, seed=seed))))
        gradients.append(parameters.gradients.clone())
    assert torch.equal(gradients[0], gradients[2])
    assert not torch.equal(gradients[0], gradients[1])


def test_views_are_the_flat_buffer():
    parameters = FlatParameters({"a": torch.zeros(2, 3), "b": torch.ones(2)})
    parameters.views["a"][1, 0] = 7.0
    with torch.no_grad():
        parameters.values[-1] = 5.0
    assert parameters.values.tolist() == [0, 0, 0, 7, 0, 0, 1, 5]
    assert parameters.views["b"].tolist() == [1, 5]
    parameters.gradients[6] = 2.0
    assert parameters.gradient_views["b"].tolist() == [2, 0]


def test_flat_parameters_copy_what_they_are_given():
    given = {"a": torch.zeros(2)}
    FlatParameters(given).views["a"].fill_(1.0)
    assert given["a"].tolist() == [0, 0]


def test_gradients_go_into_the_buffer_that_is_given():
    buffer = torch.zeros(3)
    assert FlatParameters({"a": torch.zeros(3)}, buffer).gradients is buffer


@pytest.mark.parametrize("sizes", [(11, 32), (32, 11), (8, 8)])
def test_initial_weights_are_orthogonal_with_scale_sqrt_2_and_biases_zero(sizes: tuple[int, int]):
    """The shorter side is orthogonal: W W^T, or W^T W, is twice the identity."""
    tensors = initial_layers(sizes, 3, "value")
    weight = tensors["0.weight"] if sizes[0] <= sizes[1] else tensors["0.weight"].T
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(min(sizes), dtype=torch.float64), rtol=0, atol=1e-12)
    assert tensors["0.bias"].tolist() == [0.0] * sizes[1]


def test_initial_weights_depend_on_seed_and_name_and_on_nothing_else():
    first, again, other_seed, other_name = (
        initial_layers((4, 5, 1), *path)["1.weight"] for path in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other_seed)
    assert not torch.equal(first, other_name)
