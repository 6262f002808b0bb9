"""Several nodes, a head without CPUs among them: the numbers of one process, whichever node is lost meanwhile.

Each command is a process of its own that joins the head, as a submitted job's driver does. What a run must end with is
computed without Ray, so that every drill pays for one disturbed run alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks._ray_nodes import ROOT, RayNodes
from iql_ray import checkpoint, run_folder
from iql_ray import config as config_io
from iql_ray.data.prepared import read_manifest
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.rollout_workers import RolloutWorker
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.evaluation.episodes import split_into_groups
from iql_ray.evaluation.statistics import summarize
from pipelines.prepare import PrepareConfig, prepare
from tests.data.examples import write_npz
from tests.distributed import test_finetuning, test_search
from tests.distributed.examples import (
    ENVIRONMENT,
    different,
    final_tensors,
    search_config,
    tiny_columns,
    tiny_dataset,
    train_config,
)
from tests.distributed.in_step import trained_in_step
from tests.distributed.killing import in_background, wait_until
from tests.tracking.examples import new_storage

LEARNERS = ("iql_learner=1",)
"""One learner, or trial, a node: the nodes offer one each."""
ROLLOUTS = ("iql_rollout=0.001",)

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    """A head that runs no work, three nodes for learners, one for rollouts."""
    with RayNodes() as cluster:
        for number in (1, 2, 3):
            cluster.add(f"learner{number}", 1, {"iql_learner": 1})
        cluster.add("rollout1", 2, {"iql_rollout": 1})
        yield cluster


@pytest.fixture
def storage(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_storage(tmp_path, tmp_path_factory)


def configured(nodes: RayNodes, command: str, config: Any, folder: Path) -> dict[str, Any]:
    """The result of a command with this configuration."""
    config_io.save(config, folder / f"{command}.json")
    return result_of(nodes, command, "--config", str(folder / f"{command}.json"))


def result_of(nodes: RayNodes, command: str, *arguments: str) -> dict[str, Any]:
    """The last line of a command that joins the cluster's head."""
    done = run(nodes, command, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def run(nodes: RayNodes, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", f"pipelines.{command}", *arguments]
    return subprocess.run(
        words, cwd=ROOT, env=nodes.environment, capture_output=True, text=True, check=False, timeout=600
    )


def lost(nodes: RayNodes, name: str, num_cpus: int, resources: dict[str, float]) -> Callable[[], None]:
    """Kill a node; another of its kind comes, as from an autoscaler."""

    def lose() -> None:
        nodes.nodes.pop(name).kill()
        nodes.add(name, num_cpus, resources)

    return lose


def busy_node(nodes: RayNodes, process: str, among: str = "") -> str:
    """The name of a node that runs such a process."""

    def find() -> str | None:
        for name, node in nodes.nodes.items():
            if name.startswith(among) and any(process in " ".join(each.cmdline()) for each in node.processes()):
                return name
        return None

    return wait_until(find)


def test_a_dataset_prepared_by_all_nodes_is_that_of_one_process(nodes: RayNodes, tmp_path: Path):
    spec = write_npz(tmp_path / "tiny.npz", tiny_columns(3000))
    prepare(PrepareConfig(source=spec, out=tmp_path / "here", rows_per_shard=500))
    flags = f"--source {spec} --out {tmp_path / 'there'} --rows-per-shard 500 --reader ray"
    result = result_of(nodes, "prepare", *flags.split())
    assert result["digest"] == read_manifest(tmp_path / "here").digest


def long_training(dataset: Path, storage: Path) -> TrainConfig:
    """Two learners for long enough to lose a node."""
    return train_config(
        dataset,
        storage=str(storage),
        env=ENVIRONMENT,
        num_learners=2,
        learner_resources=LEARNERS,
        rollout_resources=ROLLOUTS,
        num_updates=3000,
        log_interval_updates=500,
        checkpoint_interval_updates=250,
        eval_interval_updates=1500,
        num_eval_episodes=4,
    )


def first_checkpoint(storage: Path, num_updates: int) -> Path:
    def found() -> Path | None:
        runs = [path.parent for path in storage.glob("*/config.json")]
        return next((run for run in runs if run_folder.checkpoint_updates(run)[-1:] >= [num_updates]), None)

    return wait_until(found)


def test_two_learners_on_two_nodes_of_which_one_is_lost(nodes: RayNodes, tmp_path: Path, storage: Path):
    config = long_training(tiny_dataset(tmp_path / "data"), storage)

    def lose_one() -> None:
        first_checkpoint(storage, 500)
        lost(nodes, busy_node(nodes, "RayTrainWorker"), 1, {"iql_learner": 1})()

    wait = in_background(lose_one)
    result = configured(nodes, "train", config, tmp_path)
    wait()
    ended = final_tensors(Path(result["run_folder"]), config.num_updates)
    alone = replace(config, env=None, eval_method="none")
    assert different(ended, trained_in_step(alone, tmp_path / "undisturbed")) == []
    assert list(run_folder.read_evaluations(Path(result["run_folder"]))) == [0, 1500, 3000]


def long_search(dataset: Path, storage: Path) -> SearchConfig:
    """Four trials of two members, one a node."""
    return search_config(
        dataset,
        storage,
        learner_resources=LEARNERS,
        members_per_trial=2,
        num_updates=test_search.LONG,
        checkpoint_interval_updates=200,
        eval_interval_updates=1000,
        log_interval_updates=500,
    )


@pytest.mark.slow
def test_a_search_on_three_nodes_of_which_one_is_lost(nodes: RayNodes, tmp_path: Path, storage: Path):
    config = long_search(tiny_dataset(tmp_path / "data"), storage)

    def lose_one() -> None:
        wait_until(lambda: max(test_search.progress_of(storage), default=0) >= 400 or None)
        lost(nodes, busy_node(nodes, "Trainable"), 1, {"iql_learner": 1})()

    wait = in_background(lose_one)
    result = configured(nodes, "search", config, tmp_path)
    wait()
    assert (result["num_trials"], result["num_members"]) == (4, 8)
    test_search.assert_as_undisturbed(config, Path(result["run_folder"]), tmp_path / "undisturbed", 2)


@pytest.fixture
def online(tmp_path: Path, storage: Path) -> FinetuneConfig:
    """Two workers of two environments, away from the learner."""
    config = train_config(tiny_dataset(tmp_path / "data"), storage=str(storage), eval_method="none")
    return FinetuneConfig(
        run=str(test_finetuning.trained(config, storage / "source")),
        env=test_finetuning.CHAOTIC,
        learner_resources=LEARNERS,
        rollout_resources=ROLLOUTS,
        num_env_steps=2000,
        num_rollout_workers=2,
        envs_per_worker=2,
        log_interval_env_steps=500,
        checkpoint_interval_env_steps=200,
        eval_interval_env_steps=1000,
        num_eval_episodes=4,
        num_checkpoints_to_keep=20,
        storage=str(storage),
    )


@pytest.mark.slow
def test_fine_tuning_loses_the_node_of_its_rollouts(nodes: RayNodes, online: FinetuneConfig, tmp_path: Path):
    def lose_it() -> None:
        test_finetuning.wait_for_checkpoint(online.storage, str(online.run), 400)
        assert busy_node(nodes, "CollectingWorker") == "rollout1"
        lost(nodes, "rollout1", 2, {"iql_rollout": 1})()

    wait = in_background(lose_it)
    result = configured(nodes, "finetune", online, tmp_path)
    wait()
    test_finetuning.assert_undisturbed(Path(result["run_folder"]), online, tmp_path / "undisturbed")


@pytest.mark.slow
def test_fine_tuning_loses_the_node_of_its_learner(nodes: RayNodes, online: FinetuneConfig, tmp_path: Path):
    """And with it the rollout workers, which are the learner's own."""

    def lose_it() -> None:
        test_finetuning.wait_for_checkpoint(online.storage, str(online.run), 400)
        lost(nodes, busy_node(nodes, "RayTrainWorker"), 1, {"iql_learner": 1})()

    wait = in_background(lose_it)
    result = configured(nodes, "finetune", online, tmp_path)
    wait()
    test_finetuning.assert_undisturbed(Path(result["run_folder"]), online, tmp_path / "undisturbed")


def test_episodes_on_another_node_have_the_returns_of_one_process(nodes: RayNodes, tmp_path: Path, storage: Path):
    config = train_config(tiny_dataset(tmp_path / "data"), storage=str(storage), eval_method="none")
    source = test_finetuning.trained(config, storage / "source")
    flags = f"--run {source} --env {test_finetuning.CHAOTIC} --num-episodes 20 --rollout-resources iql_rollout=0.001"
    there = result_of(nodes, "evaluate", *flags.split(), "--storage", str(storage))
    policy, _ = checkpoint.load_policy(source, "last")
    worker = RolloutWorker(test_finetuning.CHAOTIC)
    episodes = [episode for group in split_into_groups(20, 0) for episode in worker.run(policy, group, 0.0)]
    here = json.loads(json.dumps(summarize(episodes, test_finetuning.CHAOTIC)))
    assert {name: there[name] for name in here} == here


def test_a_dry_run_says_which_nodes_would_take_what(nodes: RayNodes, tmp_path: Path, storage: Path):
    config = replace(long_training(tiny_dataset(tmp_path / "data"), storage), dry_run=True)

    def placed() -> list[dict[str, Any]] | None:
        """Once what the test before held is given back."""
        placement = configured(nodes, "train", config, tmp_path)["placement"]
        return None if any(each["waiting"] for each in placement) else placement

    learners, evaluation = wait_until(placed)
    assert sorted(learners["nodes"].values()) == [1, 1]
    assert (evaluation["role"], list(evaluation["nodes"].values())) == ("evaluation worker", [1])
    assert not set(learners["nodes"]) & set(evaluation["nodes"])
    assert not list(storage.glob("*/config.json"))


def test_what_no_node_offers_is_refused_before_waiting(nodes: RayNodes, tmp_path: Path, storage: Path):
    config = replace(long_training(tiny_dataset(tmp_path / "data"), storage), learner_resources=("iql_gpu=1",))
    config_io.save(config, tmp_path / "asked.json")
    done = run(nodes, "train", "--config", str(tmp_path / "asked.json"))
    assert done.returncode == 2
    assert "the cluster can never run 2 learners (CPU 1, iql_gpu 1): no node has iql_gpu" in done.stderr
    assert not list(storage.glob("*/config.json"))
