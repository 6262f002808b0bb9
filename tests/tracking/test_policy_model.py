"""The registered model acts as the policy does, wherever it is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from iql_ray.tracking import act
from iql_ray.tracking.saved_policy import save_policy_model
from tests.evaluation.toys import balancing_policy
from tests.tracking.examples import save_small_policy, small_policy

FRESH_PROCESS = """
import sys
for name in ("iql_ray", "torch", "ray"):
    sys.modules[name] = None  # importing it raises ImportError, installed or not
import mlflow.pyfunc
import numpy as np
folder = sys.argv[1]
model = mlflow.pyfunc.load_model(folder + "/model")
np.save(folder + "/actions.npy", model.predict(np.load(folder + "/observations.npy")))
"""


@pytest.fixture(scope="module")
def observations():
    return np.random.default_rng(1).normal(scale=3.0, size=(7, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, observations):
    folder = tmp_path_factory.mktemp("saved")
    policy_folder = save_small_policy(folder / "policy")
    save_policy_model(policy_folder, folder / "model", example_observations=observations[:2])
    return folder


@pytest.fixture(scope="module")
def saved_choice(tmp_path_factory):
    """A model that chooses: it balances CartPole's pole."""
    folder = tmp_path_factory.mktemp("saved_choice")
    (folder / "policy").mkdir()
    balancing_policy().save(folder / "policy")
    save_policy_model(folder / "policy", folder / "model")
    return folder


@pytest.fixture(scope="module")
def model(saved):
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(saved / "model"))


def test_predict_gives_exactly_the_policys_mean_actions(model, observations):
    actions = model.predict(observations)
    assert actions.dtype == np.float32
    np.testing.assert_array_equal(actions, small_policy().act(observations))


def test_temperature_zero_acts_at_the_mean_too(model, observations):
    actions = model.predict(observations, params={"deterministic": False, "temperature": 0.0})
    np.testing.assert_array_equal(actions, small_policy().act(observations))


def test_sampled_actions_differ_and_stay_in_the_bounds(model, observations):
    first, second = (model.predict(observations, params={"deterministic": False}) for _ in range(2))
    assert np.abs(first - second).max() > 0
    assert (first >= np.array([-2, -1], np.float32)).all()
    assert (first <= np.array([2, 3], np.float32)).all()


@pytest.mark.parametrize("wrong", [np.zeros((2, 3), np.float64), np.zeros((2, 4), np.float32)])
def test_the_signature_refuses_another_dtype_or_width(model, wrong):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException):
        model.predict(wrong)


def test_the_model_loads_without_this_package_torch_or_pickle(saved, observations):
    np.save(saved / "observations.npy", observations)
    subprocess.run(
        [sys.executable, "-I", "-c", FRESH_PROCESS, str(saved)],
        check=True,
        env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=saved,
    )
    np.testing.assert_array_equal(np.load(saved / "actions.npy"), small_policy().act(observations))


def test_a_model_of_choices_predicts_one_int64_for_each_observation(saved_choice):
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(saved_choice / "model"))
    leaning = np.zeros((7, 4), np.float32)
    leaning[:, 2] = np.linspace(-0.1, 0.1, 7)
    choices = model.predict(leaning)
    assert choices.dtype == np.int64
    assert choices.tolist() == [0, 0, 0, 0, 1, 1, 1]  # the fourth stands upright: of equals, the first
    hot = [model.predict(leaning, params={"deterministic": False, "temperature": 1e3}) for _ in range(30)]
    assert 0.3 < np.mean(hot) < 0.7


def test_the_signature_of_choices_is_int64_without_a_second_axis(saved_choice):
    from mlflow.models import get_model_info

    signature = get_model_info(str(saved_choice / "model")).signature
    (inputs,), (outputs,) = signature.inputs.inputs, signature.outputs.inputs
    assert (inputs.type, inputs.shape) == (np.float32, (-1, 4))
    assert (outputs.type, outputs.shape) == (np.int64, (-1,))
    example = json.loads((saved_choice / "model" / "input_example.json").read_text())
    assert example == [[0.0, 0.0, 0.0, 0.0]]


def test_the_script_for_others_acts_in_an_environment_of_choices(saved_choice):
    done = subprocess.run(
        [sys.executable, act.__file__, str(saved_choice / "model"), "CartPole-v1"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=saved_choice,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["last_action"] in (0, 1)
    assert result == {"episode_return": 500.0, "last_action": result["last_action"], "imported": []}


def test_the_requirements_are_pinned_and_few(saved):
    requirements = (saved / "model" / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in requirements] == ["mlflow", "numpy", "safetensors"]
    assert all(line.partition("==")[2] for line in requirements)


def test_the_input_example_is_shipped(saved, observations):
    example = json.loads((saved / "model" / "input_example.json").read_text())
    np.testing.assert_array_equal(np.float32(example), observations[:2])


def test_no_pickle_is_in_the_model(saved):
    names = [path.name for path in (saved / "model").rglob("*")]
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt"))]
