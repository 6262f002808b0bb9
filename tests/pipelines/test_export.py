"""Exported policies act as the policy does, where nothing but numpy and safetensors, or an ONNX runtime, is."""

from __future__ import annotations

import hashlib
import json
import subprocess

import numpy as np
import pytest

from iql_ray import checkpoint, config
from iql_ray.policy import Policy
from pipelines import export
from tests.distributed.examples import learner_of, plan_of, tiny_dataset, train_config
from tests.tracking.examples import save_small_policy, small_policy
from tests.tracking.lone_environment import make_environment

SMALL_DEVICE = """
import json, sys
import numpy as np
from policy import Policy
actions = Policy.load(".").act(np.load("observations.npy"))
print(json.dumps([actions.tolist(), sorted(set(sys.modules) & {"iql_ray", "mlflow", "ray", "torch"})]))
"""


@pytest.fixture
def observations():
    return np.random.default_rng(1).normal(size=(9, 3))


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = export.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_an_exported_folder_acts_with_numpy_and_safetensors_alone(capsys, tmp_path, observations):
    save_small_policy(tmp_path / "policy")
    out = tmp_path / "out"
    code, printed, _ = run(capsys, "--model", str(tmp_path / "policy"), "--out", str(out))
    assert code == 0
    result = json.loads(printed.splitlines()[-1])
    assert result["files"] == ["SHA256SUMS", "policy.json", "policy.py", "weights.safetensors"]
    np.save(out / "observations.npy", observations)
    python = make_environment(tmp_path / "venv", ["safetensors", "numpy"])
    program = [str(python), "-c", SMALL_DEVICE]
    done = subprocess.run(program, cwd=out, capture_output=True, text=True, check=True)
    actions, heavy = json.loads(done.stdout)
    np.testing.assert_array_equal(np.float32(actions), small_policy().act(observations))
    assert heavy == []


def test_an_exported_graph_acts_and_says_where_it_came_from(capsys, tmp_path, observations):
    import onnxruntime

    policy = save_small_policy(tmp_path / "policy")
    code, printed, _ = run(capsys, "--model", str(policy), "--out", str(tmp_path / "out"), "--format", "onnx")
    assert code == 0
    digest = json.loads(printed.splitlines()[-1])["policy_digest"]
    both = (policy / "weights.safetensors").read_bytes() + (policy / "policy.json").read_bytes()
    assert digest == hashlib.sha256(both).hexdigest()
    session = onnxruntime.InferenceSession(tmp_path / "out" / "policy.onnx")
    (actions,) = session.run(["actions"], {"observations": observations.astype(np.float32)})
    np.testing.assert_allclose(np.asarray(actions), small_policy().act(observations), atol=1e-5)
    recorded = session.get_modelmeta().custom_metadata_map
    assert recorded == {"source": str(policy), "policy_digest": digest}


def test_the_policy_of_a_runs_checkpoint_is_exported(capsys, tmp_path):
    plan = plan_of(train_config(tiny_dataset(tmp_path, num_rows=40)), tmp_path / "runs" / "r1")
    learner = learner_of(plan)
    saved = checkpoint.Checkpoint(
        update_count=10, tensors=learner.agent.tensors(), random_states=(learner.random_states(),), dataset_digest=""
    )
    checkpoint.save(plan.run_folder, saved, learner.policy())
    config.save(plan.config, plan.run_folder / "config.json")
    arguments = ("--run", "r1", "--storage", str(tmp_path / "runs"), "--checkpoint", "10")
    code, printed, _ = run(capsys, *arguments, "--out", str(tmp_path / "out"))
    assert code == 0
    assert json.loads(printed.splitlines()[-1])["source"] == "r1 after 10 updates"
    observation = np.array([0.5, -1.0])
    np.testing.assert_array_equal(Policy.load(tmp_path / "out").act(observation), learner.policy().act(observation))


def test_a_folder_that_holds_something_is_left_alone(capsys, tmp_path):
    policy = save_small_policy(tmp_path / "policy")
    code, _, error = run(capsys, "--model", str(policy), "--out", str(policy))
    assert code == 2
    assert "holds something; name a folder that does not exist" in error
    Policy.load(policy)


def test_a_policy_that_was_changed_is_not_exported(capsys, tmp_path):
    policy = save_small_policy(tmp_path / "policy")
    run(capsys, "--model", str(policy), "--out", str(tmp_path / "once"))
    small_policy(seed=1).save(tmp_path / "once")
    code, _, error = run(capsys, "--model", str(tmp_path / "once"), "--out", str(tmp_path / "twice"))
    assert code == 2
    assert "weights.safetensors is missing or was changed since its sha256 was recorded" in error
    assert not (tmp_path / "twice").exists()
