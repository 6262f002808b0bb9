"""The command `train`: a configuration from recipe, file and flags, and one line of JSON at the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from iql_ray import config as config_io
from iql_ray.distributed.train_config import TrainConfig
from pipelines import command_line, train
from tests.data.examples import CARTPOLE_COLUMNS, DATA_FILES
from tests.distributed.examples import ENVIRONMENT, tiny_dataset

TINY = "--hidden-sizes 8 8 --num-updates 40 --batch-size 16 --log-interval-updates 10 --checkpoint-interval-updates 20"


def test_a_recipe_a_file_and_flags_yield_to_each_other_in_that_order(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("recipe: kitchen_adroit\ndataset: pen\nagent: {expectile: 0.8}\nseed: 3\n")
    asked = command_line.parse(TrainConfig, ["--config", str(tmp_path / "run.yaml"), "--seed", "4"])
    assert (asked.agent.inverse_temperature, asked.agent.dropout_rate) == (0.5, 0.1)
    assert (asked.agent.expectile, asked.seed, asked.dataset) == (0.8, 4, "pen")


def test_the_saved_configuration_is_read_back_whole(tmp_path: Path):
    asked = command_line.parse(TrainConfig, ["--dataset", "d", "--hidden-sizes", "8", "--reward-scale", "return-range"])
    config_io.save(asked, tmp_path / "config.json")
    assert config_io.load(TrainConfig, tmp_path / "config.json") == asked


def test_the_configuration_imports_nothing_heavy():
    program = (
        "import sys\nfrom iql_ray.distributed.train_config import TrainConfig\n"
        "print(sorted({'ray', 'torch', 'mlflow', 'gymnasium', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_last_line_is_the_result_and_what_it_names_is_there(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    dataset = tiny_dataset(tmp_path)
    arguments = ["--dataset", str(dataset), "--env", ENVIRONMENT, "--storage", str(tmp_path / "runs"), *TINY.split()]
    more = ["--eval-interval-updates", "20", "--num-eval-episodes", "8", "--register-as", "tiny", "--seed", "5"]
    assert train.main([*arguments, *more]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    folder = Path(result["run_folder"])
    assert folder == tmp_path / "runs" / result["run_id"]
    assert (result["num_updates"], result["num_episodes"], result["model_version"]) == (40, 8, "1")
    assert result["is_tracking_complete"] is True
    assert 3 <= result["return_mean"] <= 6
    assert result["dataset_digest"] == json.loads((dataset / "manifest.json").read_text())["digest"]
    assert_what_is_recorded(folder, result)


def assert_what_is_recorded(folder: Path, result: dict) -> None:
    """Its own configuration, all evaluations, and one MLflow run that is finished and owns the registered model."""
    from iql_ray.data.lineage import lineage_tags
    from iql_ray.data.prepared import read_manifest
    from iql_ray.tracking.store import default_tracking_uri, open_client

    assert config_io.load(TrainConfig, folder / "config.json").seed == 5
    evaluations = [json.loads(line)["num_updates"] for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    assert evaluations == [0, 20, 40]
    client = open_client(default_tracking_uri(folder.parent))
    run = client.get_run(result["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["agent.expectile"] == "0.7"
    version = client.get_model_version("tiny", "1")
    assert version.run_id == result["run_id"]
    lineage = lineage_tags(read_manifest(config_io.load(TrainConfig, folder / "config.json").dataset))
    assert lineage.items() <= version.tags.items()
    assert lineage.items() <= run.data.tags.items()


def test_discrete_actions_are_trained_evaluated_and_registered(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from pipelines import evaluate, prepare

    dataset, storage = tmp_path / "cartpole", tmp_path / "runs"
    source = [
        "--source",
        f"parquet:{DATA_FILES / 'cartpole-rllib'}",
        "--columns",
        *(f"{ours}={theirs}" for ours, theirs in CARTPOLE_COLUMNS.items()),
    ]
    assert prepare.main([*source, "--env", "CartPole-v1", "--out", str(dataset)]) == 0
    arguments = ["--dataset", str(dataset), "--env", "CartPole-v1", "--storage", str(storage), *TINY.split()]
    more = ["--eval-interval-updates", "40", "--num-eval-episodes", "4", "--register-as", "balance"]
    assert train.main([*arguments, *more]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 8 <= result["return_mean"] <= 500
    uri = f"sqlite:///{storage}/mlflow.db"
    model = ["--model", "models:/balance/1", "--tracking-uri", uri, "--storage", str(storage), "--env", "CartPole-v1"]
    assert evaluate.main([*model, "--num-episodes", "4", "--temperature", "1"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["num_episodes"] == 4


def test_a_grid_is_trained_from_data_alone_and_evaluated_by_member(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from pipelines import evaluate

    dataset, storage = tiny_dataset(tmp_path), tmp_path / "runs"
    grid = "--seeds 1 2 --expectiles 0.5 0.5 --critics sarsa implicit --top-episode-share 0.5"
    assert train.main(["--dataset", str(dataset), "--storage", str(storage), *TINY.split(), *grid.split()]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["model_uri"] is None
    member = ["--run", result["run_id"], "--storage", str(storage), "--member", "3", "--env", ENVIRONMENT]
    assert evaluate.main([*member, "--num-episodes", "2"]) == 0
    evaluated = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert evaluated["member"] == {"seed": 2, "expectile": 0.5, "inverse_temperature": 3.0, "critic": "implicit"}
