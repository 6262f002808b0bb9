"""The policy artefact: a forward pass that can be done by hand, bounds that hold, and nothing heavy imported."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import iql_ray.policy
from iql_ray.policy import Policy, PolicyDescription

DESCRIPTION = PolicyDescription(
    observation_dim=2,
    num_hidden_layers=1,
    action_low=(-2.0,),
    action_high=(4.0,),
    log_std_min=-5.0,
    log_std_max=2.0,
)


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


@pytest.mark.parametrize("changes", [{"kind": "categorical"}, {"format_version": 2}])
def test_a_policy_of_a_later_format_is_refused(changes):
    with pytest.raises(ValueError, match="kind 'gaussian', format 1"):
        hand_policy(**changes)


@pytest.mark.parametrize("normaliser", [{}, {"observation_mean": (1.0, 2.0), "observation_std": (2.0, 4.0)}])
def test_a_saved_policy_acts_the_same_after_loading(tmp_path, normaliser):
    policy = hand_policy(**normaliser)
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
