"""RLlib's EnvRunner, with our policy as its module, acts as the policy does, to the last bit."""

from __future__ import annotations

from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from iql_ray.distributed.rllib_module import PolicyRLModule, rl_module_spec
from tests.evaluation.toys import balancing_policy, random_policy
from tests.tracking.examples import small_policy

REALS = Box(-np.inf, np.inf, (3,))


def saved(policy, folder):
    folder.mkdir()
    policy.save(folder)
    return folder


def module_of(policy, folder, observations=REALS, actions=None):
    spec = rl_module_spec(saved(policy, folder))
    spec.observation_space, spec.action_space = observations, actions
    module = spec.build()
    assert isinstance(module, PolicyRLModule)
    return module


def small_module(tmp_path):
    return module_of(
        small_policy(), tmp_path / "policy", actions=Box(np.array([-2, -1], np.float32), np.array([2, 3], np.float32))
    )


class Recording(gymnasium.Wrapper):
    """An environment that remembers what it was sent."""

    sent: ClassVar[list] = []

    def __init__(self, config):
        super().__init__(gymnasium.make(config["id"]))

    def step(self, action):
        self.sent.append(np.copy(action))
        return super().step(action)


@pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-single-agent-env:UserWarning")  # the second runner
@pytest.mark.parametrize(
    ("environment_id", "policy"),
    [("Pendulum-v1", random_policy(3, 1, bound=2.0)), ("CartPole-v1", balancing_policy())],
)
def test_an_env_runner_acts_as_the_policy_does_to_the_last_bit(tmp_path, environment_id, policy):
    config = PPOConfig().environment(Recording, env_config={"id": environment_id}).debugging(seed=5)
    spec = rl_module_spec(saved(policy, tmp_path / "policy"))
    runner = SingleAgentEnvRunner(config=config.rl_module(rl_module_spec=spec).env_runners(num_envs_per_env_runner=1))
    Recording.sent.clear()
    (episode,) = runner.sample(num_episodes=1, explore=False)
    observations = episode.get_observations(slice(0, len(Recording.sent)))
    assert len(Recording.sent) == len(episode) >= 200
    np.testing.assert_array_equal(Recording.sent, [policy.act(each[None])[0] for each in observations])


def test_exploration_samples_the_policys_own_distribution(tmp_path):
    module, rows = small_module(tmp_path), np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    inputs = module.forward_exploration({Columns.OBS: torch.from_numpy(rows)})[Columns.ACTION_DIST_INPUTS]
    means, log_stds = inputs.numpy()[:, :2], inputs.numpy()[:, 2:]
    np.testing.assert_allclose([0, 1] + [2, 2] * means, small_policy().act(rows), atol=1e-5)
    np.testing.assert_allclose(log_stds, [small_policy().weights["log_std"]] * 6, rtol=1e-6)


def test_a_changed_parameter_changes_the_action(tmp_path):
    module, batch = small_module(tmp_path), {Columns.OBS: torch.zeros(1, 3)}
    before = module.forward_inference(batch)[Columns.ACTIONS]
    state = module.get_state()
    module.set_state({**state, "mean_bias": state["mean_bias"] + 1})
    after = module.forward_inference(batch)[Columns.ACTIONS]
    np.testing.assert_allclose(np.arctanh(after.numpy()) - np.arctanh(before.numpy()), [[1, 1]], rtol=1e-3)
    assert {name for name, _ in module.named_parameters()} >= {"hidden_0_weight", "mean_bias", "log_std"}


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (Box(-1, 1, (4,)), Box(-1, 1, (2,)), r"the policy takes shape \(3,\)"),
        (REALS, Discrete(2), r"the module's actions are Discrete\(2\), the policy's numbers from \[-2.0, -1.0\]"),
        (REALS, Box(-1, 1, (1,)), "the module's actions are Box"),
    ],
)
def test_spaces_of_another_environment_are_refused(tmp_path, observations, actions, message):
    with pytest.raises(ValueError, match=message):
        module_of(small_policy(), tmp_path / "policy", observations, actions)
