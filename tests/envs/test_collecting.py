"""Collecting: no transition crosses an episode, and the same bits in any company, in one go or in several."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from iql_ray.envs.blocks import merge
from iql_ray.envs.collecting import EnvironmentSet
from iql_ray.experience import Collected, Stand
from iql_ray.policy import Policy, PolicyDescription
from iql_ray.seeding import child_seed_32
from tests.envs.collecting_toys import (
    ChaoticEnv,
    ChoiceEnv,
    CountingEnv,
    LimitedEnv,
    assert_same,
    assert_same_experience,
    made_in_turn,
)
from tests.evaluation.toys import random_policy, zero_policy


def uniform_policy() -> Policy:
    """Four choices, all equally likely, of which 0 is the first."""
    weights = {"logits.weight": np.zeros((2, 4), np.float32), "logits.bias": np.zeros(4, np.float32)}
    return Policy(weights, PolicyDescription(kind="categorical", observation_dim=2, num_hidden_layers=0, num_actions=4))


def chaotic(*numbers: int, **options) -> EnvironmentSet:
    return EnvironmentSet(ChaoticEnv, numbers, seed=5, **options)


def with_actions(collected: Collected) -> list[Stand]:
    """The stands after one call, with the actions of what is unfinished."""
    rows = collected.experience
    return [
        replace(
            stand, actions=rows.actions[(rows.environments == stand.environment) & (rows.episodes == stand.episode)]
        )
        for stand in collected.stands
    ]


@pytest.mark.parametrize("is_truncated", [False, True])
def test_no_transition_crosses_an_episode(is_truncated):
    environments = EnvironmentSet(lambda: CountingEnv(3, is_truncated), [0], seed=0)
    rows = environments.collect(zero_policy(), 7, 7).experience
    np.testing.assert_array_equal(rows.observations, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 0]])
    np.testing.assert_array_equal(rows.next_observations, [[0, 1], [0, 2], [0, 3], [1, 1], [1, 2], [1, 3], [2, 1]])
    np.testing.assert_array_equal(rows.rewards, [1, 2, 3, 1, 2, 3, 1])
    ended = [False, False, True, False, False, True, False]
    np.testing.assert_array_equal(rows.truncations if is_truncated else rows.terminations, ended)
    assert not (rows.terminations if is_truncated else rows.truncations).any()
    np.testing.assert_array_equal(rows.episodes, [0, 0, 0, 1, 1, 1, 2])
    np.testing.assert_array_equal(rows.steps, [0, 1, 2, 0, 1, 2, 0])
    assert set(rows.policy_versions) == {7}


def test_environments_of_different_lengths_stand_side_by_side():
    make = made_in_turn(lambda: CountingEnv(1), lambda: CountingEnv(2), lambda: CountingEnv(3))
    collected = EnvironmentSet(make, [0, 1, 2], seed=0).collect(zero_policy(), 0, 4)
    rows = collected.experience
    assert rows.environments.tolist() == [0, 1, 2] * 4
    assert rows.episodes.reshape(4, 3).T.tolist() == [[0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 1]]
    assert rows.steps.reshape(4, 3).T.tolist() == [[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 2, 0]]
    assert rows.next_observations[:, 1].reshape(4, 3).T.tolist() == [[1, 1, 1, 1], [1, 2, 1, 2], [1, 2, 3, 1]]
    assert [result.length for result in collected.finished] == [1, 1, 2, 1, 3, 1, 2]
    assert [result.episode_return for result in collected.finished] == [1, 1, 3, 1, 6, 1, 3]


def test_episodes_go_on_from_call_to_call():
    environments = EnvironmentSet(CountingEnv, [0], seed=0)
    assert environments.collect(zero_policy(), 0, 2).experience.steps.tolist() == [0, 1]
    collected = environments.collect(zero_policy(), 1, 2)
    assert collected.experience.observations.tolist() == [[0, 2], [1, 0]]
    assert [(result.length, result.episode_return) for result in collected.finished] == [(3, 6.0)]


def test_every_episode_has_a_seed_of_its_own():
    made: list[CountingEnv] = []

    def make() -> CountingEnv:
        made.append(CountingEnv(2))
        return made[-1]

    collected = EnvironmentSet(make, [4, 9], seed=3).collect(zero_policy(), 0, 4)
    expected = [
        [child_seed_32(3, "environment", number, "episode", episode) for episode in range(3)] for number in (4, 9)
    ]
    assert [environment.seeds for environment in made] == expected
    assert [result.seed for result in collected.finished] == [
        expected[0][0],
        expected[1][0],
        expected[0][1],
        expected[1][1],
    ]


def test_one_set_of_eight_is_eight_of_one_and_two_of_four():
    policy = random_policy()
    whole = chaotic(*range(8)).collect(policy, 0, 40)
    assert len(whole.finished) > 8
    for width in (1, 4):
        sets = [chaotic(*range(start, start + width)) for start in range(0, 8, width)]
        assert_same(merge([environments.collect(policy, 0, 40) for environments in reversed(sets)]), whole)


def test_sets_across_groups_give_what_whole_groups_give():
    policy = random_policy()
    whole = chaotic(*range(12)).collect(policy, 0, 20)
    parts = [chaotic(*numbers).collect(policy, 0, 20) for numbers in (range(5), range(5, 10), range(10, 12))]
    assert_same(merge(parts), whole)


def test_one_call_is_many():
    policy = random_policy()
    whole = chaotic(0, 1).collect(policy, 0, 20)
    environments = chaotic(0, 1)
    parts = [environments.collect(policy, 0, num_steps) for num_steps in (1, 7, 12)]
    for name in ("observations", "actions", "rewards", "episodes", "steps"):
        np.testing.assert_array_equal(
            np.concatenate([getattr(part.experience, name) for part in parts]), getattr(whole.experience, name)
        )
    assert parts[-1].stands == whole.stands


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_choices_are_the_same_in_one_set_or_several_and_in_many_calls(epsilon):
    whole = EnvironmentSet(ChoiceEnv, [0, 1, 2], seed=1, epsilon=epsilon).collect(uniform_policy(), 0, 12)
    parts = [
        EnvironmentSet(ChoiceEnv, [number], seed=1, epsilon=epsilon).collect(uniform_policy(), 0, 12)
        for number in range(3)
    ]
    assert_same(merge(parts), whole)
    environments = EnvironmentSet(ChoiceEnv, [0, 1, 2], seed=1, epsilon=epsilon)
    calls = [environments.collect(uniform_policy(), 0, num_steps) for num_steps in (5, 7)]
    assert np.concatenate([call.experience.actions for call in calls]).tolist() == whole.experience.actions.tolist()


def test_a_recorded_choice_is_the_one_taken():
    rows = EnvironmentSet(ChoiceEnv, range(8), seed=0).collect(uniform_policy(), 0, 50).experience
    assert rows.actions.shape == (400, 1)
    np.testing.assert_array_equal(rows.actions[:, 0], rows.rewards)
    assert set(rows.actions[:, 0]) == {0, 1, 2, 3}


def test_epsilon_takes_any_choice_that_often():
    environments = EnvironmentSet(ChoiceEnv, range(8), seed=0, temperature=0.0, epsilon=0.4)
    actions = environments.collect(uniform_policy(), 0, 500).experience.actions[:, 0]
    # The policy takes 0; so 1, 2 and 3 come from epsilon alone, a quarter of 0.4 each: 400 of 4,000, give or take 19.
    assert np.bincount(actions.astype(int))[1:] == pytest.approx([400] * 3, abs=80)


def test_temperature_zero_takes_the_policys_own_action():
    rows = EnvironmentSet(ChoiceEnv, [0], seed=0, temperature=0.0).collect(uniform_policy(), 0, 20).experience
    assert set(rows.actions[:, 0]) == {0}
    rows = EnvironmentSet(CountingEnv, [0], seed=0, temperature=0.0).collect(zero_policy(), 0, 20).experience
    assert set(rows.actions[:, 0]) == {0}


def test_temperature_scales_the_noise():
    rows = {
        temperature: EnvironmentSet(CountingEnv, range(8), seed=0, temperature=temperature)
        .collect(zero_policy(), 0, 100)
        .experience.actions
        for temperature in (0.1, 0.2)
    }
    np.testing.assert_allclose(rows[0.2], 2 * rows[0.1], atol=1e-6)
    # The policy's own standard deviation is exp(0).
    assert rows[0.1].std() == pytest.approx(0.1, rel=0.1)


def test_epsilon_is_refused_for_a_box_of_actions():
    with pytest.raises(ValueError, match=r"epsilon is 0.1 for a gaussian policy, expected 0"):
        EnvironmentSet(CountingEnv, [0], seed=0, epsilon=0.1).collect(zero_policy(), 0, 1)


def test_the_executed_action_is_recorded():
    whole = EnvironmentSet(CountingEnv, [0], seed=0).collect(zero_policy(), 0, 5)
    limited = EnvironmentSet(LimitedEnv, [0], seed=0).collect(zero_policy(), 0, 5)
    np.testing.assert_array_equal(limited.experience.actions, whole.experience.actions / 2)


def test_success_at_any_step_is_the_episodes():
    assert EnvironmentSet(LimitedEnv, [0], seed=0).collect(zero_policy(), 0, 3).finished[0].is_success is True
    assert EnvironmentSet(CountingEnv, [0], seed=0).collect(zero_policy(), 0, 3).finished[0].is_success is None
    make = made_in_turn(lambda: LimitedEnv(1))
    assert EnvironmentSet(make, [0], seed=0).collect(zero_policy(), 0, 3).finished[0].is_success is False


@pytest.mark.parametrize("numbers", [(0, 1, 2, 3), (2, 9)])
def test_twenty_steps_are_twelve_and_eight_of_a_new_set_brought_to_the_same_stands(numbers):
    policy = random_policy()
    environments = chaotic(*numbers)
    first, second = environments.collect(policy, 0, 12), environments.collect(policy, 1, 8)
    restored = chaotic(*numbers)
    restored.restore(with_actions(first))
    assert_same(restored.collect(policy, 1, 8), second)


def test_choices_are_replayed_too():
    environments = EnvironmentSet(ChoiceEnv, [0, 1], seed=0, epsilon=0.5)
    first, second = environments.collect(uniform_policy(), 0, 5), environments.collect(uniform_policy(), 0, 5)
    restored = EnvironmentSet(ChoiceEnv, [0, 1], seed=0, epsilon=0.5)
    restored.restore(with_actions(first))
    again = restored.collect(uniform_policy(), 0, 5)
    assert again.stands == second.stands
    np.testing.assert_array_equal(again.experience.actions, second.experience.actions)
    np.testing.assert_array_equal(again.experience.steps, second.experience.steps)


def test_a_stand_goes_through_json():
    policy = random_policy()
    environments = chaotic(0)
    first, second = environments.collect(policy, 0, 12), environments.collect(policy, 1, 8)
    (stand,) = with_actions(first)
    assert stand.actions is not None
    values = json.loads(json.dumps({**asdict(stand), "actions": stand.actions.tolist()}))
    restored = chaotic(0)
    restored.restore([Stand(**{**values, "actions": np.array(values["actions"], np.float32)})])
    assert_same(restored.collect(policy, 1, 8), second)


def test_where_nothing_is_replayed_the_next_episode_begins_under_the_same_noise():
    policy = zero_policy()
    environments = EnvironmentSet(CountingEnv, [0], seed=0)
    first, second = environments.collect(policy, 0, 2), environments.collect(policy, 0, 2)
    restored = EnvironmentSet(CountingEnv, [0], seed=0, is_replayed=False)
    restored.restore(first.stands)
    collected = restored.collect(policy, 0, 2)
    assert collected.experience.episodes.tolist() == [1, 1]
    assert collected.experience.steps.tolist() == [0, 1]
    np.testing.assert_array_equal(collected.experience.actions, second.experience.actions)
    assert collected.failures == ()


def test_new_environments_begin_with_the_first_episode_replayed_or_not():
    for is_replayed in (True, False):
        environments = EnvironmentSet(CountingEnv, [0], seed=0, is_replayed=is_replayed)
        environments.restore([Stand(environment=0)])
        assert environments.collect(zero_policy(), 0, 1).experience.episodes.tolist() == [0]


def test_a_policy_that_gives_no_numbers_is_to_blame_and_not_the_environments():
    policy = zero_policy()
    broken = Policy({**policy.weights, "mean.bias": np.array([np.nan], np.float32)}, policy.description)
    environments = EnvironmentSet(CountingEnv, [0], seed=0)
    with pytest.raises(ValueError, match="the policy's actions are not finite"):
        environments.collect(broken, 0, 1)
    assert environments.collect(policy, 0, 1).failures == ()


def test_nothing_is_stepped_between_calls():
    assert chaotic(0).busy is None


def test_merging_one_changes_nothing():
    whole = chaotic(*range(4)).collect(random_policy(), 0, 20)
    assert_same(merge([whole]), whole)
    assert_same_experience(merge([whole]).experience, whole.experience)
