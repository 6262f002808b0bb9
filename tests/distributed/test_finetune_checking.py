"""What fine-tuning refuses before anything starts, and what it fills in from the run that it goes on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iql_ray import config as config_io
from iql_ray import run_folder
from iql_ray.distributed.finetune_checking import check_finetune
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.learner import train
from tests.distributed.examples import (
    ENVIRONMENT,
    NUM_STREAMED_ROWS,
    SMALL_LIMIT,
    Notes,
    learner_of,
    plan_of,
    tiny_dataset,
    train_config,
)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: `one` of an environment, `grid` of two inverse temperatures and none."""
    folder = tmp_path_factory.mktemp("storage")
    dataset = tiny_dataset(folder / "data")
    grid = train_config(dataset, inverse_temperatures=(1.0, 5.0), eval_method="none")
    for name, config in (("one", train_config(dataset, env=ENVIRONMENT)), ("grid", grid)):
        (folder / name).mkdir()
        learner = learner_of(plan_of(config, folder / name))
        train(learner, learner.sampler, Notes())
        config_io.save(config, folder / name / run_folder.CONFIG_FILE)
    return folder


def asked(storage: Path, **changes: Any) -> FinetuneConfig:
    return FinetuneConfig(**{"run": "one", "storage": str(storage), **changes})


def test_what_is_not_said_is_what_the_run_says(storage: Path) -> None:
    checked = check_finetune(asked(storage, learning_rate=1e-4))
    assert checked.config.env == ENVIRONMENT
    assert checked.config.dataset == checked.run.config.dataset == str(storage / "data" / "tiny-0")
    assert (checked.num_source_updates, checked.config.checkpoint) == (20, "20")
    agent = checked.run.config.agent
    assert (agent.policy_schedule, agent.learning_rate, agent.hidden_sizes) == ("constant", 1e-4, (8, 8))
    assert checked.run.config.batch_size == 16


def test_one_member_of_a_grid_goes_on_with_its_own_inverse_temperature(storage: Path) -> None:
    checked = check_finetune(asked(storage, run="grid", member=1, env=ENVIRONMENT))
    assert checked.run.config.agent.inverse_temperature == 5.0
    assert checked.run.config.population.num_policies == 1
    assert check_finetune(asked(storage, run="grid", env=ENVIRONMENT)).run.config.agent.inverse_temperature == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": "nowhere"}, "run 'nowhere' not found"),
        ({"run": "grid"}, "does not say in which environment it acts; name one with --env"),
        ({"run": "grid", "member": 2, "env": ENVIRONMENT}, "member = 2: run grid has the members 0 to 1"),
        ({"checkpoint": "7"}, "no checkpoint '7'; it has"),
        ({"checkpoint": "newest"}, "expected best, last or the number"),
        ({"env": "Pendulum-v1"}, "does not fit dataset"),
        ({"eval_env": "Pendulum-v1"}, "does not fit dataset"),
        ({"epsilon": 0.1}, "is of discrete actions"),
        ({"action_low": (-3.0,)}, "low is below the environment's"),
        ({"resume": "one", "run": None}, "it is no fine-tuning"),
    ],
)
def test_what_cannot_work_is_refused_with_its_name(storage: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_finetune(asked(storage, **changes))


def test_a_dataset_to_be_streamed_needs_a_share_of_each_batch(storage: Path, tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path, num_rows=NUM_STREAMED_ROWS)
    large = asked(storage, dataset=str(dataset), memory_limit=SMALL_LIMIT)
    with pytest.raises(ValueError, match="give --online-fraction"):
        check_finetune(large)
    assert check_finetune(replace(large, online_fraction=0.5)).run.num_rows == NUM_STREAMED_ROWS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "either --run RUN or --model URI"),
        ({"run": "a", "model": "models:/b/1"}, "and not both"),
        ({"run": "a", "num_env_steps": 0}, "num_env_steps = 0: expected 1 or more"),
        ({"run": "a", "updates_per_env_step": 0.0}, "updates_per_env_step = 0.0: expected a positive number"),
        ({"run": "a", "updates_per_env_step": 1e-4}, "no update between two evaluations"),
        ({"run": "a", "temperature": -1.0}, "temperature = -1.0: expected 0 or more"),
        ({"run": "a", "epsilon": 1.5}, "expected a share in"),
        ({"run": "a", "online_fraction": 1.0}, "use --without-offline-data"),
        ({"run": "a", "online_fraction": 0.5, "without_offline_data": True}, "leaves it out"),
        ({"run": "a", "max_staleness": 5}, "is of --mode asynchronous"),
        ({"run": "a", "num_rollout_workers": 0, "mode": "asynchronous"}, "the learner's own process"),
    ],
)
def test_settings_that_contradict_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(**changes)


def test_experience_alone_begins_after_a_thousand_steps_unless_told_otherwise() -> None:
    assert FinetuneConfig(run="a", without_offline_data=True).initial_env_steps == 1000
    assert FinetuneConfig(run="a", without_offline_data=True, num_initial_env_steps=0).initial_env_steps == 1
    assert FinetuneConfig(run="a").initial_env_steps == 0


def test_what_is_served_from_elsewhere_is_not_sent_the_same_actions_twice() -> None:
    served = FinetuneConfig(run="a", env="external://127.0.0.1:7777")
    assert not served.replays_episodes
    assert not served.is_exact
    assert FinetuneConfig(run="a", env="Pendulum-v1").is_exact
