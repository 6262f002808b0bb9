"""The catalog: environments by name, their spaces, and scores that a reader can check."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from iql_ray.envs.catalog import check_spaces, environment_spaces, make_env, name_of, normalized_score, spaces_of
from iql_ray.experience import Spaces

HOPPER = Spaces(observation_dim=11, action_dim=3, action_low=(-1.0,) * 3, action_high=(1.0,) * 3)


class BoxEnv(gymnasium.Env):
    """An environment of the spaces it is given."""

    def __init__(self, observation_space: gymnasium.Space, action_space: gymnasium.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space


VECTOR = Box(-np.inf, np.inf, (4,), np.float64)
TORQUES = Box(-1.0, 1.0, (2,), np.float32)


def test_gymnasium_ids_are_made():
    environment = make_env("Pendulum-v1", g=9.0)
    assert name_of(environment) == "Pendulum-v1"
    assert environment.unwrapped.g == 9.0  # pyright: ignore[reportAttributeAccessIssue]


def test_a_module_and_its_entry_point_are_made():
    environment = make_env("tests.evaluation.toys:CountingEnv", success_key="success")
    assert name_of(environment) == "CountingEnv"


def test_a_module_that_registers_an_id_is_imported_for_it():
    assert name_of(make_env("tests.envs.registering:Registered-v0")) == "Registered-v0"


@pytest.mark.parametrize(
    ("environment_id", "message"),
    [
        ("Hoper-v5", r"'Hoper-v5' is unknown: .* Nearest names: Hopper-v"),
        ("Pendulum-v9", r"'Pendulum-v9' is unknown: .*v1"),
        ("no spaces", r"'no spaces' cannot be made: Malformed"),
        ("no_such_module:Env", r"module 'no_such_module' cannot be imported .*PYTHONPATH"),
        ("tests.evaluation.toys:Nothing-v0", r"'tests.evaluation.toys:Nothing-v0' is unknown"),
        ("tests.evaluation.toys:not_an_environment", r"makes a str, expected a gymnasium.Env"),
    ],
)
def test_an_environment_that_there_is_not_is_refused(environment_id, message):
    with pytest.raises(ValueError, match=message):
        make_env(environment_id)


def test_a_missing_package_is_named_with_its_installation(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(gymnasium.registry, "AdroitHandDoor-v1", raising=False)
    message = (
        r"'AdroitHandDoor-v1' belongs to gymnasium_robotics, which is not installed: pip install 'iql-ray\[robotics"
    )
    with pytest.raises(ValueError, match=message):
        make_env("AdroitHandDoor-v1")


def test_spaces_are_read_from_real_environments():
    assert environment_spaces("Pendulum-v1") == Spaces(
        observation_dim=3, action_dim=1, action_low=(-2.0,), action_high=(2.0,)
    )
    assert environment_spaces("Hopper-v5") == HOPPER
    assert environment_spaces("CartPole-v1") == Spaces(observation_dim=4, action_dim=1, num_actions=2)


@pytest.mark.skipif(importlib.util.find_spec("gymnasium_robotics") is None, reason="needs gymnasium-robotics")
def test_the_door_has_the_spaces_of_its_demonstrations():
    spaces = environment_spaces("AdroitHandDoor-v1")
    assert (spaces.observation_dim, spaces.action_dim) == (39, 28)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (Dict({"goal": VECTOR, "position": VECTOR}), TORQUES, r"dict observations \(goal, position\)"),
        (Box(0, 255, (8, 8, 3), np.uint8), TORQUES, "expected a flat Box of floats"),
        (Box(0, 9, (4,), np.int64), TORQUES, "expected a flat Box of floats"),
        (VECTOR, Box(-np.inf, np.inf, (2,), np.float32), "no finite action bounds"),
        (VECTOR, Box(-1, 1, (2, 2), np.float32), "expected a flat Box of floats"),
        (VECTOR, MultiBinary(3), "or Discrete counted from 0"),
        (VECTOR, Discrete(3, start=1), "or Discrete counted from 0"),
    ],
)
def test_spaces_that_an_agent_cannot_live_in_are_refused(observation_space, action_space, message):
    with pytest.raises(ValueError, match=rf"'BoxEnv' .*{message}"):
        spaces_of(BoxEnv(observation_space, action_space))


def test_equal_spaces_fit_and_float32_rounding_does_not_matter():
    check_spaces("Hopper-v5", HOPPER, HOPPER, "the dataset")
    rounded = float(np.float32(0.4))
    narrow = replace(HOPPER, action_high=(0.4,) * 3)
    check_spaces("Hopper-v5", narrow, replace(HOPPER, action_high=(rounded,) * 3), "the dataset")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(HOPPER, observation_dim=17), "observation dimensions: 11 in the environment, 17 in the dataset"),
        (Spaces(observation_dim=11, action_dim=1, num_actions=2), "actions: continuous in the env.*, discrete in the"),
        (
            Spaces(observation_dim=11, action_dim=1, action_low=(-1.0,), action_high=(1.0,)),
            "action dimensions: 3 in the environment, 1 in the dataset",
        ),
        (replace(HOPPER, action_high=(2.0,) * 3), r"upper action bounds: \(1.0, 1.0, 1.0\) in the environment, \(2.0"),
        (replace(HOPPER, action_low=(-2.0,) * 3), "lower action bounds"),
    ],
)
def test_whatever_differs_is_said(other, message):
    with pytest.raises(ValueError, match=f"'Hopper-v5' does not fit the dataset: {message}"):
        check_spaces("Hopper-v5", HOPPER, other, "the dataset")


def test_several_differences_are_said_at_once():
    other = Spaces(observation_dim=17, action_dim=1, action_low=(-1.0,), action_high=(1.0,))
    with pytest.raises(ValueError, match=r"observation dimensions.*; action dimensions"):
        check_spaces("Hopper-v5", HOPPER, other, "the policy")


def test_two_kinds_of_discrete_actions_differ_by_their_number():
    two, three = (Spaces(observation_dim=4, action_dim=1, num_actions=number) for number in (2, 3))
    with pytest.raises(ValueError, match="number of actions: 2 in the environment, 3 in the policy"):
        check_spaces("CartPole-v1", two, three, "the policy")


def test_random_scores_zero_and_the_expert_one_hundred():
    assert normalized_score("Hopper-v5", -20.272305) == pytest.approx(0.0)
    assert normalized_score("Hopper-v4", 3234.3) == pytest.approx(100.0)
    assert normalized_score("Hopper-v5", (3234.3 - 20.272305) / 2) == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("environment_id", "expert"),
    [
        ("HalfCheetah-v5", 12135.0),
        ("Walker2d-v5", 4592.3),
        ("AdroitHandDoor-v1", 2880.5693087298737),
        ("AntMaze_Medium_Diverse_GR-v4", 1.0),
        ("FrankaKitchen-v1", 4.0),
        ("gymnasium.envs.mujoco:Hopper-v5", 3234.3),
    ],
)
def test_gymnasium_names_find_the_table(environment_id, expert):
    assert normalized_score(environment_id, expert) == pytest.approx(100.0)


@pytest.mark.parametrize(
    "environment_id", ["Pendulum-v1", "AdroitHandDoorSparse-v1", "tests.evaluation.toys:CountingEnv"]
)
def test_an_environment_without_a_reference_has_no_score(environment_id):
    assert normalized_score(environment_id, 1.0) is None
