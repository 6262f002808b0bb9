"""The registered model acts as the policy does, wherever it is loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from iql_ray.tracking import act
from iql_ray.tracking.saved_policy import check_digest, save_policy_model, write_sums
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


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_observations_of_any_number_type_come_alone_or_in_a_batch(model, dtype):
    batch = np.array([[1, 2, 3], [0, -1, 4]], dtype)
    expected = small_policy().act(batch)
    np.testing.assert_array_equal(model.predict(batch), expected)
    np.testing.assert_array_equal(model.predict(batch.tolist()), expected)
    assert model.predict(batch[0]) == pytest.approx(expected[0], rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 4), (2, 1, 3), ()])
def test_observations_of_another_shape_are_refused_by_shape(model, shape):
    with pytest.raises(ValueError, match=rf"observations have shape {re.escape(str(shape))}, expected \(3,\) or"):
        model.predict(np.zeros(shape))


def test_a_temperature_for_an_action_without_noise_is_refused(model, observations):
    with pytest.raises(ValueError, match=r"temperature is 0.5 and deterministic is true; give deterministic=False"):
        model.predict(observations, params={"temperature": 0.5})


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

    (outputs,) = get_model_info(str(saved_choice / "model")).signature.outputs.inputs
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
    assert result == {"episode_returns": [500.0], "last_action": result["last_action"], "imported": []}


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


@pytest.fixture
def tampered(saved, tmp_path):
    """A copy of the model, to be spoilt."""
    return shutil.copytree(saved / "model", tmp_path / "model")


def change_a_weight(folder: Path) -> None:
    """One bit of the last number: the file is as long as it was and well formed."""
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(data)


def change_the_bounds(folder: Path) -> None:
    text = (folder / "policy.json").read_text()
    (folder / "policy.json").write_text(text.replace("-2.0", "-9.0"))


def change_the_code(folder: Path) -> None:
    (folder / "policy.py").write_text("raise SystemExit('this must not run')\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change_a_weight, "weights.safetensors is missing or was changed since its sha256 was recorded"),
        (change_the_bounds, "policy.json is missing or was changed"),
        (change_the_code, "policy.py is missing or is not the one recorded in SHA256SUMS; not loaded"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "policy.py is missing or is not the one recorded"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors is missing or was changed"),
    ],
)
def test_a_model_that_was_changed_does_not_load(tampered, spoil, message):
    import mlflow.pyfunc

    spoil(tampered / "artifacts" / "policy")
    with pytest.raises(ValueError, match=message):
        mlflow.pyfunc.load_model(str(tampered))


def test_the_sums_are_those_that_sha256sum_checks(saved):
    folder = saved / "model" / "artifacts" / "policy"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert [line[66:] for line in lines] == ["weights.safetensors", "policy.json", "policy.py"]
    assert [line[:64] for line in lines] == [
        hashlib.sha256((folder / line[66:]).read_bytes()).hexdigest() for line in lines
    ]


def test_the_digest_is_in_the_models_metadata_and_refuses_another_policy(saved, tmp_path):
    from mlflow.models import Model

    recorded = (Model.load(str(saved / "model")).metadata or {})["iql_ray.policy_digest"]
    policy = saved / "model" / "artifacts" / "policy"
    check_digest(policy, recorded, "model models:/m/1")
    other = save_small_policy(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="models:/m/1 was changed since it was registered: its digest is "):
        check_digest(other, recorded, "model models:/m/1")


def test_a_foreign_architecture_is_refused_though_its_sums_are_right(tampered):
    import mlflow.pyfunc

    folder = tampered / "artifacts" / "policy"
    description = (folder / "policy.json").read_text()
    balancing_policy().save(folder)  # a policy of choices, under the description of a Gaussian one
    (folder / "policy.json").write_text(description)
    write_sums(folder, ("weights.safetensors", "policy.json", "policy.py"))
    with pytest.raises(ValueError, match=r"a gaussian policy needs the weights \['hidden.0.bias', 'hidden.0.weight'"):
        mlflow.pyfunc.load_model(str(tampered))
