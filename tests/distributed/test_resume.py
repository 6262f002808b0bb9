"""kill -9 of one of two learners, and of the driver of one: the run ends with the parameters of an undisturbed one.

What that one has is computed without Ray (`in_step.py`), so that each test here pays for one disturbed run alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from iql_ray import config as config_io
from iql_ray import run_folder
from iql_ray.distributed.checking import check
from iql_ray.distributed.train_config import TrainConfig
from pipelines import train
from tests.distributed.examples import (
    ENVIRONMENT,
    NUM_STREAMED_ROWS,
    SMALL_LIMIT,
    different,
    final_tensors,
    tiny_dataset,
    train_config,
)
from tests.distributed.in_step import trained_in_step
from tests.distributed.killing import end, in_background, processes_of
from tests.tracking.examples import client_of, history, new_storage

ROOT = Path(__file__).parents[2]
NUM_UPDATES = 4000
INTERVAL = 400
"""Between checkpoints; enough updates that a run lasts longer than it takes to kill something."""

pytestmark = pytest.mark.ray


@pytest.fixture
def config(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    storage = new_storage(tmp_path, tmp_path_factory)
    config = train_config(tiny_dataset(tmp_path / "data"), storage=str(storage), num_updates=NUM_UPDATES)
    return replace(
        config,
        agent=replace(config.agent, dropout_rate=0.1),
        eval_method="none",
        log_interval_updates=200,
        checkpoint_interval_updates=INTERVAL,
    )


def run_of(storage: Path) -> Path | None:
    return next((path.parent for path in storage.glob("*/config.json")), None)


def wait_for_checkpoint(storage: Path, update_count: int, timeout_seconds: float = 240) -> Path:
    """The run's folder, once it has a checkpoint of at least that many updates and not yet its last."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        run = run_of(storage)
        updates = run_folder.checkpoint_updates(run) if run else []
        if run and updates and updates[-1] >= update_count:
            assert updates[-1] < NUM_UPDATES, "too late to kill anything"
            return run
        time.sleep(0.01)
    raise TimeoutError(f"no checkpoint of {update_count} updates in {storage}")


@pytest.mark.parametrize("is_streamed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_whose_learner_is_killed_ends_with_the_parameters_of_one_that_was_not(
    ray_session: None, config: TrainConfig, tmp_path: Path, is_streamed: bool
):
    """Its rows held, and streamed: four thousand updates are then some twenty passes."""
    from iql_ray.distributed import training

    config = replace(config, num_learners=2)
    if is_streamed:
        dataset = tiny_dataset(tmp_path / "streamed", num_rows=NUM_STREAMED_ROWS)
        config = replace(config, dataset=str(dataset), memory_limit=SMALL_LIMIT)
    victims: list[psutil.Process] = []

    def kill_one_of_two_learners() -> None:
        wait_for_checkpoint(Path(config.storage), 2 * INTERVAL)
        victims.extend(processes_of(os.getpid(), "RayTrainWorker"))
        victims[-1].kill()

    wait = in_background(kill_one_of_two_learners)
    result = training.train(check(config))
    wait()
    assert len(victims) == 2
    assert not victims[-1].is_running()
    assert (result["num_updates"], result["is_streamed"]) == (NUM_UPDATES, is_streamed)
    ended = final_tensors(Path(result["run_folder"]), NUM_UPDATES)
    assert different(ended, trained_in_step(config, tmp_path / "undisturbed")) == []


def killed_driver(config: TrainConfig, log: Path) -> Path:
    """Start the command in a session of its own, kill -9 its driver in the middle; the run's folder."""
    config_io.save(config, log.parent / "asked.json")
    with log.open("w") as output:
        arguments = [sys.executable, "-m", "pipelines.train", "--config", str(log.parent / "asked.json")]
        driver = subprocess.Popen(arguments, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
    try:
        run = wait_for_checkpoint(Path(config.storage), 2 * INTERVAL)
    finally:
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        end(family)
    return run


def test_a_run_whose_driver_is_killed_is_finished_by_resume(
    ray_session: None, config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = replace(config, env=ENVIRONMENT, eval_method="rollouts", eval_interval_updates=1600, num_eval_episodes=8)
    run = killed_driver(config, tmp_path / "driver.log")
    assert run_folder.checkpoint_updates(run)[-1] < NUM_UPDATES
    assert train.main(["--resume", run.name, "--storage", config.storage]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["run_id"] == run.name
    assert different(final_tensors(run, NUM_UPDATES), trained_in_step(config, tmp_path / "undisturbed")) == []
    assert_one_run_without_gaps(run)


def assert_one_run_without_gaps(run: Path) -> None:
    client = client_of(run.parent)
    (experiment,) = [each for each in client.search_experiments() if each.name == "iql_ray"]
    (recorded,) = client.search_runs([experiment.experiment_id])
    assert (recorded.info.run_id, recorded.info.status) == (run.name, "FINISHED")
    steps = [step for step, _ in history(client, run.name, "train/value_loss")]
    assert steps == list(range(200, NUM_UPDATES + 1, 200))
    assert [step for step, _ in history(client, run.name, "eval/return_mean")] == [0, 1600, 3200, 4000]
    assert list(run_folder.read_evaluations(run)) == [0, 1600, 3200, 4000]
