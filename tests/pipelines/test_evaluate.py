"""`iql-ray evaluate`: a saved policy in, statistics or a verdict out, misuse refused before Ray starts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from iql_ray.algorithm.fqe_config import FQEConfig
from iql_ray.data.prepared import read_manifest
from iql_ray.envs.catalog import make_env
from iql_ray.evaluation.episodes import run_group, split_into_groups
from iql_ray.evaluation.statistics import summarize
from iql_ray.policy import Policy
from pipelines import evaluate
from pipelines.evaluate import EvaluateConfig
from tests.evaluation.fqe_examples import constant_policy, narrow_columns, prepared
from tests.evaluation.toys import balancing_policy, zero_policy

if TYPE_CHECKING:
    from iql_ray.checkpoint import Checkpoint

SHORT = ["--fqe-updates", "40", "--fqe-hidden-sizes", "8", "--fqe-batch-size", "32", "--device", "cpu"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a policy for Pendulum that never pushes."""
    folder = tmp_path / "model"
    folder.mkdir()
    zero_policy(3, 1, bound=2.0).save(folder)
    return folder


@pytest.fixture
def choosing_model(tmp_path: Path) -> Path:
    """A folder with a policy that balances CartPole's pole, less well where it is sampled."""
    folder = tmp_path / "choosing"
    folder.mkdir()
    balancing_policy(push=5.0).save(folder)
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Sixty episodes of ten steps, each step worth 1, all actions near the middle of the box."""
    return prepared(tmp_path / "data", narrow_columns())


def saved(folder: Path, action: float) -> Path:
    """A folder with a policy that always does the same."""
    folder.mkdir()
    constant_policy(action).save(folder)
    return folder


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A storage with one run of two checkpoints on Pendulum, the first of them the better one."""
    from iql_ray import checkpoint, run_folder

    run = tmp_path / "runs" / "r1"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"env": "Pendulum-v1"}))
    for update in (10, 20):
        checkpoint.save(run, empty_checkpoint(update), zero_policy(3, 1, bound=2.0))
        run_folder.append_evaluation(run, {"num_updates": update, "return_mean": -float(update)})
    return tmp_path / "runs"


def by_hand(policy: Policy, environment_id: str, num_episodes: int, seed: int, temperature: float = 0.0) -> dict:
    groups = split_into_groups(num_episodes, seed)
    environments = [make_env(environment_id) for _ in range(8)]
    results = [result for seeds in groups for result in run_group(policy, environments, seeds, temperature)]
    return summarize(results, environment_id)


@pytest.mark.ray
def test_a_models_last_line_is_the_statistics_of_its_episodes(ray_session, model, capsys):
    arguments = ["--model", str(model), "--env", "Pendulum-v1", "--num-episodes", "10", "--seed", "3"]
    assert evaluate.main(arguments) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    statistics = by_hand(zero_policy(3, 1, bound=2.0), "Pendulum-v1", 10, seed=3)
    for name, value in statistics.items():
        assert result.pop(name) == pytest.approx(value), name
    assert result == {
        "policy": str(model),
        "num_updates": None,
        "member": None,
        "method": "rollouts",
        "environment_id": "Pendulum-v1",
        "seed": 3,
        "temperature": 0.0,
    }


@pytest.mark.ray
def test_a_model_of_choices_is_sampled_at_a_temperature(ray_session, choosing_model):
    config = EvaluateConfig(model=str(choosing_model), env="CartPole-v1", num_episodes=10, seed=3, temperature=1.0)
    result = evaluate.evaluate(config)
    expected = by_hand(balancing_policy(push=5.0), "CartPole-v1", 10, seed=3, temperature=1.0)
    assert result["return_mean"] == expected["return_mean"] < 500
    assert result["temperature"] == 1.0


@pytest.mark.ray
@pytest.mark.parametrize(("checkpoint", "num_updates"), [("last", 20), ("best", 10), (10, 10)])
def test_a_runs_checkpoint_is_found_and_acts_in_the_runs_environment(ray_session, storage, checkpoint, num_updates):
    config = EvaluateConfig(run="r1", storage=str(storage), checkpoint=checkpoint, num_episodes=2)
    result = evaluate.evaluate(config)
    assert result["environment_id"] == "Pendulum-v1"
    assert result["num_updates"] == num_updates
    assert result["policy"] == str(storage / "r1")


def test_a_model_is_judged_from_data_alone(dataset, tmp_path, capsys):
    model = saved(tmp_path / "usual", 0.0)
    arguments = [
        "--method",
        "fqe",
        "--model",
        str(model),
        "--dataset",
        str(dataset),
        "--discount",
        "0.5",
        "--seed",
        "1",
    ]
    assert evaluate.main([*arguments, *SHORT]) == 0
    output = capsys.readouterr()
    result = json.loads(output.out.splitlines()[-1])
    assert (result["policy"], result["dataset"], result["method"]) == (str(model), str(dataset), "fqe")
    assert (result["seed"], result["discount"], result["num_episodes"]) == (1, 0.5, 12)
    assert result["dataset_digest"] == read_manifest(dataset).digest
    assert result["value_ci"][0] < result["value"] < result["value_ci"][1]
    assert result["logged_return"] == pytest.approx(2 * (1 - 0.5**10), abs=1e-4)
    assert "the data's returns as logged" in output.err


def test_what_speaks_against_a_verdict_is_said_and_is_in_the_result(dataset, tmp_path, capsys):
    model = saved(tmp_path / "far", 0.9)
    assert evaluate.main(["--method", "fqe", "--model", str(model), "--dataset", str(dataset), *SHORT]) == 0
    output = capsys.readouterr()
    warnings = json.loads(output.out.splitlines()[-1])["warnings"]
    assert {"actions-far-from-data", "few-held-out-episodes"} <= {each["kind"] for each in warnings}
    assert all(f"warning: {each['message']}" in output.err for each in warnings)


def test_a_run_is_judged_by_the_data_and_the_discount_that_it_learned_with(dataset, tmp_path):
    from iql_ray import checkpoint

    run = tmp_path / "runs" / "r1"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"dataset": str(dataset), "agent": {"discount": 0.25}}))
    checkpoint.save(run, empty_checkpoint(10), constant_policy(0.0))
    fqe = FQEConfig(fqe_updates=40, fqe_hidden_sizes=(8,), fqe_batch_size=32)
    config = EvaluateConfig(method="fqe", run="r1", storage=str(tmp_path / "runs"), fqe=fqe, device="cpu")
    result = evaluate.evaluate(config)
    assert (result["discount"], result["dataset"], result["num_updates"]) == (0.25, str(dataset), 10)
    assert evaluate.evaluate(replace(config, discount=0.75))["discount"] == 0.75


def empty_checkpoint(update_count: int) -> Checkpoint:
    """One that holds nothing but a policy worth reading."""
    import torch

    from iql_ray import checkpoint

    return checkpoint.Checkpoint(
        update_count=update_count,
        tensors={"t": torch.zeros(1)},
        random_states=({"g": torch.zeros(1)},),
        dataset_digest="d",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --run RUN or --model URI"),
        (["--run", "a", "--model", "b"], "not both"),
        (["--run", "a", "--num-episodes", "0"], "num_episodes is 0, expected at least 1"),
        (["--run", "a", "--num-workers", "0"], "num_workers is 0"),
        (["--run", "a", "--temperature", "-1"], "temperature is -1.0"),
        (["--model", "MODEL", "--checkpoint", "best"], "chooses within a run"),
        (["--model", "MODEL", "--member", "1"], "--member 1 chooses within a run"),
        (["--run", "nothing"], "run 'nothing' not found"),
        (["--model", "MODEL"], "name one with --env"),
        (["--model", "MODEL", "--env", "Pendulumm-v1"], "'Pendulumm-v1' is unknown"),
        (["--model", "MODEL", "--env", "Hopper-v5"], "does not fit the policy: observation dimensions: 11"),
        (["--model", "MODEL", "--env", "Acrobot-v1"], "actions: discrete in the environment, continuous in the policy"),
        (["--run", "r1", "--checkpoint", "15"], r"has no checkpoint '15'; it has [10, 20]"),
        (["--method", "fqe", "--model", "MODEL"], "name a prepared dataset with --dataset"),
        (["--method", "fqe", "--run", "r1"], "does not say what it learned from; name a prepared dataset"),
        (["--method", "fqe", "--run", "r1", "--env", "Pendulum-v1"], "--env: of --method rollouts, not of fqe"),
        (["--run", "r1", "--dataset", "d", "--fqe-updates", "9"], "--dataset, --fqe-updates: of --method fqe"),
        (["--method", "fqe", "--run", "r1", "--discount", "1"], "discount is 1.0, expected a number in [0, 1)"),
        (["--method", "fqe", "--run", "r1", "--dataset", "nowhere"], "dataset nowhere does not exist"),
        (["--method", "fqe", "--model", "MODEL", "--dataset", "DATASET"], "give data of the policy's own kind"),
    ],
)
def test_misuse_is_one_message_and_exit_code_two(arguments: list[str], message, model, dataset, storage, capsys):
    paths = {"MODEL": str(model), "DATASET": str(dataset)}
    words: list[str] = [paths.get(word, word) for word in arguments]
    assert evaluate.main([*words, "--storage", str(storage)]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err
    assert output.out == ""


def test_a_damaged_policy_names_the_other_checkpoints(storage, capsys):
    (storage / "r1/checkpoints/000000020/policy/weights.safetensors").write_bytes(b"damaged")
    assert evaluate.main(["--run", "r1", "--storage", str(storage)]) == 2
    assert "choose another with --checkpoint, of [10, 20]" in capsys.readouterr().err


def test_asking_for_help_imports_nothing_heavy():
    script = (
        "import sys; from pipelines import evaluate; code = evaluate.main(['--help']); "
        "heavy = {'torch', 'ray', 'mlflow', 'gymnasium', 'scipy'} & set(sys.modules); sys.exit(code or len(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL).returncode == 0
