"""Rollout workers: the same returns on any number of them, alive or killed, and an end to repeated failures."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray

from iql_ray.distributed import rollout_workers
from iql_ray.distributed.rollout_workers import MAX_ATTEMPTS, GroupQueue, RolloutWorker, RolloutWorkers
from iql_ray.experience import EpisodeResult
from tests.evaluation.toys import random_policy, zero_policy

CHAOTIC, SLOW, UNLUCKY = (f"tests.evaluation.toys:{name}" for name in ("ChaoticEnv", "SlowChaoticEnv", "UnluckyEnv"))


def workers_in(environment_id: str, num_workers: int) -> RolloutWorkers:
    """Workers that take a quarter of a CPU each, so that all pools of these tests find room side by side."""
    return RolloutWorkers(environment_id, num_workers, num_cpus_each=0.25)


def result_of(seed: int) -> EpisodeResult:
    return EpisodeResult(seed=seed, episode_return=float(seed), length=1)


def test_groups_are_handed_out_in_order_one_per_worker():
    queue = GroupQueue([(1, 2), (3, 4), (5,)], "E")
    assert [queue.take(0), queue.take(1), queue.take(0)] == [(1, 2), (3, 4), None]


def test_results_come_in_episode_order_whoever_was_first():
    queue = GroupQueue([(1,), (2,)], "E")
    queue.take(0)
    queue.take(1)
    queue.finish(1, [result_of(2)])
    assert not queue.is_done
    queue.finish(0, [result_of(1)])
    assert queue.is_done
    assert [result.seed for result in queue.results()] == [1, 2]


def test_a_failed_group_is_the_next_to_be_handed_out():
    queue = GroupQueue([(1,), (2,), (3,)], "E")
    queue.take(0)
    queue.fail(0, OSError("gone"))
    assert queue.take(1) == (1,)


def test_a_group_that_fails_again_and_again_names_worker_environment_seeds_and_cause():
    queue = GroupQueue([(17, 18)], "Pen-v1")
    for _ in range(MAX_ATTEMPTS - 1):
        queue.take(4)
        queue.fail(4, OSError("gone"))
    queue.take(5)
    with pytest.raises(
        RuntimeError, match=r"worker 5 .*'Pen-v1', episodes with seeds 17, 18; .* 3 times: OSError: gone"
    ):
        queue.fail(5, OSError("gone"))


def test_a_worker_without_ray_keeps_its_environments():
    worker = RolloutWorker(CHAOTIC)
    first = worker.run(random_policy(), (1, 2, 3), 0.0)
    environments = list(worker._environments)
    assert len(environments) == 3
    assert worker.run(random_policy(), (1, 2, 3), 0.0) == first
    assert worker._environments == environments


def test_a_worker_without_ray_throws_its_environments_away_after_a_failure():
    worker = RolloutWorker(UNLUCKY)
    with pytest.raises(RuntimeError, match="the gripper is stuck"):
        worker.run(zero_policy(), (1,), 0.0)
    assert worker._environments == []


def test_no_workers_are_refused():
    with pytest.raises(ValueError, match="num_workers is 0, expected at least 1"):
        RolloutWorkers(CHAOTIC, 0)


@pytest.fixture(scope="module")
def expected(ray_session) -> list[EpisodeResult]:
    """Twenty episodes (groups of 8, 8 and 4) on one worker."""
    with workers_in(CHAOTIC, 1) as workers:
        return workers.evaluate(random_policy(), 20, seed=7)


@pytest.fixture(scope="module")
def three_workers(ray_session) -> Iterator[RolloutWorkers]:
    with workers_in(CHAOTIC, 3) as workers:
        yield workers


@pytest.mark.ray
def test_two_and_three_workers_give_the_returns_of_one_to_the_last_bit(expected, three_workers):
    assert len(expected) == 20
    assert three_workers.evaluate(random_policy(), 20, seed=7) == expected
    with workers_in(CHAOTIC, 2) as workers:
        assert workers.evaluate(random_policy(), 20, seed=7) == expected


@pytest.mark.ray
def test_fewer_episodes_are_the_first_of_more(expected, three_workers):
    assert three_workers.evaluate(random_policy(), 10, seed=7) == expected[:10]


@pytest.mark.ray
def test_noise_is_the_same_on_any_number_of_workers(three_workers):
    noisy = three_workers.evaluate(random_policy(), 20, seed=7, temperature=1.0)
    with workers_in(CHAOTIC, 1) as workers:
        assert workers.evaluate(random_policy(), 20, seed=7, temperature=1.0) == noisy


@pytest.mark.ray
def test_workers_have_one_thread_and_no_torch(three_workers):
    answers = three_workers._pool.manager.foreach_actor(_look_around)
    assert [answer.get() for answer in answers.result_or_errors] == [("1", "1", "1", False, False)] * 3


def _look_around(worker: RolloutWorker) -> tuple[str | None, str | None, str | None, bool, bool]:
    import sys

    threads = (os.environ.get(f"{name}_NUM_THREADS") for name in ("OMP", "OPENBLAS", "MKL"))
    return (*threads, "torch" in sys.modules, "ray.rllib" in sys.modules)  # pyright: ignore[reportReturnType]


@pytest.mark.ray
def test_a_worker_killed_in_the_middle_is_replaced_and_changes_nothing(expected):
    with workers_in(SLOW, 2) as workers:
        before = _process_ids(workers)
        killer = threading.Timer(0.4, os.kill, (before[0], signal.SIGKILL))
        killer.start()
        # The slow toy is the chaotic one; a group takes it more than a second.
        results = workers.evaluate(random_policy(), 24, seed=7)
        killer.join()
        assert results[:20] == expected
        assert _process_ids_in_time(workers)[0] != before[0]


def _process_ids(workers: RolloutWorkers) -> list[int]:
    answers = workers._pool.manager.foreach_actor(lambda worker: os.getpid(), healthy_only=False, mark_healthy=True)
    return [answer.get() for answer in answers.result_or_errors if answer.ok]  # pyright: ignore[reportReturnType]


def _process_ids_in_time(workers: RolloutWorkers) -> list[int]:
    deadline = time.monotonic() + 30
    while len(ids := _process_ids(workers)) < len(workers._pool) and time.monotonic() < deadline:
        time.sleep(0.1)
    return ids


@pytest.mark.ray
def test_an_environment_that_always_raises_ends_the_evaluation_and_not_the_workers(ray_session):
    with workers_in(UNLUCKY, 2) as workers:
        for _ in range(2):
            with pytest.raises(
                RuntimeError, match=r"rollout worker \d .*seed \d+, step 2: step raised OSError: the grip"
            ):
                workers.evaluate(zero_policy(), 20, seed=0)


@pytest.mark.ray
def test_an_environment_unknown_to_the_workers_is_said(ray_session):
    with (
        workers_in("NoSuchThing-v0", 1) as workers,
        pytest.raises(RuntimeError, match="ValueError: environment 'NoSuchThing-v0' is unknown"),
    ):
        workers.evaluate(zero_policy(), 1, seed=0)


@pytest.mark.ray
def test_workers_that_find_room_do_the_work_of_those_that_do_not(expected):
    with RolloutWorkers(CHAOTIC, 2, num_cpus_each=1.75) as workers:
        assert workers.evaluate(random_policy(), 20, seed=7) == expected


@pytest.mark.ray
def test_an_evaluation_without_any_worker_ends(ray_session, monkeypatch):
    monkeypatch.setattr(rollout_workers, "START_TIMEOUT_SECONDS", 0.5)
    with (
        RolloutWorkers(CHAOTIC, 1, num_cpus_each=100) as workers,
        pytest.raises(RuntimeError, match=r"none of 1 rollout workers .* has answered for 0 s; free in the cluster"),
    ):
        workers.evaluate(zero_policy(), 1, seed=0)


@pytest.mark.ray
def test_workers_live_inside_another_actor(expected):
    @ray.remote(num_cpus=0)
    class Monitor:
        def evaluate(self) -> list[EpisodeResult]:
            with workers_in(CHAOTIC, 2) as workers:
                return workers.evaluate(random_policy(), 20, seed=7)

    monitor: Any = Monitor.remote()
    assert ray.get(monitor.evaluate.remote()) == expected
    ray.kill(monitor)


@pytest.mark.ray
def test_closing_ends_the_workers_and_can_be_done_twice(ray_session):
    workers = workers_in(CHAOTIC, 1)
    assert len(workers.evaluate(zero_policy(), 1, seed=0)) == 1
    process_id = _process_ids(workers)[0]
    workers.close()
    workers.close()
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{process_id}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{process_id}")


def test_the_toys_returns_differ_between_episodes(expected):
    assert np.std([result.episode_return for result in expected]) > 0
