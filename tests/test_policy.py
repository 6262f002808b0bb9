"""The policy artefact, Gaussian and categorical: a forward pass by hand, bounds that hold, nothing heavy imported."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

import iql_ray.policy
from iql_ray.policy import Policy, PolicyDescription
from iql_ray.tracking.saved_policy import write_sums

DESCRIPTION = PolicyDescription(
    observation_dim=2,
    num_hidden_layers=1,
    action_low=(-2.0,),
    action_high=(4.0,),
    log_std_min=-5.0,
    log_std_max=2.0,
)


CHOICE = PolicyDescription(kind="categorical", observation_dim=2, num_hidden_layers=1, num_actions=3)


def hand_policy(**changes) -> Policy:
    """One hidden layer: relu(x0 + x1), relu(x0 - x1); mean = tanh(0.5 * (first - second)), in a box [-2, 4]."""
    weights = {
        "hidden.0.weight": np.array([[1.0, 1.0], [1.0, -1.0]], np.float32),
        "hidden.0.bias": np.zeros(2, np.float32),
        "mean.weight": np.array([[0.5], [-0.5]], np.float32),
        "mean.bias": np.zeros(1, np.float32),
        "log_std": np.array([math.log(0.1)], np.float32),
    }
    return Policy(weights, replace(DESCRIPTION, **changes))


def hand_choice(**changes) -> Policy:
    """The same hidden layer; the logits are relu(x0 + x1), relu(x0 - x1) and 1."""
    weights = {
        "hidden.0.weight": np.array([[1.0, 1.0], [1.0, -1.0]], np.float32),
        "hidden.0.bias": np.zeros(2, np.float32),
        "logits.weight": np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], np.float32),
        "logits.bias": np.array([0.0, 0.0, 1.0], np.float32),
    }
    return Policy(weights, replace(CHOICE, **changes))


def choice_of(*logits: float) -> Policy:
    """The same logits whatever is observed: no hidden layer, and weights of zero."""
    weights = {"logits.weight": np.zeros((2, len(logits)), np.float32), "logits.bias": np.array(logits, np.float32)}
    return Policy(weights, replace(CHOICE, num_hidden_layers=0, num_actions=len(logits)))


def test_the_mean_action_is_the_forward_pass_by_hand():
    # x = (1, 2): relu(3) = 3, relu(-1) = 0; tanh(1.5); the middle of [-2, 4] is 1, half its width 3.
    assert hand_policy().act([1.0, 2.0]) == pytest.approx([1 + 3 * math.tanh(1.5)], rel=1e-6)


def test_a_batch_acts_row_by_row():
    policy = hand_policy()
    rows = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(policy.act(rows), [policy.act(row) for row in rows], rtol=1e-6)
    assert policy.act(rows).shape == (5, 1)
    assert policy.act(rows[0]).shape == (1,)


def test_actions_are_float32_whatever_the_observations_are():
    for dtype in (np.float64, np.float32, np.int64):
        assert hand_policy().act(np.array([[1, 2]], dtype)).dtype == np.float32


def test_normalised_observations_are_shifted_and_scaled_first():
    normalising = hand_policy(observation_mean=(1.0, 2.0), observation_std=(2.0, 4.0))
    assert normalising.act([3.0, 10.0]) == pytest.approx(hand_policy().act([1.0, 2.0]))


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2),
    st.sampled_from([0.0, 1.0, 100.0]),
    st.integers(0, 2**32 - 1),
)
def test_actions_never_leave_the_environments_bounds(observation, temperature, seed):
    action = hand_policy().act(observation, temperature=temperature, generator=np.random.default_rng(seed))
    assert -2.0 <= action[0] <= 4.0


def test_noise_has_the_policys_standard_deviation_times_the_temperature():
    # At x = 0 the mean is 0 in the agent's units, and 3 times the box's: std = 3 * 0.1 * 0.5.
    actions = hand_policy().act(np.zeros((20_000, 2)), temperature=0.5, generator=np.random.default_rng(0))
    assert actions.mean() == pytest.approx(1.0, abs=0.005)
    assert actions.std() == pytest.approx(0.15, rel=0.02)


def test_the_standard_deviation_is_clipped_to_its_range():
    narrow = hand_policy(log_std_min=math.log(0.01), log_std_max=math.log(0.02))
    actions = narrow.act(np.zeros((20_000, 2)), temperature=1.0, generator=np.random.default_rng(0))
    assert actions.std() == pytest.approx(3 * 0.02, rel=0.02)


def test_one_generator_seed_gives_one_action():
    first, second = (hand_policy().act([1, 2], temperature=1.0, generator=np.random.default_rng(7)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("shape", [(3,), (5, 3), (1, 5, 2), ()])
def test_observations_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(2,\) or \(batch, 2\)"):
        hand_policy().act(np.zeros(shape))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_of_any_size_acts_as_its_pieces_do(monkeypatch, temperature):
    monkeypatch.setattr(iql_ray.policy, "MAX_ROWS", 16)
    rows = np.random.default_rng(0).normal(size=(41, 2))  # 16, 16 and 9
    for policy in (hand_policy(), hand_choice()):
        together = policy.act(rows, temperature=temperature, generator=np.random.default_rng(7))
        generator = np.random.default_rng(7)
        pieces = [policy.act(rows[i : i + 16], temperature=temperature, generator=generator) for i in (0, 16, 32)]
        np.testing.assert_array_equal(together, np.concatenate(pieces))


PARTS = (
    {"keys": ["goal", "place"], "shape": [2], "choices": []},
    {"keys": ["mode"], "shape": [], "choices": [[1, 3]]},
    {"keys": ["grid"], "shape": [2, 1], "choices": []},
)
SPACE = spaces.Dict(
    {
        "goal": spaces.Dict({"place": spaces.Box(-1, 1, (2,))}),
        "mode": spaces.Discrete(3, start=1),
        "grid": spaces.Box(-1, 1, (2, 1)),
    }
)


def nested_policy(parts=PARTS, observation_dim: int = 7) -> Policy:
    """Whatever part is wrong shows: the action is tanh of the sum of 0.1, 0.2, ... times the vector's numbers."""
    weights = {
        "mean.weight": 0.1 * np.arange(1, observation_dim + 1, dtype=np.float32)[:, None],
        "mean.bias": np.zeros(1, np.float32),
        "log_std": np.zeros(1, np.float32),
    }
    changes = {"observation_dim": observation_dim, "num_hidden_layers": 0, "observation_parts": parts}
    return Policy(weights, replace(DESCRIPTION, **changes))


def test_a_nested_observation_is_the_vector_that_gymnasium_makes_of_it():
    policy, observation = nested_policy(), {"goal": {"place": [0.1, 0.2]}, "mode": 2, "grid": [[0.3], [0.4]]}
    assert policy.inputs(observation) == pytest.approx([0.1, 0.2, 0, 1, 0, 0.3, 0.4])
    for seed in range(20):
        SPACE.seed(seed)
        sample = SPACE.sample()
        in_our_order = {name: sample[name] for name in ("goal", "mode", "grid")}
        ordered = spaces.Dict({name: SPACE[name] for name in in_our_order}, seed=0)
        flat = np.concatenate([np.asarray(spaces.flatten(ordered[name], sample[name])) for name in in_our_order])
        np.testing.assert_allclose(policy.inputs(sample), flat, rtol=1e-6)
        np.testing.assert_array_equal(policy.act(sample), policy.act(flat))


def test_a_batch_of_nested_observations_is_a_batch_of_vectors(tmp_path):
    nested = {"goal": {"place": np.zeros((5, 2))}, "mode": np.array([1, 2, 3, 1, 2]), "grid": np.ones((5, 2, 1))}
    nested_policy().save(tmp_path)
    policy = Policy.load(tmp_path)
    assert policy.description == nested_policy().description
    assert policy.inputs(nested)[2].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert policy.act(nested).shape == (5, 1)
    np.testing.assert_array_equal(policy.act(nested), policy.act(policy.inputs(nested)))


def test_a_tuple_of_observations_is_nested_where_the_policy_knows_parts_by_number():
    parts = ({"keys": [0], "shape": [2], "choices": []}, {"keys": [1], "shape": [1], "choices": []})
    assert nested_policy(parts, 3).inputs(([1, 2], [3])).tolist() == [1, 2, 3]
    assert nested_policy(parts, 3).inputs([1, 2, 3]).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": 4}, "'mode' holds an index that is no choice of"),
        ({"grid": [0.3, 0.4]}, r"'grid' has shape \(2,\), expected \(2, 1\) or a batch of it"),
        ({"goal": {}}, "does not have the parts goal/place, mode, grid of the policy: 'place'"),
        ({"mode": [1, 2]}, "does not have the parts"),
    ],
)
def test_a_nested_observation_that_does_not_fit_is_refused_by_part(changes, message):
    observation = {"goal": {"place": [0.1, 0.2]}, "mode": 2, "grid": [[0.3], [0.4]], **changes}
    with pytest.raises(ValueError, match=message):
        nested_policy().act(observation)


def test_the_most_likely_action_is_that_of_the_largest_logit():
    # (1, 2): logits 3, 0, 1. (1, -1): 0, 2, 1. (0, 0.5): 0.5, 0, 1.
    assert hand_choice().act([[1.0, 2.0], [1.0, -1.0], [0.0, 0.5]]).tolist() == [0, 1, 2]


def test_of_equal_logits_the_first_is_taken():
    assert choice_of(0.0, 2.0, 2.0).act([0.0, 0.0]) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_choices_are_int64_one_number_for_one_observation(temperature):
    one, several = (hand_choice().act(np.zeros(shape), temperature=temperature) for shape in (2, (5, 2)))
    assert type(one) is np.int64
    assert several.shape == (5,)
    assert several.dtype == np.int64


def test_probabilities_are_the_softmax_of_logits_over_temperature():
    policy = choice_of(math.log(1), math.log(2), math.log(5))
    assert policy.probabilities([0.0, 0.0]) == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    assert policy.probabilities([0.0, 0.0], temperature=0.5) == pytest.approx([1 / 30, 4 / 30, 25 / 30])
    assert policy.probabilities([0.0, 0.0], temperature=0.0).tolist() == [0, 0, 1]
    assert policy.probabilities(np.zeros((4, 2))).shape == (4, 3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_choices_are_as_frequent_as_they_are_likely(temperature):
    policy = choice_of(math.log(1), math.log(2), math.log(5))
    choices = policy.act(np.zeros((40_000, 2)), temperature=temperature, generator=np.random.default_rng(0))
    frequencies = np.bincount(choices, minlength=3) / len(choices)
    np.testing.assert_allclose(frequencies, policy.probabilities([0.0, 0.0], temperature), atol=0.01)


def test_a_batch_of_choices_is_drawn_as_its_rows_one_after_the_other():
    rows, policy = np.random.default_rng(0).normal(size=(50, 2)), hand_choice()
    together = policy.act(rows, temperature=1.0, generator=np.random.default_rng(7))
    generator = np.random.default_rng(7)
    assert together.tolist() == [policy.act(row, temperature=1.0, generator=generator) for row in rows]


@pytest.mark.parametrize(("uniform", "choice"), [(0.0, 1), (1 - 2**-53, 2)])
def test_an_action_of_probability_zero_is_never_drawn(uniform, choice):
    class Fixed(np.random.Generator):
        def random(self, size):  # pyright: ignore[reportIncompatibleMethodOverride]
            return np.full(size, uniform)

    generator = Fixed(np.random.PCG64(0))
    assert choice_of(-1e9, 0.0, 1.0, -1e9).act([0.0, 0.0], temperature=1.0, generator=generator) == choice


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=5),
    st.sampled_from([0.0, 5e-324, 1e-3, 1.0, 1e300]),
    st.integers(0, 2**32 - 1),
)
def test_finite_logits_of_any_size_give_probabilities_and_a_choice(logits, temperature, seed):
    policy = choice_of(*logits)
    probabilities = policy.probabilities([0.0, 0.0], temperature)
    assert probabilities.sum() == pytest.approx(1)
    choice = policy.act([0.0, 0.0], temperature=temperature, generator=np.random.default_rng(seed))
    assert probabilities[choice] > 0


def test_logits_that_are_not_finite_are_an_error_and_not_action_zero():
    with pytest.raises(ValueError, match="logits are not finite"):
        choice_of(0.0, math.nan).act([0.0, 0.0])


def test_a_gaussian_policy_has_no_probabilities():
    with pytest.raises(ValueError, match="only a categorical policy has probabilities, this one is gaussian"):
        hand_policy().probabilities([1.0, 2.0])


@pytest.mark.parametrize("temperature", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("policy", [hand_policy(), hand_choice()])
def test_a_temperature_below_zero_or_without_end_is_refused(policy, temperature):
    with pytest.raises(ValueError, match=f"temperature is {temperature}, expected 0 or more"):
        policy.act([1.0, 2.0], temperature=temperature)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "beta"}, "kind 'beta', format 1; this version acts with the kinds gaussian, categorical, format 1"),
        ({"format_version": 2}, "kind 'gaussian', format 2"),
        ({"num_actions": 3}, "a gaussian policy has no num_actions, got num_actions = 3"),
        ({"action_low": ()}, "a gaussian policy needs action_low"),
        ({"log_std_max": None}, "a gaussian policy needs log_std_max"),
        ({"kind": "categorical"}, "a categorical policy has no action_low"),
        ({"action_low": (-1.0, -1.0)}, "action bounds differ in length"),
        ({"observation_mean": (0.0,)}, "observation_mean has 1 numbers, expected observation_dim = 2"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(DESCRIPTION, **changes)


@pytest.mark.parametrize(("num_actions", "message"), [(None, "needs num_actions"), (0, "num_actions is 0")])
def test_a_categorical_description_needs_a_number_of_actions(num_actions, message):
    with pytest.raises(ValueError, match=message):
        replace(CHOICE, num_actions=num_actions)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mean.bias", None, r"a gaussian policy needs the weights \['mean.bias'\]"),
        ("hidden.0.bias", None, r"needs the weights \['hidden.0.bias'\]"),
        ("hidden.1.weight", np.zeros((2, 2), np.float32), r"unknown weights \['hidden.1.weight'\]"),
        ("log_std", np.zeros(3, np.float32), r"'log_std' is float32 of shape \(3,\), expected float32 of shape \(1,\)"),
        ("hidden.0.weight", np.zeros((3, 2), np.float32), r"of shape \(3, 2\), expected float32 of shape \(2, 2\)"),
        ("mean.weight", np.zeros((2, 1)), r"is float64 of shape \(2, 1\), expected float32"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(name, value, message):
    weights = {**hand_policy().weights, name: value}
    with pytest.raises(ValueError, match=message):
        Policy({each: array for each, array in weights.items() if array is not None}, DESCRIPTION)


def test_a_gaussian_policys_file_says_what_it_always_said(tmp_path):
    """Byte for byte: policies of before there were other kinds load, and their digests still mean the same."""
    hand_policy().save(tmp_path)
    assert json.loads((tmp_path / "policy.json").read_text()) == {
        "observation_dim": 2,
        "num_hidden_layers": 1,
        "action_low": [-2.0],
        "action_high": [4.0],
        "log_std_min": -5.0,
        "log_std_max": 2.0,
        "observation_mean": None,
        "observation_std": None,
        "kind": "gaussian",
        "format_version": 1,
    }


def test_a_categorical_policys_file_says_nothing_of_bounds(tmp_path):
    hand_choice().save(tmp_path)
    values = json.loads((tmp_path / "policy.json").read_text())
    assert values["kind"] == "categorical"
    assert values["num_actions"] == 3
    assert not {"action_low", "action_high", "log_std_min", "log_std_max"} & values.keys()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("weights.safetensors", "damaged", "no policy that this version can act with"),
        ("policy.json", "{", "no policy that this version can act with"),
        ("policy.json", "[]", "no policy that this version can act with: .*observation_dim"),
        ("policy.json", '{"colour": "red"}', "colour"),
        ("policy.json", json.dumps(asdict(CHOICE)), r"a categorical policy needs the weights \['logits.bias'"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_by_folder(tmp_path, name, content, message):
    hand_policy().save(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}.*{message}"):
        Policy.load(tmp_path)


def test_a_folder_with_sums_loads_until_a_file_is_changed(tmp_path):
    hand_policy().save(tmp_path)
    write_sums(tmp_path, ("weights.safetensors", "policy.json"))
    assert Policy.load(tmp_path).act([1.0, 2.0]) == hand_policy().act([1.0, 2.0])
    hand_policy(action_high=(5.0,)).save(tmp_path)
    with pytest.raises(ValueError, match=r"policy.json is missing or was changed since its sha256 was recorded"):
        Policy.load(tmp_path)


def test_sums_that_leave_the_weights_out_are_none(tmp_path):
    hand_policy().save(tmp_path)
    write_sums(tmp_path, ("policy.json",))
    with pytest.raises(ValueError, match=r"weights.safetensors is missing or was changed"):
        Policy.load(tmp_path)


@pytest.mark.parametrize("make", [hand_policy, hand_choice])
@pytest.mark.parametrize("normaliser", [{}, {"observation_mean": (1.0, 2.0), "observation_std": (2.0, 4.0)}])
def test_a_saved_policy_acts_the_same_after_loading(tmp_path, make, normaliser):
    policy = make(**normaliser)
    policy.save(tmp_path)
    loaded = Policy.load(tmp_path)
    rows = np.random.default_rng(0).normal(size=(10, 2))
    np.testing.assert_array_equal(loaded.act(rows), policy.act(rows))
    assert loaded.description == policy.description


def test_the_policys_file_alone_acts_and_imports_only_numpy_and_safetensors(tmp_path):
    """It travels inside the registered model: alone in a folder, it must load with neither torch nor this package."""
    hand_policy().save(tmp_path)
    (tmp_path / "policy.py").write_text(Path(iql_ray.policy.__file__).read_text())
    program = (
        "import sys; known = set(sys.modules); import policy;"
        "print(policy.Policy.load('.').act([1.0, 2.0])[0]);"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - known} - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    action, modules = done.stdout.splitlines()
    assert float(action) == pytest.approx(1 + 3 * math.tanh(1.5), rel=1e-6)
    assert {name for name in modules.split() if not name.startswith("_")} == {"numpy", "policy", "safetensors"}
