"""--dry-run of every command that Ray runs: where its processes would go, and nothing else happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iql_ray.distributed.roles import Node
from pipelines import evaluate, finetune, placement, train
from tests.distributed.examples import ENVIRONMENT, tiny_dataset, train_config
from tests.distributed.test_finetuning import trained


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A run to go on from."""
    config = train_config(tiny_dataset(tmp_path / "data"), eval_method="none")
    (tmp_path / "runs").mkdir()
    return trained(config, tmp_path / "runs" / "source")


def result_of(main: Any, words: str, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    assert main([*words.split(), "--dry-run"]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out.splitlines()[-1]), printed.err


def test_training_says_where_learners_and_evaluation_would_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    dataset = tiny_dataset(tmp_path / "data")
    words = f"--dataset {dataset} --env {ENVIRONMENT} --num-learners 2 --batch-size 16 --device cpu"
    result, said = result_of(train.main, f"{words} --storage {tmp_path / 'runs'}", capsys)
    assert said.splitlines() == [
        "2 learners (CPU 1): 2 at this machine",
        "1 evaluation worker (CPU 1): 1 at this machine",
    ]
    assert (result["refusal"], [each["waiting"] for each in result["placement"]]) == (None, [0, 0])
    assert not (tmp_path / "runs").exists()


def test_what_could_never_run_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = f"--dataset {tiny_dataset(tmp_path / 'data')} --device cpu --learner-resources iql_learner=0.5"
    result, said = result_of(train.main, f"{words} --storage {tmp_path / 'runs'}", capsys)
    assert "no node has iql_learner" in result["refusal"]
    assert "1 learner (CPU 1, iql_learner 0.5): 1 would wait for room" in said


def test_fine_tuning_says_where_rollout_workers_would_go(source: Path, capsys: pytest.CaptureFixture[str]):
    words = f"--run {source} --env {ENVIRONMENT} --num-rollout-workers 3 --device cpu --storage {source.parent}"
    _, said = result_of(finetune.main, words, capsys)
    assert "3 rollout workers (CPU 1): 3 at this machine" in said
    assert [path.name for path in source.parent.iterdir()] == ["source"]


def test_evaluation_says_where_episodes_would_be(source: Path, capsys: pytest.CaptureFixture[str]):
    words = f"--run {source} --env {ENVIRONMENT} --num-workers 2 --num-episodes 100 --storage {source.parent}"
    result, said = result_of(evaluate.main, words, capsys)
    assert "2 rollout workers (CPU 1): 2 at this machine" in said
    assert result["placement"][0]["nodes"] == {"this machine": 2}


def test_auto_is_a_gpu_where_every_learner_has_one():
    def device(num_gpus: float) -> str:
        nodes = [Node(address="a", total={"CPU": 4.0, "GPU": num_gpus}, free={})]
        return placement.show_placement(nodes, lambda device, nodes: [], "auto", num_learners=2)["device"]

    assert (device(1), device(2)) == ("cpu", "cuda")
