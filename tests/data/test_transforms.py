"""What the agent sees and what the environment gets, there and back."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from iql_ray import config
from iql_ray.data.prepared import Manifest
from iql_ray.data.transforms import TransformConfig, Transforms
from iql_ray.experience import Spaces
from iql_ray.policy import ACTION_LIMIT, Policy, PolicyDescription
from tests.data.examples import example, prepare_here, write_npz


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    environment = Spaces(observation_dim=2, action_dim=1, action_low=(-2.0,), action_high=(4.0,))
    spec = write_npz(tmp_path / "a.npz", example())
    return prepare_here(spec, tmp_path / "a", environment=environment, bounds=(-1.0, 1.0))


def policy_of_means(transforms: Transforms) -> Policy:
    """A policy of one action whose mean is tanh of the one observation."""
    weights = {"mean.weight": np.ones((1, 1)), "mean.bias": np.zeros(1), "log_std": np.zeros(1)}
    description = PolicyDescription(
        observation_dim=1,
        num_hidden_layers=0,
        action_low=transforms.action_low,
        action_high=transforms.action_high,
        log_std_min=-5.0,
        log_std_max=2.0,
    )
    return Policy({name: value.astype(np.float32) for name, value in weights.items()}, description)


def test_the_return_range_becomes_a_thousand(manifest: Manifest) -> None:
    transforms = Transforms.fit(TransformConfig(reward_scale="return-range"), manifest)
    assert transforms.reward_scale == pytest.approx(1000 / (9 - 6))
    assert transforms.rewards(np.array([3.0], np.float32)) == pytest.approx([1000])


def test_rewards_are_scaled_and_then_shifted(manifest: Manifest) -> None:
    transforms = Transforms.fit(TransformConfig(reward_scale=2.0, reward_shift=-1.0), manifest)
    assert transforms.rewards(np.array([[0.0, 3.0]])).tolist() == [[-1, 5]]


def test_a_return_range_of_zero_is_an_error(manifest: Manifest) -> None:
    returns = dataclasses.replace(manifest.episode_returns, min=9.0)
    with pytest.raises(ValueError, match="needs episodes of different returns, but all 2 return 9; give a number"):
        Transforms.fit(
            TransformConfig(reward_scale="return-range"), dataclasses.replace(manifest, episode_returns=returns)
        )


def test_by_default_observations_and_rewards_stay_raw(manifest: Manifest) -> None:
    transforms = Transforms.fit(TransformConfig(), manifest)
    assert transforms.observations(example()["observations"]).tolist() == example()["observations"].tolist()
    assert transforms.rewards(example()["rewards"]).tolist() == example()["rewards"].tolist()


def test_normalised_data_has_zero_mean_and_unit_deviation(manifest: Manifest) -> None:
    transforms = Transforms.fit(TransformConfig(normalize_observations=True), manifest)
    normalised = transforms.observations(example()["observations"])
    assert normalised.mean(axis=0) == pytest.approx([0, 0], abs=1e-6)
    assert normalised.std(axis=0) == pytest.approx([1, 1], abs=1e-6)


def test_a_constant_observation_is_not_blown_up(manifest: Manifest) -> None:
    constant = dataclasses.replace(manifest.columns["observations"], std=(0.0, 1.0))
    columns = {**manifest.columns, "observations": constant}
    transforms = Transforms.fit(
        TransformConfig(normalize_observations=True), dataclasses.replace(manifest, columns=columns)
    )
    assert transforms.observation_std == (0.001, 1.0)


def test_the_environments_box_becomes_the_agents_and_the_policy_brings_it_back(manifest: Manifest) -> None:
    transforms = Transforms.fit(TransformConfig(), manifest)
    units = transforms.agent_actions(np.array([[-2.0], [1.0], [2.5]], np.float32))
    assert units[:, 0] == pytest.approx([-ACTION_LIMIT, 0, 0.5])
    acted = policy_of_means(transforms).act(np.arctanh(units))
    assert acted[:, 0] == pytest.approx([-2, 1, 2.5], abs=1e-4)


def test_actions_at_the_bounds_stay_inside_the_open_box(manifest: Manifest) -> None:
    transforms = Transforms.fit(TransformConfig(), manifest)
    units = transforms.agent_actions(np.array([[-2.0], [4.0]]))
    assert np.isfinite(np.arctanh(units)).all()


def test_discrete_actions_pass_unchanged() -> None:
    indices = np.array([[0.0], [3.0]], np.float32)
    assert Transforms().agent_actions(indices).tolist() == [[0], [3]]


def test_fitted_transforms_go_through_json(manifest: Manifest, tmp_path: Path) -> None:
    transforms = Transforms.fit(TransformConfig(reward_scale="return-range", normalize_observations=True), manifest)
    config.save(transforms, tmp_path / "transforms.json")
    assert config.load(Transforms, tmp_path / "transforms.json") == transforms


def test_a_configuration_goes_through_json(tmp_path: Path) -> None:
    for settings in (TransformConfig(reward_scale="return-range"), TransformConfig(reward_scale=0.5)):
        config.save(settings, tmp_path / "config.json")
        assert config.load(TransformConfig, tmp_path / "config.json") == settings


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, "range"])
def test_a_scale_that_is_no_scale_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=r"reward_scale is .*, expected a positive number or 'return-range'"):
        TransformConfig(reward_scale=scale)


def test_a_shift_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="reward_shift is nan"):
        TransformConfig(reward_shift=math.nan)
