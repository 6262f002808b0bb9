"""The monitor without Ray: it records, evaluates what waits in order and once, and says what went wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iql_ray import checkpoint, run_folder
from iql_ray.checkpoint import Checkpoint
from iql_ray.data.prepared import read_manifest
from iql_ray.distributed.monitor import (
    Evaluate,
    PolicyModel,
    RunMonitor,
    evaluation_metrics,
)
from iql_ray.distributed.monitor_actor import RunMonitorActor, RunSetup
from iql_ray.evaluation.fqe import fitted_evaluation
from iql_ray.policy import Policy
from tests.distributed.examples import TINY_BUDGET, tiny_dataset, train_config
from tests.evaluation.toys import random_policy


class FakeLogger:
    """What the monitor asks of `RunLogger`."""

    def __init__(self, folder: Path, is_store_there: bool = True) -> None:
        self.folder, self.run_id = folder, "r1"
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.models: list[tuple[Path, dict[str, Any]]] = []
        self.tags: dict[str, Any] = {}
        self.status: str | None = None
        self.is_store_there = is_store_there

    def log_metrics(self, step: int, values: dict[str, float]) -> None:
        self.metrics.append((step, values))

    def set_tags(self, values: dict[str, Any]) -> None:
        self.tags |= values

    def log_model(self, policy_folder: Path, **facts: Any) -> None:
        self.models.append((policy_folder, facts))

    def registered(self) -> dict[str, dict[str, Any]]:
        taken = self.models if self.is_store_there else []
        return {str(folder): {"model_uri": "models:/m-1", "model_id": "m-1", "version": 3} for folder, _ in taken}

    def close(self, status: str, timeout_seconds: float) -> bool:
        self.status = status
        return self.is_store_there


def saved(run: Path, update_count: int, is_to_be_evaluated: bool = True) -> None:
    state = Checkpoint(
        update_count=update_count,
        tensors={"t": torch.zeros(1)},
        random_states=({"g": torch.zeros(1)},),
        dataset_digest="d",
        is_to_be_evaluated=is_to_be_evaluated,
    )
    checkpoint.save(run, state, random_policy(seed=update_count))


def result(return_mean: float = 1.0) -> dict[str, Any]:
    return {"return_mean": return_mean, "return_ci": [0.5, 1.5], "num_episodes": 4}


def monitor_of(logger: FakeLogger, evaluate: Evaluate | None) -> RunMonitor:
    return RunMonitor(logger, evaluate)  # pyright: ignore[reportArgumentType]


class Evaluation:
    """Remembers whose policies it was given, by their seed, which is their update count."""

    def __init__(self, seeds: list[int], meanwhile: Callable[[int], None] = lambda seed: None) -> None:
        self._actions = {self._action(random_policy(seed=seed)): seed for seed in seeds}
        self._meanwhile = meanwhile
        self.evaluated: list[int] = []

    @staticmethod
    def _action(policy: Policy) -> float:
        return float(policy.act(np.array([0.3, -0.7]))[0])

    def __call__(self, policy: Policy) -> dict[str, Any]:
        seed = self._actions[self._action(policy)]
        self.evaluated.append(seed)
        self._meanwhile(seed)
        return result(float(seed))


def test_what_waits_is_evaluated_oldest_first_and_once(tmp_path: Path):
    for update in (10, 0, 20):
        saved(tmp_path, update)
    saved(tmp_path, 30, is_to_be_evaluated=False)
    logger, evaluate = FakeLogger(tmp_path), Evaluation([0, 10, 20, 30])
    monitor = monitor_of(logger, evaluate)
    monitor.finish_evaluations()
    assert evaluate.evaluated == [0, 10, 20]
    assert list(run_folder.read_evaluations(tmp_path)) == [0, 10, 20]
    assert [step for step, _ in logger.metrics] == [0, 10, 20]


def test_what_was_evaluated_before_an_interruption_is_not_evaluated_again(tmp_path: Path):
    for update in (0, 10):
        saved(tmp_path, update)
    run_folder.append_evaluation(tmp_path, {"num_updates": 0, **result()})
    evaluate = Evaluation([0, 10])
    monitor_of(FakeLogger(tmp_path), evaluate).finish_evaluations()
    assert evaluate.evaluated == [10]


def test_a_checkpoint_that_comes_during_an_evaluation_is_evaluated_after_it(tmp_path: Path):
    saved(tmp_path, 0)
    is_started = threading.Event()
    evaluate = Evaluation([0, 10], meanwhile=lambda seed: is_started.set())
    monitor = monitor_of(FakeLogger(tmp_path), evaluate)
    assert is_started.wait(10)
    saved(tmp_path, 10)
    monitor.checkpoint_saved(10, 10)
    monitor.finish_evaluations()
    assert evaluate.evaluated == [0, 10]


def test_an_evaluation_that_fails_is_said_and_ends_the_wait(tmp_path: Path):
    saved(tmp_path, 0)

    def evaluate(policy: Policy) -> dict[str, Any]:
        raise RuntimeError("the gripper is stuck")

    monitor = monitor_of(FakeLogger(tmp_path), evaluate)
    with pytest.raises(RuntimeError, match="evaluation failed: the gripper is stuck"):
        monitor.finish_evaluations()
    assert any("the gripper is stuck" in message for message in monitor.progress().messages)
    assert run_folder.read_evaluations(tmp_path) == {}
    assert checkpoint.pending_evaluations(tmp_path) == [0]


def test_a_checkpoint_whose_policy_is_damaged_does_not_end_the_run(tmp_path: Path):
    """A resumed run begins with it in place; the learners fall back, and write it anew."""
    saved(tmp_path, 0)
    saved(tmp_path, 10)
    (run_folder.checkpoint_folder(tmp_path, 10) / "policy" / "weights.safetensors").write_bytes(b"damaged")
    evaluate = Evaluation([0, 10])
    is_first_done = threading.Event()
    evaluate._meanwhile = lambda seed: is_first_done.set()
    monitor = monitor_of(FakeLogger(tmp_path), evaluate)
    assert is_first_done.wait(10)
    threading.Event().wait(0.3)  # the thread meets the damaged one
    saved(tmp_path, 10)
    monitor.checkpoint_saved(10, 10)
    monitor.finish_evaluations()
    assert evaluate.evaluated == [0, 10]


def test_a_damaged_checkpoint_that_stays_is_said_and_costs_only_its_own_evaluation(tmp_path: Path):
    for update in (0, 10):
        saved(tmp_path, update)
    (run_folder.checkpoint_folder(tmp_path, 0) / "policy" / "weights.safetensors").write_bytes(b"damaged")
    evaluate = Evaluation([10])
    monitor = monitor_of(FakeLogger(tmp_path), evaluate)
    monitor.finish_evaluations()
    assert evaluate.evaluated == [10]
    assert any("000000000" in message for message in monitor.progress().messages)


def test_without_an_environment_nothing_is_evaluated(tmp_path: Path):
    saved(tmp_path, 0)
    logger = FakeLogger(tmp_path)
    monitor_of(logger, None).finish_evaluations()
    assert logger.metrics == []


def test_without_an_environment_checkpoints_are_ranked_from_data_alone(tmp_path: Path):
    """The policies act at random in the data's spaces; the best is the one that fitted Q evaluation says is best."""
    dataset = tiny_dataset(tmp_path / "data")
    for update in (0, 10):
        saved(tmp_path, update)
    logger = FakeLogger(tmp_path)
    monitor_of(logger, fitted_evaluation(str(dataset), TINY_BUDGET, 0.9, seed=0)).finish_evaluations()
    evaluations = run_folder.read_evaluations(tmp_path)
    values = {update: each["value"] for update, each in evaluations.items()}
    assert values[0] != values[10]
    assert run_folder.best_update(tmp_path) == max(values, key=lambda update: values[update])
    points = dict(logger.metrics)
    assert points[10]["eval/return_mean"] == points[10]["eval/value"] == values[10]
    assert points[10]["eval/return_ci_low"] == evaluations[10]["value_ci"][0]
    assert points[10]["eval/improvement_ci_high"] == evaluations[10]["improvement_ci"][1]
    assert points[10]["eval/num_warnings"] == len(evaluations[10]["warnings"]) > 0


@pytest.mark.parametrize("method", ["auto", "fqe", "none"])
def test_a_run_without_an_environment_is_evaluated_from_data_unless_that_is_switched_off(tmp_path: Path, method: str):
    config = train_config(tiny_dataset(tmp_path), eval_method=method)
    setup = RunSetup(
        config=config,
        recorded_config=config,
        manifest=read_manifest(tmp_path / "tiny-0"),
        tracking_uri="",
        resumed_folder=None,
        num_cpus_per_eval_worker=0.0,
    )
    evaluate = RunMonitorActor()._evaluation(setup)
    if method == "none":
        assert evaluate is None
        return
    assert evaluate is not None
    assert evaluate(random_policy()) == evaluate(random_policy())


def test_progress_is_the_last_point_the_last_evaluation_and_every_message(tmp_path: Path):
    saved(tmp_path, 0)
    monitor = monitor_of(FakeLogger(tmp_path), Evaluation([0]))
    monitor.record(500, {"train/value_loss": 0.25})
    monitor.warn("careful")
    monitor.finish_evaluations()
    progress = monitor.progress()
    assert (progress.step, progress.metrics) == (500, {"train/value_loss": 0.25})
    assert progress.evaluation == {"num_updates": 0, **result(0.0)}
    assert progress.messages == ("careful",)


def test_points_go_to_the_record(tmp_path: Path):
    logger = FakeLogger(tmp_path)
    monitor_of(logger, None).record(500, {"train/value_loss": 0.25})
    assert logger.metrics == [(500, {"train/value_loss": 0.25})]


def model_of(tmp_path: Path) -> PolicyModel:
    saved(tmp_path, 20)
    return PolicyModel(
        policy_folder=checkpoint.policy_folder(tmp_path, 20),
        update_count=20,
        register_as="pen",
        tags={"checkpoint": "best"},
        example_observations=np.zeros((1, 2), np.float32),
    )


def test_closing_logs_the_model_and_returns_where_it_is(tmp_path: Path):
    logger, model = FakeLogger(tmp_path), model_of(tmp_path)
    run_folder.append_evaluation(tmp_path, {"num_updates": 20, **result(7.0)})
    ended = monitor_of(logger, None).close("FINISHED", model)
    assert ended == {"model_uri": "models:/m-1", "model_version": 3, "is_tracking_complete": True}
    ((folder, facts),) = logger.models
    assert folder == model.policy_folder
    assert (facts["step"], facts["register_as"], facts["tags"]) == (20, "pen", {"checkpoint": "best"})
    assert logger.status == "FINISHED"


def test_a_model_that_the_store_has_not_taken_has_no_address_yet(tmp_path: Path):
    ended = monitor_of(FakeLogger(tmp_path, is_store_there=False), None).close("FINISHED", model_of(tmp_path))
    assert ended == {"model_uri": None, "model_version": None, "is_tracking_complete": False}


def test_a_failed_run_is_closed_as_failed_without_a_model(tmp_path: Path):
    logger = FakeLogger(tmp_path)
    assert monitor_of(logger, None).close("FAILED")["model_uri"] is None
    assert (logger.status, logger.models) == ("FAILED", [])


def test_an_evaluation_becomes_curves_with_its_interval_as_two():
    metrics = evaluation_metrics({"num_updates": 500, **result(), "is_partial": None, "environment_id": "E-v0"})
    assert metrics == {
        "eval/return_mean": 1.0,
        "eval/num_episodes": 4.0,
        "eval/return_ci_low": 0.5,
        "eval/return_ci_high": 1.5,
    }
