"""`iql-ray evaluate`: a saved policy in, statistics out, misuse refused before Ray starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from iql_ray.envs.catalog import make_env
from iql_ray.evaluation.episodes import run_group, split_into_groups
from iql_ray.evaluation.statistics import summarize
from iql_ray.policy import Policy
from pipelines import evaluate
from pipelines.evaluate import EvaluateConfig
from tests.evaluation.toys import balancing_policy, zero_policy


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
def storage(tmp_path: Path) -> Path:
    """A storage with one run of two checkpoints on Pendulum, the first of them the better one."""
    import torch

    from iql_ray import checkpoint, run_folder

    run = tmp_path / "runs" / "r1"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"env": "Pendulum-v1"}))
    for update in (10, 20):
        state = checkpoint.Checkpoint(
            update_count=update,
            tensors={"t": torch.zeros(1)},
            random_states=({"g": torch.zeros(1)},),
            dataset_digest="d",
        )
        checkpoint.save(run, state, zero_policy(3, 1, bound=2.0))
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
    config = EvaluateConfig(run="r1", storage=storage, checkpoint=checkpoint, num_episodes=2)
    result = evaluate.evaluate(config)
    assert result["environment_id"] == "Pendulum-v1"
    assert result["num_updates"] == num_updates
    assert result["policy"] == str(storage / "r1")


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
    ],
)
def test_misuse_is_one_message_and_exit_code_two(arguments, message, model, storage, capsys):
    words = [str(model) if word == "MODEL" else word for word in arguments]
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
