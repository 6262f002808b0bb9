"""The graph acts as the policy does, run by onnxruntime: every kind, normalised or not, on random observations."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from iql_ray.onnx_graph import to_onnx
from iql_ray.policy import Policy
from tests.evaluation.toys import balancing_policy, random_policy
from tests.test_policy import choice_of, hand_choice, hand_policy
from tests.tracking.examples import small_policy

NORMALISED = {"observation_mean": (1.0, -2.0), "observation_std": (2.0, 0.25)}


def actions_of(model, observations) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (actions,) = session.run(["actions"], {"observations": np.asarray(observations, np.float32)})
    return actions


def test_the_graphs_action_is_the_forward_pass_by_hand():
    # x = (1, 2): relu(3) = 3, relu(-1) = 0; tanh(1.5); the middle of [-2, 4] is 1, half its width 3.
    assert actions_of(to_onnx(hand_policy()), [[1.0, 2.0]]) == pytest.approx(np.array([[1 + 3 * np.tanh(1.5)]]))


@pytest.mark.parametrize(
    "policy",
    [
        small_policy(),
        hand_policy(),
        hand_policy(**NORMALISED),
        hand_policy(action_low=(-1e-3,), action_high=(1e4,)),
        random_policy(observation_dim=17, action_dim=6),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_mean_actions_are_the_policys_to_five_digits(policy: Policy, scale):
    observations = np.random.default_rng(0).normal(scale=scale, size=(500, policy.description.observation_dim))
    actions, expected = actions_of(to_onnx(policy), observations), policy.act(observations)
    width = np.subtract(policy.description.action_high, policy.description.action_low)
    assert actions.dtype == np.float32
    assert np.abs((actions - expected) / np.maximum(width, 1)).max() < 1e-5
    assert (actions >= np.asarray(policy.description.action_low, np.float32)).all()
    assert (actions <= np.asarray(policy.description.action_high, np.float32)).all()


@pytest.mark.parametrize("policy", [hand_choice(), hand_choice(**NORMALISED), balancing_policy()])
def test_choices_are_the_policys(policy: Policy):
    observations = np.random.default_rng(0).normal(size=(500, policy.description.observation_dim))
    actions, expected = actions_of(to_onnx(policy), observations), policy.act(observations)
    assert actions.dtype == np.int64
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(actions, expected)


def test_of_equal_logits_the_graph_takes_the_first_too():
    assert actions_of(to_onnx(choice_of(0.0, 2.0, 2.0)), np.zeros((3, 2))).tolist() == [1, 1, 1]


def test_a_policy_without_hidden_layers_is_a_graph_too():
    policy = small_policy()
    weights = {
        "mean.weight": np.ones((3, 2), np.float32),
        **{name: policy.weights[name] for name in ("mean.bias", "log_std")},
    }
    linear = Policy(weights, replace(policy.description, num_hidden_layers=0))
    observations = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(actions_of(to_onnx(linear), observations), linear.act(observations), atol=1e-5)


def test_metadata_is_written_into_the_graph():
    model = to_onnx(hand_policy(), {"source": "models:/pendulum/1"})
    assert {each.key: each.value for each in model.metadata_props} == {"source": "models:/pendulum/1"}


def test_without_onnx_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"pip install 'iql-ray\[onnx\]'"):
        to_onnx(hand_policy())
