"""Collecting workers under Ray: the same bits on any number of them, killed, hanging or failing in turn."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import ray

from iql_ray.distributed import collecting, hang_watch
from iql_ray.distributed.actor_pool import PING, Answer
from iql_ray.distributed.collecting import CollectingWorkers
from iql_ray.envs.collecting import EnvironmentSet
from iql_ray.envs.standing import StandKeeper
from iql_ray.experience import Collected, Experience
from iql_ray.policy import Policy
from tests.envs.collecting_toys import HANGING_SEED, ChaoticEnv, assert_same, assert_same_experience
from tests.evaluation.toys import random_policy, zero_policy

TOYS = "tests.envs.collecting_toys"
SEED = HANGING_SEED


def workers_with(environment: str, num_workers: int = 2, envs_per_worker: int = 2, **options: Any) -> CollectingWorkers:
    """Workers that take a quarter of a CPU each, so that all pools of these tests find room side by side."""
    return CollectingWorkers(
        f"{TOYS}:{environment}", num_workers, envs_per_worker, seed=SEED, num_cpus_each=0.25, **options
    )


def in_one_process(num_environments: int = 4) -> EnvironmentSet:
    """What two workers of two environments must give."""
    return EnvironmentSet(ChaoticEnv, range(num_environments), seed=SEED)


def process_ids(workers: CollectingWorkers) -> list[int]:
    answers = workers._pool.manager.foreach_actor(lambda worker: os.getpid())
    return [answer.get() for answer in answers.result_or_errors]  # pyright: ignore[reportReturnType]


def kill(processes: Sequence[int]) -> None:
    for process in processes:
        os.kill(process, signal.SIGKILL)


def of_environment(experience: Experience, environment: int) -> Experience:
    rows = experience.environments == environment
    return Experience(**{name: values[rows] for name, values in vars(experience).items()})


def stream(blocks: Sequence[Collected], environment: int) -> Experience:
    return of_environment(Experience.joined([block.experience for block in blocks]), environment)


def first_rows(experience: Experience, number: int) -> Experience:
    return Experience(**{name: values[:number] for name, values in vars(experience).items()})


def keep_busy(workers: CollectingWorkers, policy: Policy, num_steps: int) -> None:
    while workers.request(policy, 3, num_steps):
        pass


def gather(workers: CollectingWorkers, policy: Policy, num_blocks: int, num_steps: int = 10) -> list[Collected]:
    """Asynchronously, until so many blocks have come from each worker."""
    blocks: list[Collected] = []
    while min(sum(block.stands[0].environment == first for block in blocks) for first in (0, 2)) < num_blocks:
        keep_busy(workers, policy, num_steps)
        blocks += workers.arrived(0.1)
    return blocks


@pytest.mark.ray
def test_two_workers_give_the_bits_of_one_process_also_if_one_is_killed(ray_session):
    policy, expected = random_policy(), in_one_process()
    # A block takes longer than a step may take, but no step does.
    with workers_with("SlowChaoticEnv", step_timeout_seconds=1.5) as workers:
        for version, num_steps in enumerate((20, 1)):
            assert_same(workers.collect(policy, version, num_steps), expected.collect(policy, version, num_steps))
        killer = threading.Timer(0.3, kill, [process_ids(workers)[:1]])
        killer.start()
        # A block of 300 steps takes a worker 1.8 seconds.
        assert_same(workers.collect(policy, 2, 300), expected.collect(policy, 2, 300))
        killer.join()
        kill(process_ids(workers))
        assert_same(workers.collect(policy, 3, 20), expected.collect(policy, 3, 20))
        assert workers.num_restarts == 3
        assert workers.num_lost_steps == 0
        assert workers.failures == workers.quarantined == ()


@pytest.mark.ray
def test_workers_that_never_wait_go_on_when_one_or_all_are_killed(ray_session):
    policy = random_policy()
    expected = in_one_process().collect(policy, 3, 2000).experience
    with workers_with("SlowChaoticEnv") as workers:
        blocks = gather(workers, policy, 2)
        blocks += kill_at_work(workers, policy, slice(0, 1))
        blocks += gather(workers, policy, 4)
        assert workers.num_restarts == 1
        blocks += kill_at_work(workers, policy, slice(0, 2))
        blocks += gather(workers, policy, 2)
        assert workers.num_restarts == 3
        # At most two blocks of ten steps for two environments at each of the three deaths.
        assert workers.num_lost_steps % 20 == 0
        assert 0 < workers.num_lost_steps <= 120
    # Each environment was brought to where its last block ended: nothing is missing, nothing comes twice.
    for environment in range(4):
        collected = stream(blocks, environment)
        assert_same_experience(collected, first_rows(of_environment(expected, environment), len(collected)))


def kill_at_work(workers: CollectingWorkers, policy: Policy, which: slice) -> list[Collected]:
    """When these have just been given their next blocks; whatever came before."""
    processes = process_ids(workers)  # they say so when they have nothing else to do
    blocks = workers.arrived()
    keep_busy(workers, policy, 10)
    kill(processes[which])
    return blocks


@pytest.mark.ray
def test_without_replays_the_block_is_lost_and_new_episodes_begin(ray_session):
    policy = random_policy()
    with workers_with("ChaoticEnv", is_replayed=False) as workers:
        before = workers.collect(policy, 0, 3).experience
        assert before.episodes.tolist() == [0] * 12
        kill(process_ids(workers)[:1])
        after = workers.collect(policy, 1, 1).experience
        assert after.environments.tolist() == [0, 1, 2, 3]
        assert after.episodes.tolist() == [1, 1, 0, 0]
        assert after.steps.tolist() == [0, 0, 3, 3]
        assert workers.num_lost_steps == 2


@pytest.mark.ray
def test_an_environment_that_hangs_is_named_and_replaced_and_the_others_notice_nothing(ray_session):
    policy = random_policy()
    expected = in_one_process().collect(policy, 0, 30).experience
    with workers_with("HangingEnv", step_timeout_seconds=1.0) as workers:
        collected = workers.collect(policy, 0, 30)
        (failure,) = workers.failures
        assert (failure.environment, failure.episode, failure.step) == (1, 1, 1)
        assert "number 1, episode 1 with seed" in failure.message
        assert "step 1: it takes longer than 1 s" in failure.message
        assert collected.failures == (failure,)
        assert workers.num_restarts == 1
        assert of_environment(collected.experience, 1).episodes[0] == 2
        for untouched in (0, 2, 3):
            assert_same_experience(of_environment(collected.experience, untouched), of_environment(expected, untouched))


@pytest.mark.ray
def test_a_worker_that_hangs_without_a_word_is_replaced_too(ray_session, monkeypatch):
    monkeypatch.setattr(hang_watch, "SILENCE_SECONDS", 3.0)
    with workers_with("LockedEnv", step_timeout_seconds=1.0) as workers:
        experience = workers.collect(random_policy(), 0, 30).experience
        # Both of its environments go on to their next episode, which for one of them is the one that hangs.
        assert workers.num_restarts == 2
        assert [failure.environment for failure in workers.failures] == [0, 1, 0, 1]
        firsts = [of_environment(experience, environment).episodes[0] for environment in range(4)]
        assert firsts == [2, 2, 0, 0]


@pytest.mark.ray
def test_where_every_environment_fails_again_and_again_collecting_ends_with_the_causes(ray_session):
    with workers_with("FailingEnv", max_env_failures=2) as workers:
        collected = workers.collect(zero_policy(), 0, 3)
        assert len(collected.failures) == len(workers.failures) == 4
        with pytest.raises(RuntimeError, match=r"all 4 environments failed 2 times .*number 3, .*the gripper is stuck"):
            workers.collect(zero_policy(), 0, 3)


@pytest.mark.ray
def test_workers_begin_where_others_stood_and_a_policy_is_sent_once(ray_session, monkeypatch):
    policy, environments = random_policy(), in_one_process(2)
    keeper = StandKeeper()
    keeper.follow(environments.collect(policy, 4, 12))
    second, third = environments.collect(policy, 4, 8), environments.collect(policy, 4, 8)
    policies: list[Any] = []
    put = ray.put
    monkeypatch.setattr(collecting.ray, "put", lambda value: policies.append(value) or put(value))
    with workers_with("ChaoticEnv", 1, stands=keeper.stands([0, 1])) as workers:
        assert_same(workers.collect(policy, 4, 8), second)
        assert_same(workers.collect(policy, 4, 8), third)
        assert [value for value in policies if isinstance(value, Policy)] == [policy]
        broken = Policy({**policy.weights, "mean.bias": np.array([np.nan], np.float32)}, policy.description)
        with pytest.raises(
            RuntimeError, match=r"rollout worker 0, environments 0 to 1 of .*: the policy's actions are"
        ):
            workers.collect(broken, 5, 1)


@pytest.mark.ray
def test_workers_that_find_no_room_end_the_wait(ray_session, monkeypatch):
    monkeypatch.setattr(collecting, "START_TIMEOUT_SECONDS", 0.5)
    with (
        CollectingWorkers(f"{TOYS}:ChaoticEnv", 1, 1, seed=0, num_cpus_each=100) as workers,
        pytest.raises(RuntimeError, match=r"of 1 rollout workers .*, \[0\] have not answered for 0 s"),
    ):
        workers.collect(random_policy(), 0, 1)


@pytest.mark.ray
def test_an_absent_worker_is_no_hanging_one(ray_session, monkeypatch):
    with CollectingWorkers(f"{TOYS}:ChaoticEnv", 1, 1, seed=0, num_cpus_each=100, step_timeout_seconds=-1.0) as workers:
        gone = Answer(worker=0, tag=PING, error=OSError("the node is gone"))
        monkeypatch.setattr(workers._pool, "answers", lambda tags, timeout_seconds: [gone])
        monkeypatch.setattr(workers._pool, "actor", lambda worker: pytest.fail("it was asked what it is doing"))
        for _ in range(2):
            assert workers.arrived() == []
