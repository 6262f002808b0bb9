"""Fine-tuning on Ray: the numbers of one process on any number of workers, whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from torch import Tensor

from iql_ray import checkpoint, run_folder
from iql_ray import config as config_io
from iql_ray.data.experience_log import read_experience
from iql_ray.distributed.checking import check
from iql_ray.distributed.finetune_checking import CheckedFinetune, check_finetune
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.finetuning import OnlinePlan
from iql_ray.distributed.learner import RunPlan, train
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.experience import Experience
from pipelines import finetune
from tests.distributed.examples import Notes, different, final_tensors, learner_of, plan_of, tiny_dataset, train_config
from tests.distributed.killing import end, in_background, processes_of, wait_until
from tests.distributed.online_examples import OnlineNotes, run_online
from tests.tracking.examples import client_of, history, new_storage

ROOT = Path(__file__).parents[2]
CHAOTIC = "tests.evaluation.toys:ChaoticEnv"
"""A difference in a last bit is a difference in everything, a few steps later."""

pytestmark = pytest.mark.ray


@pytest.fixture
def asked(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneConfig:
    """Four environments for 2,000 steps, from twenty updates on random data."""
    storage = new_storage(tmp_path, tmp_path_factory)
    config = train_config(tiny_dataset(tmp_path / "data"), storage=str(storage), eval_method="none")
    source = trained(config, storage / "source")
    return FinetuneConfig(
        run=str(source),
        env=CHAOTIC,
        num_env_steps=2000,
        num_rollout_workers=2,
        envs_per_worker=2,
        log_interval_env_steps=200,
        checkpoint_interval_env_steps=200,
        eval_interval_env_steps=1000,
        num_eval_episodes=4,
        num_checkpoints_to_keep=20,
        storage=str(storage),
    )


def trained(config: TrainConfig, folder: Path) -> Path:
    """A run as iql-ray train leaves it, but for its record."""
    folder.mkdir()
    learner = learner_of(plan_of(config, folder))
    train(learner, learner.sampler, Notes())
    config_io.save(config, folder / run_folder.CONFIG_FILE)
    return folder


def finetuned(asked: FinetuneConfig) -> dict[str, Any]:
    from iql_ray.distributed.finetuning import run_finetuning

    return run_finetuning(check_finetune(asked))


def in_this_process(asked: FinetuneConfig, folder: Path) -> tuple[dict[str, Tensor], Experience]:
    """What the run must end with, computed without Ray: its tensors and its experience."""
    checked = check_finetune(asked)
    plan = RunPlan(
        config=checked.run.config,
        run_folder=folder,
        spaces=checked.run.manifest.spaces,
        transforms=checked.run.transforms,
        dataset_digest=checked.run.manifest.digest,
        device="cpu",
    )
    learner = run_online(plan, checked.config, OnlineNotes(), online=online_of(checked))
    return learner.agent.tensors(), Experience.joined(list(read_experience(folder)))


def online_of(checked: CheckedFinetune) -> OnlinePlan:
    return OnlinePlan(
        config=checked.config,
        source=checked.source,
        num_source_updates=checked.num_source_updates,
        member=checked.member,
    )


def assert_undisturbed(run: Path, asked: FinetuneConfig, folder: Path) -> None:
    tensors, experience = in_this_process(asked, folder)
    assert different(final_tensors(run, asked.num_env_steps), tensors) == []
    for name, values in vars(Experience.joined(list(read_experience(run)))).items():
        np.testing.assert_array_equal(values, getattr(experience, name), err_msg=name)


def wait_for_checkpoint(storage: str, source: str, num_updates: int) -> Path:
    """The fine-tuning run's folder, once it has a checkpoint of so many updates."""

    def found() -> Path | None:
        runs = [path.parent for path in Path(storage).glob("*/config.json") if str(path.parent) != source]
        return next((run for run in runs if run_folder.checkpoint_updates(run)[-1:] >= [num_updates]), None)

    return wait_until(found)


def test_workers_killed_and_a_learner_killed_the_run_is_that_of_one_undisturbed_process(
    ray_session: None, asked: FinetuneConfig, tmp_path: Path
):
    killed: list[psutil.Process] = []

    def kill_some() -> None:
        run = wait_for_checkpoint(asked.storage, str(asked.run), 400)
        killed.extend(processes_of(os.getpid(), "CollectingWorker")[:1])
        killed[0].kill()
        later = run_folder.checkpoint_updates(run)[-1] + 200
        wait_for_checkpoint(asked.storage, str(asked.run), min(later, asked.num_env_steps - 400))
        killed.extend(processes_of(os.getpid(), "RayTrainWorker")[:1])
        killed[1].kill()

    wait = in_background(kill_some)
    result = finetuned(asked)
    wait()
    assert len(killed) == 2
    assert (result["num_env_steps"], result["num_transitions"], result["num_updates"]) == (2000, 2000, 2000)
    run = Path(result["run_folder"])
    assert_undisturbed(run, asked, tmp_path / "undisturbed")
    client = client_of(Path(asked.storage))
    for name in ("online/num_updates", "train/value_loss"):
        assert [step for step, _ in history(client, run.name, name)] == list(range(200, 2001, 200))
    assert [step for step, _ in history(client, run.name, "eval/return_mean")] == [0, 1000, 2000]
    assert result["offline"] == run_folder.read_evaluations(run)[0]["return_mean"]


def test_asynchronously_the_ratio_is_exact_at_the_end_and_what_a_killed_worker_had_is_counted(
    ray_session: None, asked: FinetuneConfig
):
    asked = replace(asked, mode="asynchronous", steps_per_block=5)

    def kill_one() -> None:
        wait_for_checkpoint(asked.storage, str(asked.run), 400)
        processes_of(os.getpid(), "CollectingWorker")[0].kill()

    wait = in_background(kill_one)
    result = finetuned(asked)
    wait()
    assert (result["num_updates"], result["num_env_steps"]) == (2000, 2000)
    assert 2000 <= result["num_transitions"] <= 2000 + 2 * 2 * 2 * 5
    assert result["num_lost_steps"] in (10, 20)
    assert result["max_staleness"] > 0  # recorded; a worker that gets no processor time may be far behind


@pytest.mark.slow
def test_a_run_whose_driver_is_killed_is_finished_by_resume_with_its_experience(
    ray_session: None, asked: FinetuneConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = killed_driver(asked, tmp_path / "driver.log")
    assert run_folder.checkpoint_updates(run)[-1] < 2000
    assert finetune.main(["--resume", run.name, "--storage", asked.storage]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["run_id"] == run.name
    assert_undisturbed(run, asked, tmp_path / "undisturbed")


def killed_driver(asked: FinetuneConfig, log: Path) -> Path:
    """Start the command in a session of its own, kill -9 its driver in the middle; the run's folder."""
    config_io.save(asked, log.parent / "asked.json")
    with log.open("w") as output:
        arguments = [sys.executable, "-m", "pipelines.finetune", "--config", str(log.parent / "asked.json")]
        driver = subprocess.Popen(arguments, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
    try:
        run = wait_for_checkpoint(asked.storage, str(asked.run), 400)
    finally:
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        end(family)
    return run


def test_what_was_collected_is_a_dataset_to_train_on(ray_session: None, asked: FinetuneConfig, tmp_path: Path):
    asked = replace(asked, num_env_steps=200, num_rollout_workers=0, save_experience=str(tmp_path / "online"))
    result = finetune.finetune(asked)
    assert result["saved_experience"] == str(tmp_path / "online")
    run = check(train_config(tmp_path / "online", env=CHAOTIC))
    assert run.num_rows == 200
    assert run.manifest.environment_id == CHAOTIC
    again = check_finetune(replace(asked, run=result["run_folder"], save_experience=None))
    assert again.num_source_updates in run_folder.checkpoint_updates(Path(result["run_folder"]))
    assert checkpoint.load_policy(Path(result["run_folder"]), "last")[1] == 200
