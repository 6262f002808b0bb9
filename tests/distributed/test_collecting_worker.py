"""What the driver remembers of collecting workers, without any: who has what, what is lost, who is quarantined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from iql_ray.distributed.collecting_worker import CollectingWorker, Ledger, Request
from iql_ray.envs.collecting import Busy, EnvironmentSet
from iql_ray.envs.running import episode_seed
from iql_ray.experience import Collected, Stand
from tests.envs.collecting_toys import ChaoticEnv, FailingEnv, assert_same
from tests.evaluation.toys import random_policy, zero_policy

CHAOTIC = "tests.envs.collecting_toys:ChaoticEnv"


def ledger(num_workers: int = 2, envs_per_worker: int = 2, stands: list[Stand] | None = None, **options) -> Ledger:
    settings = {"seed": 5, "max_failures": 2, "is_replayed": True, **options}
    return Ledger("Chaos", num_workers, envs_per_worker, stands or [], **settings)


def block(is_repeated: bool, num_steps: int = 10) -> Request:
    return Request(policy=None, policy_version=0, num_steps=num_steps, is_repeated=is_repeated)


def chaotic(*numbers: int) -> EnvironmentSet:
    return EnvironmentSet(ChaoticEnv, numbers, seed=5)


def test_environments_are_numbered_through():
    assert [list(ledger(3, 2).environments(worker)) for worker in range(3)] == [[0, 1], [2, 3], [4, 5]]


def test_a_worker_without_ray_collects_as_a_set_does_by_id_or_by_function():
    policy, options = random_policy(), {"seed": 5}
    expected = chaotic(2, 3).collect(policy, 0, 20)
    for make in (CHAOTIC, ChaoticEnv):
        worker: Any = CollectingWorker(make, range(2, 4), options)
        worker.restore([])
        assert_same(worker.collect(policy, 0, 20), expected)
        assert worker.busy() is None
        worker.close()


def test_a_new_worker_brought_to_the_ledgers_stands_gives_the_next_block_of_the_old_one():
    policy, environments, books = random_policy(), chaotic(0, 1), ledger()
    for version, num_steps in enumerate((3, 1, 8, 1)):
        books.ask(0, block(True))
        books.receive(0, environments.collect(policy, version, num_steps))
        replacement = chaotic(0, 1)
        replacement.restore(books.stands(0))
        replaced = replacement.collect(policy, 9, 4)
        continued = chaotic(0, 1)
        continued.restore(books.stands(0))
        assert_same(replaced, continued.collect(policy, 9, 4))
    assert_same(replaced, environments.collect(policy, 9, 4))


def test_stands_from_the_beginning_are_kept_with_their_actions():
    stand = Stand(environment=3, episode=4, actions=np.ones((2, 1), np.float32), noise_state={"state": 1})
    new, begun = ledger(stands=[stand]).stands(1)
    assert new == Stand(environment=2)
    assert (begun.environment, begun.episode, begun.noise_state) == (3, 4, {"state": 1})
    np.testing.assert_array_equal(begun.actions, stand.actions)


def test_where_nothing_is_replayed_no_actions_are_kept():
    books = ledger(is_replayed=False)
    books.ask(0, block(True))
    books.receive(0, chaotic(0, 1).collect(random_policy(), 0, 3))
    assert [stand.actions for stand in books.stands(0)] == [None, None]


@pytest.mark.parametrize(
    ("is_repeated", "is_replayed", "num_lost", "num_left"),
    [(True, True, 0, 1), (True, False, 20, 1), (False, True, 20, 0), (False, False, 20, 0)],
)
def test_what_is_lost_with_a_worker(is_repeated, is_replayed, num_lost, num_left):
    books = ledger(is_replayed=is_replayed)
    books.ask(0, block(is_repeated))
    books.ask(1, block(is_repeated))
    books.lose(0)
    assert books.num_lost_steps == num_lost
    assert len(books.requests(0)) == num_left
    assert len(books.requests(1)) == 1
    assert books.num_restarts == 1


def test_an_environment_that_hangs_is_named_and_goes_on_with_its_next_episode():
    books = ledger()
    books.ask(0, block(True))
    first = chaotic(0, 1).collect(random_policy(), 0, 3)
    books.receive(0, first)
    books.hang(0, Busy(environment=1, episode=7, step=4, seconds=3.0), 2.0)
    (failure,) = books.failures
    seed = episode_seed(5, 1, 7)
    named = f"environment 'Chaos', number 1, episode 7 with seed {seed}, step 4: it takes longer than 2 s"
    assert failure.message == named
    untouched, moved = books.stands(0)
    assert untouched.actions is not None
    assert len(untouched.actions) == 3
    assert moved == replace(first.stands[1], episode=8, num_failures=1)
    books.ask(0, block(True))
    reported = books.receive(0, replace(first, stands=()))
    assert reported.failures == (failure,)
    books.ask(0, block(True))
    assert books.receive(0, replace(first, stands=())).failures == ()


def test_where_a_worker_is_silent_each_of_its_environments_is_suspected():
    books = ledger()
    books.hang(1, None, 2.0)
    assert [failure.environment for failure in books.failures] == [2, 3]
    assert "it takes longer than 2 s, it or another one beside" in books.failures[0].message
    assert [stand.episode for stand in books.stands(1)] == [1, 1]
    assert [stand.episode for stand in books.stands(0)] == [0, 0]


def test_where_all_are_quarantined_the_last_failure_of_each_is_told():
    books = ledger(2, 1)
    books.ask(0, block(True))
    failed = EnvironmentSet(FailingEnv, [0], seed=5, max_failures=2).collect(zero_policy(), 0, 9)
    books.receive(0, failed)
    assert books.quarantined == (0,)
    assert (books.num_living(0), books.num_living(1)) == (0, 1)
    books.check_living()
    for _ in range(2):
        books.hang(1, Busy(environment=1, episode=0, step=4, seconds=3.0), 2.0)
    with pytest.raises(RuntimeError, match=r"all 2 environments .*number 0, episode 1 .*gripper.*; .*number 1.* 2 s"):
        books.check_living()


def test_an_empty_answer_is_one_too():
    books = ledger(1, 1)
    books.ask(0, block(False))
    collected: Collected = EnvironmentSet(FailingEnv, [0], seed=5, max_failures=1).collect(zero_policy(), 0, 1)
    assert books.receive(0, collected) == collected
    assert books.requests(0) == ()
