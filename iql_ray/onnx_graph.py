"""The policy's action at its mean, or its most likely action, as an ONNX graph: raw observations in, actions out.

Built node by node from the policy's weights: this needs onnx, to run the graph any ONNX runtime does. Sampling is
left out: whoever wants it has `policy.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from iql_ray.policy import ACTION_LIMIT, Policy

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 17
IR_VERSION = 8
"""With this operator set, what runtimes of 2022 read, so that those of small devices do."""
INPUT, OUTPUT = "observations", "actions"


class _Graph:
    """Nodes in the order in which they compute, and the constants that they need."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output


def to_onnx(policy: Policy, metadata: dict[str, str] | None = None) -> ModelProto:
    """The policy as a graph.

    Input `observations` (batch, observation_dim) float32, output `actions` (batch, action_dim) float32 within the
    environment's bounds, or (batch,) int64 choices.

    Args:
        metadata: written into the model, such as where the policy came from.

    Raises:
        ValueError: the package onnx is not installed.
    """
    helper = _onnx().helper
    graph, description = _Graph(), policy.description
    head = _choice if description.kind == "categorical" else _mean_action
    head(graph, policy, _features(graph, policy))
    model = helper.make_model(
        helper.make_graph(graph.nodes, "policy", [_input(policy)], [_output(policy)], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="iql_ray",
    )
    helper.set_model_props(model, metadata or {})
    _onnx().checker.check_model(model, full_check=True)
    return model


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ValueError("an ONNX graph needs the package onnx: pip install 'iql-ray[onnx]'") from error
    return onnx


def _input(policy: Policy) -> Any:
    helper, proto = _onnx().helper, _onnx().TensorProto
    return helper.make_tensor_value_info(INPUT, proto.FLOAT, ["batch", policy.description.observation_dim])


def _output(policy: Policy) -> Any:
    helper, proto = _onnx().helper, _onnx().TensorProto
    if policy.description.kind == "categorical":
        return helper.make_tensor_value_info(OUTPUT, proto.INT64, ["batch"])
    return helper.make_tensor_value_info(OUTPUT, proto.FLOAT, ["batch", len(policy.description.action_low)])


def _features(graph: _Graph, policy: Policy) -> str:
    """The normaliser where there is one, then the hidden layers."""
    description, values = policy.description, INPUT
    if description.observation_mean is not None:
        values = graph.node(
            "Sub", [values, graph.constant("observation_mean", description.observation_mean)], "centred"
        )
    if description.observation_std is not None:
        values = graph.node(
            "Div", [values, graph.constant("observation_std", description.observation_std)], "normalised"
        )
    for layer in range(description.num_hidden_layers):
        values = graph.node("Relu", [_product(graph, policy, f"hidden.{layer}", values)], f"features.{layer}")
    return values


def _product(graph: _Graph, policy: Policy, name: str, values: str) -> str:
    """values @ weight + bias."""
    inputs = [graph.constant(f"{name}.{part}", policy.weights[f"{name}.{part}"]) for part in ("weight", "bias")]
    return graph.node("Gemm", [values, *inputs], name)


def _mean_action(graph: _Graph, policy: Policy, features: str) -> None:
    """tanh, inside the open box, scaled to the bounds and clipped to them, step by step as `Policy.act` does."""
    low, high = (
        np.asarray(bound, np.float32) for bound in (policy.description.action_low, policy.description.action_high)
    )
    units = graph.node("Tanh", [_product(graph, policy, "mean", features)], "units")
    limits = [graph.constant("least", -ACTION_LIMIT), graph.constant("most", ACTION_LIMIT)]
    inside = graph.node("Clip", [units, *limits], "inside")
    share = graph.node("Add", [inside, graph.constant("one", 1.0)], "twice_the_share")
    scaled = graph.node("Mul", [share, graph.constant("half_width", (high - low) / 2)], "above_low")
    actions = graph.node("Add", [scaled, graph.constant("low", low)], "unclipped")
    above = graph.node("Max", [actions, "low"], "above")
    graph.node("Min", [above, graph.constant("high", high)], OUTPUT)


def _choice(graph: _Graph, policy: Policy, features: str) -> None:
    """The most likely action, the first of equals."""
    logits = _product(graph, policy, "logits", features)
    graph.node("ArgMax", [logits], OUTPUT, axis=1, keepdims=0, select_last_index=0)
