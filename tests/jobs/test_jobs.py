"""Jobs on a real head: what they print and record, how they fail, and that a stopped one goes on as if nothing was."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iql_ray import checkpoint, run_folder
from iql_ray import config as config_io
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.tracking.store import default_tracking_uri, open_client
from tests.distributed.examples import different, final_tensors, search_config, tiny_dataset, train_config
from tests.distributed.in_step import trained_in_step
from tests.distributed.killing import wait_until
from tests.distributed.test_finetuning import CHAOTIC, in_this_process, trained
from tests.jobs.head import JOB_SECONDS, Head
from tests.tracking.examples import new_storage

NUM_UPDATES = 6000
INTERVAL = 500
"""Between checkpoints: the first of them has a job stopped."""

pytestmark = pytest.mark.ray


@pytest.fixture
def config(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    config = train_config(tiny_dataset(tmp_path / "data"), num_updates=NUM_UPDATES, eval_method="none")
    return replace(
        config,
        agent=replace(config.agent, dropout_rate=0.1),
        storage=str(new_storage(tmp_path, tmp_path_factory)),
        log_interval_updates=INTERVAL,
        checkpoint_interval_updates=INTERVAL,
    )


def send(head: Head, config: TrainConfig | FinetuneConfig, name: str) -> list[str]:
    """The configuration as a file of the job's working directory; the words that name it there."""
    config_io.save(config, head.folder / "sent" / f"{name}.json")
    return ["--config", f"{name}.json"]


def result_of(head: Head, name: str) -> dict[str, Any]:
    """The last line of a job's log."""
    return json.loads(head.logs(name)[-1])


def statuses(storage: str) -> list[str]:
    """Of all runs in the store."""
    client = open_client(default_tracking_uri(Path(storage)))
    experiments = [each.experiment_id for each in client.search_experiments()]
    return sorted(run.info.status for run in client.search_runs(experiments))


def stopped(head: Head, command: str, config: TrainConfig | FinetuneConfig, pattern: str) -> Path:
    """Submit it, and stop it once files of that pattern are below the storage; the run's folder."""
    name = f"{command}-to-be-stopped"
    submitted = head.submit(command, *send(head, config, name), name=name, wait=False)
    assert submitted.returncode == 0, submitted.stderr
    storage = Path(config.storage)
    wait_until(lambda: next(storage.glob(pattern), None) or must_run(head, name), JOB_SECONDS)
    assert head.stop(name) == "STOPPED"
    (run,) = {path.parents[len(Path(pattern).parts) - 2] for path in storage.glob(pattern)}
    assert set(statuses(config.storage)) == {"KILLED"}
    last = head.logs(name)[-1]
    assert last == f"iql-ray {command}: stopped; to go on: iql-ray {command} --resume {run.name} --storage {storage}"
    return run


def must_run(head: Head, name: str) -> None:
    job = head.job(name)
    assert job["status"] in ("PENDING", "RUNNING"), "\n".join(head.logs(name))
    time.sleep(0.1)


def resumed(head: Head, command: str, run: Path) -> dict[str, Any]:
    name = f"{command}-resumed"
    done = head.submit(command, "--resume", run.name, "--storage", str(run.parent), name=name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(statuses(str(run.parent))) == {"FINISHED"}
    return result_of(head, name)


@pytest.mark.slow
def test_a_stopped_training_job_saves_where_it_stands_and_is_finished_bit_for_bit(
    head: Head, config: TrainConfig, tmp_path: Path
):
    run = stopped(head, "train", config, f"*/checkpoints/{INTERVAL:09d}")
    saved = run_folder.checkpoint_updates(run)[-1]
    assert INTERVAL <= saved < NUM_UPDATES
    result = resumed(head, "train", run)
    assert (result["run_id"], result["num_updates"]) == (run.name, NUM_UPDATES)
    assert different(final_tensors(run, NUM_UPDATES), trained_in_step(config, tmp_path / "undisturbed")) == []
    tags = open_client(default_tracking_uri(run.parent)).get_run(run.name).data.tags
    job = head.job("train-resumed")
    assert tags["iql_ray.job.submission_id"] == "train-resumed"
    assert tags["iql_ray.job.id"] == job["job_id"]
    assert tags["iql_ray.job.entrypoint"].endswith(f"train --resume {run.name} --storage {run.parent}")
    assert head.token not in json.dumps(tags)


def test_a_stopped_search_job_keeps_what_its_trials_have_and_is_finished(head: Head, config: TrainConfig):
    asked: SearchConfig = replace(
        search_config(Path(config.dataset), Path(config.storage)),
        num_updates=NUM_UPDATES // 3,
        eval_interval_updates=NUM_UPDATES,
        checkpoint_interval_updates=INTERVAL,
        log_interval_updates=INTERVAL,
        num_final_episodes=2,
        cpus_per_learner=1,
    )
    run = stopped(head, "search", asked, f"*/trials/*/checkpoints/{INTERVAL:09d}")
    newest = [run_folder.checkpoint_updates(trial)[-1] for trial in (run / "trials").iterdir()]
    assert any(update % INTERVAL for update in newest)
    result = resumed(head, "search", run)
    assert (result["run_id"], result["num_trials"], result["num_members"]) == (run.name, 2, 8)


@pytest.mark.slow
def test_a_stopped_finetuning_job_is_finished_bit_for_bit(head: Head, config: TrainConfig, tmp_path: Path):
    source = trained(replace(config, num_updates=20), Path(config.storage) / "source")
    asked = FinetuneConfig(
        run=str(source),
        env=CHAOTIC,
        num_env_steps=2000,
        envs_per_worker=2,
        log_interval_env_steps=500,
        checkpoint_interval_env_steps=500,
        eval_interval_env_steps=2000,
        num_eval_episodes=2,
        storage=config.storage,
    )
    run = stopped(head, "finetune", asked, "*/checkpoints/000000500")
    state = checkpoint.read_state(run_folder.checkpoint_folder(run, run_folder.checkpoint_updates(run)[-1]))
    assert 500 <= state.step < 2000
    result = resumed(head, "finetune", run)
    assert (result["run_id"], result["num_env_steps"]) == (run.name, 2000)
    tensors, _ = in_this_process(asked, tmp_path / "undisturbed")
    assert different(final_tensors(run, result["num_updates"]), tensors) == []


def test_a_failing_job_says_why_and_keeps_its_exit_code(head: Head):
    done = head.submit("train", "--dataset", "nowhere", "--storage", str(head.folder / "runs"), name="failing")
    assert done.returncode == 1
    job = head.job("failing")
    assert (job["status"], job["driver_exit_code"]) == ("FAILED", 2)
    message = "iql-ray train: error: dataset "
    assert message in job["message"]
    assert message in done.stdout
