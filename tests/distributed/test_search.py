"""A search on Ray Tune: a run for every member, the answer, and what is left after something was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from iql_ray import checkpoint, run_folder
from iql_ray import config as config_io
from iql_ray.algorithm.denormals import flushed_denormals
from iql_ray.data.streaming import StreamedRows
from iql_ray.distributed.cluster_room import alive_nodes
from iql_ray.distributed.learner import RunPlan
from iql_ray.distributed.members import load_agent
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.search_estimate import num_slots
from iql_ray.distributed.search_plan import planned_trials
from iql_ray.distributed.search_trial import HISTORY_FILE, TrialPlan, TrialRun
from iql_ray.distributed.train_config import TrainConfig
from pipelines import command_line, extract, search
from tests.distributed.examples import (
    ENVIRONMENT,
    NUM_STREAMED_ROWS,
    SMALL_LIMIT,
    all_rows,
    different,
    plan_of,
    search_config,
    streamed_rows,
    tiny_dataset,
    train_config,
)
from tests.distributed.killing import end, in_background, processes_of
from tests.tracking.examples import client_of, history, new_storage

ROOT = Path(__file__).parents[2]
LONG = 2000
"""Updates of a search that lasts long enough to kill something."""

KEPT = ("num_updates", "eval_interval_updates", "log_interval_updates", "checkpoint_interval_updates", "env")

pytestmark = pytest.mark.ray


def runs_of(storage: Path, **tags: str) -> list[Any]:
    """The MLflow runs that bear these tags."""
    client = client_of(storage)
    (experiment,) = [each for each in client.search_experiments() if each.name == "iql_ray"]
    every = client.search_runs([experiment.experiment_id])
    return [run for run in every if all(run.data.tags.get(name) == value for name, value in tags.items())]


@pytest.fixture(scope="module")
def searched(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchConfig, dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("search")
    storage = new_storage(folder, tmp_path_factory)
    config = search_config(tiny_dataset(folder / "data"), storage, register_as="tiny")
    return config, search.search(config), storage


def test_every_member_has_a_finished_run_under_the_searchs(searched: tuple[SearchConfig, dict[str, Any], Path]):
    _, result, storage = searched
    (parent,) = runs_of(storage, **{"iql_ray.kind": "search"})
    children = runs_of(storage, **{"mlflow.parentRunId": result["run_id"]})
    assert parent.info.run_id == result["run_id"]
    assert (result["num_trials"], result["num_members"], len(children)) == (2, 8, 8)
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    settings = {
        (run.data.params["seed"], run.data.params["agent.expectile"], run.data.params["agent.inverse_temperature"])
        for run in children
    }
    assert len(settings) == 8
    client = client_of(storage)
    for run in children:
        assert [step for step, _ in history(client, run.info.run_id, "train/value_loss")] == [4, 8, 10, 12, 16, 20]
        assert [step for step, _ in history(client, run.info.run_id, "eval/return_mean")] == [10, 20]
        outputs = client.get_run(run.info.run_id).outputs
        assert outputs is not None
        assert len(outputs.model_outputs) == 1


def test_a_members_run_is_that_member_alone(searched: tuple[SearchConfig, dict[str, Any], Path]):
    """As `iql-ray train` leaves it, so that it can be evaluated, trained on, extracted from."""
    config, result, storage = searched
    run = storage / result["best"]["run_id"]
    alone, _ = load_agent(run)
    assert alone.population.num_policies == 1
    (member,) = alone.population.members()
    spec = next(spec for spec in planned_trials(config, 4) if member.seed in spec.seeds)
    whole, _ = load_agent(Path(result["run_folder"]) / "trials" / spec.name)
    index = whole.population.members().index(member)
    for name, value in alone.policy_weights().items():
        assert torch.equal(value, whole.policy_weights(index)[name])
    assert run_folder.read_evaluations(run)[20]["num_episodes"] == 4


def test_the_answer_lies_where_people_look(searched: tuple[SearchConfig, dict[str, Any], Path]):
    _, result, storage = searched
    client = client_of(storage)
    files = {file.path for file in client.list_artifacts(result["run_id"])}
    assert {"leaderboard.json", "search.png", "search.html", "best.yaml", "config.json"} <= files
    board = json.loads(Path(result["leaderboard_json"]).read_text())
    assert [each["rank"] for each in board["standings"]] == [1, 2, 3, 4]
    assert board["standings"][0]["iqm"] == result["best"]["score"]
    assert client.get_run(result["run_id"]).data.tags["iql_ray.verdict"] == result["verdict"]
    best = command_line.parse(TrainConfig, ["--config", result["best_yaml"]])
    assert best.agent.expectile == result["best"]["expectile"]
    assert best.agent.inverse_temperature == result["best"]["inverse_temperature"]
    assert (best.seed, best.env, best.population.num_policies) == (result["best"]["seed"], ENVIRONMENT, 1)


def test_the_best_members_policy_is_registered(searched: tuple[SearchConfig, dict[str, Any], Path]):
    _, result, storage = searched
    assert result["model_uri"] == "models:/tiny/1"
    version = client_of(storage).get_model_version("tiny", "1")
    assert version.run_id == result["best"]["run_id"]
    assert version.tags["selected_by"] == "search over 8 members"


def test_policies_are_extracted_from_a_member_that_was_searched(
    searched: tuple[SearchConfig, dict[str, Any], Path], capsys: pytest.CaptureFixture[str]
):
    _, result, storage = searched
    source = result["best"]["run_id"]
    flags = f"--run {source} --inverse-temperatures 0 2 --num-updates 6 --num-final-episodes 2 --storage {storage}"
    assert extract.main(flags.split()) == 0
    extracted = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert extracted["num_members"] == 2
    found, _ = load_agent(storage / extracted["best"]["run_id"])
    critics, _ = load_agent(storage / source)
    assert torch.equal(found.tensors()["critic.0.weight"], critics.tensors()["critic.0.weight"])
    assert found.update_count == 6


def undisturbed(config: SearchConfig, folder: Path, members: int = 4) -> dict[str, list[dict[str, Any]]]:
    """Histories of all trials by name, each trained in this process without Ray; their checkpoints in `folder`."""
    found = {}
    for spec in planned_trials(config, members):
        train = train_config(
            Path(config.dataset),
            seeds=spec.seeds,
            expectiles=spec.expectiles,
            inverse_temperatures=spec.inverse_temperatures,
            **{name: getattr(config, name) for name in KEPT},
        )
        run, is_after = plan_of(train, folder / "trials" / spec.name), config.extract == "after"
        plan = TrialPlan(run=run, search_folder=folder, critic_updates=config.num_updates if is_after else None)
        rows = rows_of(config, run)
        with flushed_denormals():
            trial = TrialRun(plan, rows, _no_judge)
            while not trial.is_done:
                trial.advance()
        found[spec.name] = run_folder.read_lines(plan.run.run_folder / HISTORY_FILE)
    return found


def rows_of(config: SearchConfig, run: RunPlan) -> Tensor | StreamedRows:
    """A trial's, held or streamed as the search on this cluster does it."""
    if config.memory_limit is None:
        return torch.from_numpy(all_rows(Path(config.dataset), run.transforms))
    limit = config.memory_limit / num_slots(config, "cpu", alive_nodes())
    return streamed_rows(replace(run, config=replace(run.config, memory_limit=limit)))


def _no_judge(policy: object, is_final: bool) -> dict[str, Any]:
    return {"return_mean": 0.0, "return_ci": [0.0, 0.0]}


def assert_as_undisturbed(config: SearchConfig, searched_folder: Path, folder: Path, members: int = 4) -> None:
    for name in undisturbed(config, folder, members):
        ended = checkpoint.load(searched_folder / "trials" / name, config.num_updates).tensors
        expected = checkpoint.load(folder / "trials" / name, config.num_updates).tensors
        assert different(ended, expected) == []


@pytest.fixture
def long_config(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchConfig:
    storage = new_storage(tmp_path, tmp_path_factory)
    return search_config(
        tiny_dataset(tmp_path / "data"),
        storage,
        num_updates=LONG,
        checkpoint_interval_updates=200,
        eval_interval_updates=1000,
        log_interval_updates=500,
    )


def wait_until(is_so: Callable[[], bool], timeout_seconds: float = 240) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def progress_of(storage: Path, phase: str = ".") -> list[int]:
    """The updates of every trial's last checkpoint, or of its critics'."""
    return [max(run_folder.checkpoint_updates(trial / phase), default=0) for trial in storage.glob("*/trials/*")]


@pytest.mark.parametrize(
    ("num_rows", "changes", "phase"),
    [
        (120, {}, "."),
        pytest.param(120, {"extract": "after"}, "critics", marks=pytest.mark.slow),
        pytest.param(2 * NUM_STREAMED_ROWS, {"memory_limit": 4 * SMALL_LIMIT}, ".", marks=pytest.mark.slow),
    ],
    ids=["side by side", "in two phases", "streaming"],
)
def test_a_trial_that_is_killed_goes_on_from_its_last_checkpoint(
    ray_session: None, long_config: SearchConfig, tmp_path: Path, num_rows: int, changes: dict[str, Any], phase: str
):
    dataset = tiny_dataset(tmp_path / "its_data", num_rows)
    config, victims = replace(long_config, dataset=str(dataset), **changes), list[psutil.Process]()

    def kill_one() -> None:
        wait_until(lambda: max(progress_of(Path(config.storage), phase), default=0) >= 400)
        victims.extend(processes_of(os.getpid(), "Trainable"))
        victims[0].kill()

    wait = in_background(kill_one)
    result = search.search(config)
    wait()
    assert victims
    assert_as_undisturbed(config, Path(result["run_folder"]), tmp_path / "undisturbed")
    assert {run.info.status for run in runs_of(Path(long_config.storage))} == {"FINISHED"}


def driver_of(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        command = [sys.executable, "-m", "pipelines.search", *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)


def test_a_search_is_finished_after_its_driver_was_killed_and_again_interrupted(
    ray_session: None, long_config: SearchConfig, tmp_path: Path
):
    storage, log = Path(long_config.storage), tmp_path / "log.txt"
    config_io.save(long_config, tmp_path / "asked.json")
    driver = driver_of(["--config", str(tmp_path / "asked.json")], log)
    wait_until(lambda: max(progress_of(storage), default=0) >= 400)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    end(family)
    (run,) = storage.glob("*/trials")
    resume = ["--resume", run.parent.name, "--storage", str(storage)]

    before = max(progress_of(storage))
    driver = driver_of(resume, log)
    wait_until(lambda: max(progress_of(storage)) > before)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(timeout=60) == command_line.INTERRUPTED, log.read_text()
    end(family)
    assert {each.info.status for each in runs_of(storage)} <= {"KILLED", "FINISHED"}, "nothing is left running"

    result = search.search(command_line.parse(SearchConfig, resume))
    assert result["run_id"] == run.parent.name
    assert_as_undisturbed(long_config, Path(result["run_folder"]), tmp_path / "undisturbed")
    assert {each.info.status for each in runs_of(storage)} == {"FINISHED"}
    assert len(runs_of(storage)) == 9
    client = client_of(storage)
    for each in runs_of(storage, **{"mlflow.parentRunId": run.parent.name}):
        steps = [step for step, _ in history(client, each.info.run_id, "train/value_loss")]
        due = {*range(500, LONG + 1, 500), *range(200, LONG + 1, 200)}
        assert steps == sorted(due), "no gap, nothing twice"


def test_optuna_chooses_trials_and_finds_its_own_again(
    ray_session: None, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    storage = new_storage(tmp_path, tmp_path_factory)
    config = search_config(
        tiny_dataset(tmp_path / "data"), storage, search="optuna", num_samples=3, seeds=(), expectiles=(),
        expectile_range=(0.5, 0.9), vary=("agent.discount=0.9,0.95",), scheduler="asha",
    )  # fmt: skip
    result = search.search(config)
    samples = run_folder.read_lines(Path(result["run_folder"]) / "samples.jsonl")
    assert len(samples) == 3
    assert result["num_trials"] == 3
    again = search.search(SearchConfig(resume=result["run_id"], storage=str(storage)))
    assert run_folder.read_lines(Path(result["run_folder"]) / "samples.jsonl") == samples
    assert again["best"] == result["best"]


def test_a_search_whose_trials_fail_says_why_and_leaves_nothing_running(
    ray_session: None, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    storage = new_storage(tmp_path, tmp_path_factory)
    dataset = tiny_dataset(tmp_path / "data")
    config = search_config(dataset, storage, env="tests.evaluation.toys:BrokenEnv", max_failures=0, seeds=(0,))
    with pytest.raises(RuntimeError, match=r"(?s)no member .* has a score.*first failure.*broken on purpose"):
        search.search(config)
    assert {run.info.status for run in runs_of(storage)} == {"FAILED"}
