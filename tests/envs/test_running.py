"""Failures: named, the environment made anew, the others untouched; and an end to those that fail again and again."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest

from iql_ray.envs.collecting import EnvironmentSet
from iql_ray.experience import Stand
from iql_ray.seeding import child_seed_32
from tests.envs.collecting_toys import CountingEnv, FailingEnv, made_in_turn
from tests.evaluation.toys import zero_policy


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("raise", "OSError: the gripper is stuck"),
        ("reward", "ValueError: the reward is not finite: nan"),
        ("observation", r"ValueError: the observation is not finite: \[ *0. +inf\]"),
    ],
)
def test_a_failure_is_named_loses_its_step_alone_and_the_environment_is_made_anew(how, cause):
    first = FailingEnv(how)
    make = made_in_turn(lambda: first, CountingEnv, CountingEnv)
    collected = EnvironmentSet(make, [6, 7], seed=3).collect(zero_policy(), 0, 5)
    (failure,) = collected.failures
    assert (failure.environment, failure.episode, failure.step) == (6, 0, 2)
    seed = child_seed_32(3, "environment", 6, "episode", 0)
    named = f"environment 'FailingEnv', number 6, episode 0 with seed {seed}, step 2: "
    assert re.fullmatch(re.escape(named) + cause, failure.message)
    assert first.is_closed
    rows = collected.experience
    of_failed = rows.environments == 6
    assert rows.episodes[of_failed].tolist() == [0, 1, 1, 1]
    assert rows.steps[of_failed].tolist() == [0, 0, 1, 2]
    assert rows.observations[of_failed].tolist() == [[0, 0], [0, 0], [0, 1], [0, 2]]
    assert rows.episodes[~of_failed].tolist() == [0, 0, 0, 1, 1]
    assert [result.episode_return for result in collected.finished] == [6.0, 6.0]
    assert np.isfinite(rows.next_observations).all()
    assert collected.quarantined == ()


def test_an_environment_that_always_fails_is_quarantined_and_the_others_go_on():
    make = made_in_turn(FailingEnv, CountingEnv, FailingEnv)
    environments = EnvironmentSet(make, [0, 1], seed=0, max_failures=2)
    collected = environments.collect(zero_policy(), 0, 6)
    assert collected.quarantined == (0,)
    assert [failure.episode for failure in collected.failures] == [0, 1]
    assert (collected.experience.environments == 0).sum() == 2
    assert (collected.experience.environments == 1).sum() == 6
    again = environments.collect(zero_policy(), 0, 3)
    assert again.experience.environments.tolist() == [1, 1, 1]
    assert again.failures == ()
    assert again.quarantined == (0,)
    assert environments.busy is None


def test_what_a_quarantined_environment_gave_last_does_not_reach_the_policy():
    make = made_in_turn(lambda: FailingEnv("observation"), CountingEnv)
    collected = EnvironmentSet(make, [0, 1], seed=0, max_failures=1).collect(zero_policy(), 0, 4)
    assert collected.quarantined == (0,)
    assert collected.experience.environments.tolist() == [0, 1, 1, 1, 1]


def test_where_all_are_quarantined_there_is_no_experience():
    environments = EnvironmentSet(FailingEnv, [0], seed=0, max_failures=1)
    assert len(environments.collect(zero_policy(), 0, 3).experience) == 1
    collected = environments.collect(zero_policy(), 0, 3)
    assert len(collected.experience) == 0
    assert collected.experience.observations.shape == (0, 2)
    assert collected.quarantined == (0,)


def test_failures_before_a_restart_count():
    environments = EnvironmentSet(made_in_turn(FailingEnv, CountingEnv), [0], seed=0, max_failures=2)
    (stand,) = environments.collect(zero_policy(), 0, 3).stands
    assert stand.num_failures == 1
    restored = EnvironmentSet(FailingEnv, [0], seed=0, max_failures=2)
    restored.restore([stand])
    assert restored.collect(zero_policy(), 0, 3).quarantined == (0,)


def test_an_environment_that_cannot_be_made_or_reset_is_tried_with_the_next_episode():
    def refuse():
        raise ConnectionRefusedError("nobody listens")

    class Blind(CountingEnv):
        def reset(self, **options):
            return np.array([0.0, np.nan], np.float32), super().reset(**options)[1]

    collected = EnvironmentSet(made_in_turn(refuse, Blind, CountingEnv), [0], seed=0).collect(zero_policy(), 0, 2)
    assert collected.experience.episodes.tolist() == [2, 2]
    causes = ["ConnectionRefusedError: nobody listens", "ValueError: the observation is not finite: [ 0. nan]"]
    assert [failure.message.partition("step 0: ")[2] for failure in collected.failures] == causes


def test_very_many_failures_in_a_row_are_survived():
    environments = EnvironmentSet(made_in_turn(*[_raise] * 2000, CountingEnv), [0], seed=0, max_failures=5000)
    assert environments.collect(zero_policy(), 0, 1).experience.episodes.tolist() == [2000]


def _raise():
    raise OSError("no")


def test_a_replay_that_ends_early_is_reported_and_the_next_episode_begins():
    environments = EnvironmentSet(lambda: CountingEnv(2), [0], seed=0)
    stand = Stand(environment=0, episode=4, actions=np.zeros((5, 1), np.float32))
    environments.restore([stand])
    collected = environments.collect(zero_policy(), 0, 1)
    (failure,) = collected.failures
    assert "episode 4" in failure.message
    assert "the episode ended in a replay of its 5 actions" in failure.message
    assert (collected.experience.episodes.tolist(), collected.experience.steps.tolist()) == ([5], [0])
    assert collected.stands[0].num_failures == 0


def test_a_replay_that_raises_is_a_failure_and_the_next_episode_begins():
    environments = EnvironmentSet(made_in_turn(FailingEnv, CountingEnv), [0], seed=0)
    environments.restore([Stand(environment=0, episode=4, actions=np.zeros((2, 1), np.float32))])
    collected = environments.collect(zero_policy(), 0, 1)
    assert "the gripper is stuck" in collected.failures[0].message
    assert collected.experience.episodes.tolist() == [5]
    assert collected.stands[0].num_failures == 1


def test_an_environment_that_hangs_can_be_named_from_another_thread():
    is_hanging, is_free = threading.Event(), threading.Event()

    class Hanging(CountingEnv):
        def step(self, action):
            if self._step == 1:
                is_hanging.set()
                is_free.wait(30)
            return super().step(action)

    environments = EnvironmentSet(Hanging, [5], seed=0)
    thread = threading.Thread(target=environments.collect, args=(zero_policy(), 0, 2))
    thread.start()
    assert is_hanging.wait(30)
    busy = environments.busy
    assert busy is not None
    assert (busy.environment, busy.episode, busy.step) == (5, 0, 2)
    assert busy.seconds >= 0
    is_free.set()
    thread.join()
    assert environments.busy is None


def test_closing_closes_every_environment_and_can_be_done_twice():
    made = [CountingEnv(), CountingEnv()]
    environments = EnvironmentSet(made_in_turn(lambda: made[0], lambda: made[1]), [0, 1], seed=0)
    environments.collect(zero_policy(), 0, 1)
    environments.close()
    environments.close()
    assert all(environment.is_closed for environment in made)
