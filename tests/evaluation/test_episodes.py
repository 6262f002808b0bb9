"""Episodes in one process: counted by hand, reproducible to the last bit, and failing with a name."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from iql_ray.envs.acting import GROUP_WIDTH
from iql_ray.envs.catalog import make_env
from iql_ray.evaluation import episodes
from iql_ray.evaluation.episodes import (
    EpisodeError,
    check_policy,
    policy_spaces,
    run_group,
    split_into_groups,
)
from iql_ray.experience import EpisodeResult, Spaces
from iql_ray.policy import Policy
from tests.evaluation.toys import ChaoticEnv, CountingEnv, UnluckyEnv, balancing_policy, random_policy, zero_policy


def run_all(policy: Policy, environments: list[gymnasium.Env], num_episodes: int, seed: int) -> list[EpisodeResult]:
    return [
        result for seeds in split_into_groups(num_episodes, seed) for result in run_group(policy, environments, seeds)
    ]


def test_twenty_episodes_are_groups_of_eight_eight_and_four():
    groups = split_into_groups(20, seed=0)
    assert [len(group) for group in groups] == [8, 8, 4]
    assert len({seed for group in groups for seed in group}) == 20


def test_an_episode_has_the_same_seed_however_many_follow():
    assert sum(split_into_groups(100, seed=3), ())[:10] == sum(split_into_groups(10, seed=3), ())
    assert split_into_groups(10, seed=3) != split_into_groups(10, seed=4)


def test_no_episodes_are_refused():
    with pytest.raises(ValueError, match="num_episodes is 0, expected at least 1"):
        split_into_groups(0, seed=0)


def test_every_seed_gets_exactly_one_episode_of_its_own_length():
    # CountingEnv: 3 + seed % 4 steps of reward 1.
    environments = [CountingEnv() for _ in range(4)]
    results = run_group(zero_policy(), environments, (4, 5, 6, 7))
    assert [result.seed for result in results] == [4, 5, 6, 7]
    assert [result.length for result in results] == [3, 4, 5, 6]
    assert [result.episode_return for result in results] == [3.0, 4.0, 5.0, 6.0]


def test_a_finished_slot_is_neither_stepped_nor_reset():
    environments = [CountingEnv() for _ in range(2)]
    run_group(zero_policy(), environments, (4, 7))
    assert [environment.num_steps for environment in environments] == [3, 6]
    assert [environment.num_resets for environment in environments] == [1, 1]


def test_the_policy_always_acts_on_full_groups_padded_by_zeros():
    class Watching(Policy):
        def act(self, observations, **options):
            seen.append(np.array(observations))
            return super().act(observations, **options)

    seen: list[np.ndarray] = []
    policy = zero_policy()
    run_group(Watching(policy.weights, policy.description), [CountingEnv(), CountingEnv()], (4, 7))
    assert {batch.shape for batch in seen} == {(GROUP_WIDTH, 2)}
    assert len(seen) == 6
    np.testing.assert_array_equal(seen[-1][:3], [[3, 4], [5, 7], [0, 0]])


@pytest.mark.parametrize("key", ["success", "is_success", "goal_achieved"])
def test_success_at_any_step_is_success(key):
    environments = [CountingEnv(success_key=key) for _ in range(2)]
    results = run_group(zero_policy(), environments, (4, 5))
    assert [result.is_success for result in results] == [True, False]


def test_success_is_unknown_where_the_environment_reports_none():
    assert run_group(zero_policy(), [CountingEnv()], (4,))[0].is_success is None


def test_environments_used_again_give_the_same_returns_to_the_last_bit():
    environments: list[gymnasium.Env] = [ChaoticEnv() for _ in range(GROUP_WIDTH)]
    policy = random_policy()
    first = run_all(policy, environments, 20, seed=1)
    assert run_all(policy, environments, 20, seed=1) == first
    assert run_all(policy, [ChaoticEnv() for _ in range(GROUP_WIDTH)], 20, seed=1) == first


def test_mujoco_gives_the_same_returns_in_new_and_used_environments():
    policy = random_policy(11, 3)
    seeds = (1, 2, 3)
    first = run_group(policy, [make_env("Hopper-v5") for _ in seeds], seeds)
    used: list[gymnasium.Env] = [make_env("Hopper-v5") for _ in seeds]
    run_group(policy, used, (7, 8, 9))
    assert run_group(policy, used, seeds) == first


def test_the_toy_magnifies_a_last_bit():
    # Or the tests of equality above would prove little.
    policy = random_policy()
    nudged = Policy(
        {**policy.weights, "mean.bias": policy.weights["mean.bias"] * np.float32(1 + 1e-6)}, policy.description
    )
    one, other = (run_group(each, [ChaoticEnv()], (5,))[0].episode_return for each in (policy, nudged))
    assert abs(one - other) > 1e-3


def test_noise_belongs_to_the_episode_and_not_to_its_group():
    environments = [CountingNoise() for _ in range(3)]
    together = run_group(zero_policy(), environments, (4, 5, 6), temperature=1.0)
    alone = run_group(zero_policy(), environments, (6,), temperature=1.0)
    assert together[2] == alone[0]
    assert len({result.episode_return / result.length for result in together}) == 3


class CountingNoise(CountingEnv):
    """Its reward is the action, so the return shows the noise."""

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float(action[0]), *rest


def test_temperature_zero_draws_no_noise():
    result = run_group(zero_policy(), [CountingNoise()], (4,))[0]
    assert result.episode_return == 0.0


def test_pendulum_under_a_zero_policy_equals_a_loop_written_by_hand():
    environment = gymnasium.make("Pendulum-v1")
    environment.reset(seed=11)
    rewards = [float(environment.step(np.zeros(1, np.float32))[1]) for _ in range(200)]
    result = run_group(zero_policy(3, 1, bound=2.0), [make_env("Pendulum-v1")], (11,))[0]
    assert result == EpisodeResult(seed=11, episode_return=sum(rewards), length=200)


def cart_poles(number: int) -> list[gymnasium.Env]:
    return [make_env("CartPole-v1") for _ in range(number)]


def test_a_categorical_policy_made_by_hand_balances_the_pole_to_the_end():
    results = run_group(balancing_policy(), cart_poles(8), tuple(range(8)))
    assert [result.episode_return for result in results] == [500.0] * 8


def test_pushing_the_other_way_the_pole_falls_at_once():
    results = run_group(balancing_policy(push=-100.0), cart_poles(2), (1, 2))
    assert max(result.length for result in results) < 15


def test_sampled_choices_are_reproducible_in_new_and_used_environments():
    policy, environments, seeds = balancing_policy(push=5.0), cart_poles(4), (1, 2, 3, 4)
    first = run_group(policy, environments, seeds, temperature=1.0)
    assert run_group(policy, environments, seeds, temperature=1.0) == first
    assert run_group(policy, cart_poles(4), seeds, temperature=1.0) == first
    assert run_group(policy, environments, seeds, temperature=2.0) != first
    assert run_group(policy, environments, seeds) != first


def test_sampled_choices_belong_to_the_episode_and_not_to_its_group():
    policy, environments = balancing_policy(push=5.0), cart_poles(3)
    together = run_group(policy, environments, (4, 5, 6), temperature=1.0)
    assert run_group(policy, environments, (6,), temperature=1.0) == together[2:]
    assert len({result.length for result in together}) == 3


@pytest.mark.parametrize("reward", [np.nan, np.inf])
def test_a_reward_that_is_not_finite_names_environment_seed_and_step(reward):
    environment = CountingEnv(bad_step=2, bad_reward=reward)
    with pytest.raises(EpisodeError, match=r"'CountingEnv', episode with seed 6, step 2: the reward is not finite"):
        run_group(zero_policy(), [environment], (6,))


def test_an_observation_that_is_not_finite_names_environment_seed_and_step():
    class Blind(CountingEnv):
        def reset(self, **options):
            return np.array([0.0, np.nan], np.float32), super().reset(**options)[1]

    with pytest.raises(EpisodeError, match=r"'Blind', episode with seed 6, step 0: the observation is not finite"):
        run_group(zero_policy(), [Blind()], (6,))


def test_an_exception_of_the_environment_names_environment_seed_and_step():
    with pytest.raises(EpisodeError, match=r"'UnluckyEnv', episode with seed 6, step 2: step raised OSError: the grip"):
        run_group(zero_policy(), [UnluckyEnv()], (6,))


def test_an_episode_without_an_end_is_an_error(monkeypatch):
    monkeypatch.setattr(episodes, "MAX_EPISODE_STEPS", 5)
    with pytest.raises(EpisodeError, match=r"step 5: the episode does not end; limit it"):
        run_group(zero_policy(), [CountingEnv()], (7,))
    assert run_group(zero_policy(), [CountingEnv()], (6,))[0].length == 5


def test_a_group_needs_an_environment_for_every_seed():
    with pytest.raises(ValueError, match="a group has 1 to 8 seeds and an environment each, got 2 seeds"):
        run_group(zero_policy(), [CountingEnv()], (6, 7))


def test_a_policy_of_another_environment_is_refused():
    check_policy(zero_policy(3, 1, bound=2.0), "Pendulum-v1")
    with pytest.raises(ValueError, match="observation dimensions: 3 in the environment, 11 in the policy"):
        check_policy(zero_policy(11, 1, bound=2.0), "Pendulum-v1")
    with pytest.raises(ValueError, match="upper action bounds"):
        check_policy(zero_policy(3, 1, bound=1.0), "Pendulum-v1")


def test_a_categorical_policy_fits_an_environment_of_as_many_choices():
    assert policy_spaces(balancing_policy()) == Spaces(observation_dim=4, action_dim=1, num_actions=2)
    check_policy(balancing_policy(), "CartPole-v1")
    with pytest.raises(ValueError, match="number of actions: 3 in the environment, 2 in the policy"):
        check_policy(balancing_policy(), "Acrobot-v1")
    with pytest.raises(ValueError, match="actions: continuous in the environment, discrete in the policy"):
        check_policy(balancing_policy(), "Pendulum-v1")


def test_returns_are_discounted_where_that_is_asked_for():
    environments = [CountingEnv()]
    rewards = [1.0] * run_group(zero_policy(), environments, (4,))[0].length
    (discounted,) = run_group(zero_policy(), environments, (4,), discount=0.5)
    assert discounted.episode_return == pytest.approx(sum(reward * 0.5**step for step, reward in enumerate(rewards)))
