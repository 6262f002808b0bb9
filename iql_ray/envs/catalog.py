"""The catalog of environments: made by name, described by their spaces, compared with D4RL's reference returns.

It steps no environment and knows no policy.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import re
from functools import cache
from importlib import resources
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from iql_ray.experience import Spaces

OPTIONAL_PACKAGES = {
    ("AdroitHand", "AntMaze_", "Fetch", "FrankaKitchen", "HandManipulate", "HandReach", "PointMaze_"): (
        "gymnasium_robotics",
        "pip install 'iql-ray[robotics]'",
    ),
}
"""Environments that register themselves when their package is imported: prefixes of ids -> (module, installation)."""

OWN_NAMESPACE = "iql_ray/"
"""Ids that begin so are ours, registered by `umaze.py`."""
EXTERNAL_SCHEME = "external://"
"""Ids that begin so are addresses of environments that live elsewhere: see `external`."""

REFERENCE_NAMES = {
    "HalfCheetah": "halfcheetah",
    "Hopper": "hopper",
    "Walker2d": "walker2d",
    "Ant": "ant",
    "AdroitHandPen": "pen",
    "AdroitHandDoor": "door",
    "AdroitHandHammer": "hammer",
    "AdroitHandRelocate": "relocate",
    "AntMaze_UMaze": "antmaze-umaze",
    "AntMaze_Medium": "antmaze-medium-play",
    "AntMaze_Medium_Diverse_G": "antmaze-medium-diverse",
    "AntMaze_Medium_Diverse_GR": "antmaze-medium-diverse",
    "AntMaze_Large": "antmaze-large-play",
    "AntMaze_Large_Diverse_G": "antmaze-large-diverse",
    "AntMaze_Large_Diverse_GR": "antmaze-large-diverse",
    "FrankaKitchen": "kitchen-complete",
}
"""gymnasium's names, without the version, -> D4RL's names in reference_returns.json."""


def make_env(environment_id: str, *, is_checked: bool = True, **kwargs: Any) -> gymnasium.Env:
    """Make an environment by name.

    Args:
        environment_id: an id of gymnasium's (`Hopper-v5`) or ours (`iql_ray/UMaze-v0`), `module:id` where importing
            the module registers the id, `module:EntryPoint` where the module holds a class or function that makes the
            environment, or `external://HOST:PORT` of one that is served elsewhere.
        is_checked: wrapped by gymnasium's checker of first steps, which warns; every step is a little slower.
        kwargs: passed to the environment.

    Raises:
        ValueError: no such environment (with the nearest names), or a package that it needs is not installed.
    """
    if environment_id.startswith(EXTERNAL_SCHEME):
        return importlib.import_module("iql_ray.envs.external").connect(environment_id, **kwargs)
    module_name, _, name = environment_id.rpartition(":")
    if module_name:
        entry_point = getattr(_import(module_name, environment_id), name, None)
        if callable(entry_point):
            return _checked(entry_point(**kwargs), environment_id)
    else:
        _register_optional_package(environment_id)
    try:
        return gymnasium.make(environment_id, disable_env_checker=None if is_checked else True, **kwargs)
    except gymnasium.error.UnregisteredEnv as error:
        raise ValueError(f"environment '{environment_id}' is unknown: {error}{_nearest_names(name)}") from error
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"environment '{environment_id}' cannot be made: {error}") from error


def _import(module_name: str, environment_id: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"environment '{environment_id}': module '{module_name}' cannot be imported ({error}); "
            "expected module:id or module:EntryPoint with a module on PYTHONPATH"
        ) from error


def _checked(environment: Any, environment_id: str) -> gymnasium.Env:
    if not isinstance(environment, gymnasium.Env):
        made = type(environment).__name__
        raise ValueError(f"environment '{environment_id}' makes a {made}, expected a gymnasium.Env")
    return environment


def _register_optional_package(environment_id: str) -> None:
    """Import the module that registers this id, if there is one and nobody has imported it."""
    if environment_id.startswith(OWN_NAMESPACE):
        importlib.import_module("iql_ray.envs.umaze")
    for prefixes, (module_name, installation) in OPTIONAL_PACKAGES.items():
        if environment_id in gymnasium.registry or not environment_id.startswith(prefixes):
            continue
        if importlib.util.find_spec(module_name) is None:
            raise ValueError(
                f"environment '{environment_id}' belongs to {module_name}, which is not installed: {installation}"
            )
        importlib.import_module(module_name)


def _nearest_names(name: str) -> str:
    nearest = difflib.get_close_matches(name, gymnasium.registry, n=3)
    return f" Nearest names: {', '.join(nearest)}." if nearest else ""


def name_of(environment: gymnasium.Env) -> str:
    """The id under which it was made, its class where it was made without one."""
    return environment.spec.id if environment.spec else type(environment.unwrapped).__name__


def environment_spaces(environment_id: str) -> Spaces:
    """Make the environment, read its spaces, close it."""
    environment = make_env(environment_id)
    try:
        return spaces_of(environment)
    finally:
        environment.close()


def spaces_of(environment: gymnasium.Env) -> Spaces:
    """What the environment takes and gives.

    Raises:
        ValueError: observations other than a flat box of floats, actions other than a flat box with finite bounds
            or choices counted from 0.
    """
    observation_dim = _observation_dim(environment)
    space = environment.action_space
    if isinstance(space, Discrete) and space.start == 0:
        return Spaces(observation_dim=observation_dim, action_dim=1, num_actions=int(space.n))
    if not (isinstance(space, Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating)):
        raise ValueError(
            f"environment '{name_of(environment)}' takes actions in {space}; expected a flat Box of floats, "
            "or Discrete counted from 0"
        )
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(
            f"environment '{name_of(environment)}' has no finite action bounds: {space}; "
            "give it some with gymnasium.wrappers.RescaleAction or a Box of its own"
        )
    low, high = tuple(space.low.tolist()), tuple(space.high.tolist())
    return Spaces(observation_dim=observation_dim, action_dim=len(low), action_low=low, action_high=high)


def _observation_dim(environment: gymnasium.Env) -> int:
    space = environment.observation_space
    if isinstance(space, Dict):
        raise ValueError(
            f"environment '{name_of(environment)}' gives dict observations ({', '.join(space)}), which are not "
            "supported; make them one vector with gymnasium.wrappers.FlattenObservation"
        )
    if not (isinstance(space, Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating)):
        raise ValueError(f"environment '{name_of(environment)}' observes {space}; expected a flat Box of floats")
    return space.shape[0]


def check_spaces(environment_id: str, spaces_env: Spaces, spaces_data: Spaces, what: str) -> None:
    """Refuse an environment whose spaces are not those of `what` ("the dataset", "the policy").

    Raises:
        ValueError: what differs: number of observations, kind, number or bounds of actions.
    """
    differences = [
        f"{name}: {in_env} in the environment, {in_data} in {what}"
        for name, in_env, in_data in _compared(spaces_env, spaces_data)
    ]
    if differences:
        raise ValueError(
            f"environment '{environment_id}' does not fit {what}: {'; '.join(differences)}. "
            f"Choose the environment that {what} was made for"
        )


def _compared(first: Spaces, second: Spaces) -> list[tuple[str, Any, Any]]:
    """Name and both values of whatever differs."""
    pairs: list[tuple[str, Any, Any]] = [("observation dimensions", first.observation_dim, second.observation_dim)]
    if first.is_discrete != second.is_discrete:
        kinds = {True: "discrete", False: "continuous"}
        pairs.append(("actions", kinds[first.is_discrete], kinds[second.is_discrete]))
    elif first.is_discrete:
        pairs.append(("number of actions", first.num_actions, second.num_actions))
    elif first.action_dim != second.action_dim:
        pairs.append(("action dimensions", first.action_dim, second.action_dim))
    else:
        pairs += _compared_bounds(first, second)
    return [(name, one, other) for name, one, other in pairs if one != other]


def _compared_bounds(first: Spaces, second: Spaces) -> list[tuple[str, Any, Any]]:
    """Bounds that differ by more than the rounding of float32."""
    bounds = [
        ("lower action bounds", first.action_low, second.action_low),
        ("upper action bounds", first.action_high, second.action_high),
    ]
    return [(name, one, other) for name, one, other in bounds if not np.allclose(one, other, rtol=1e-5, atol=1e-6)]


def normalized_score(environment_id: str, mean_return: float) -> float | None:
    """D4RL's score: 0 is a random policy, 100 an expert; None where D4RL has no reference.

    AntMaze's reference counts one reward per episode: it holds where the episode ends at the goal
    (`continuing_task=False`).
    """
    name = re.sub(r"-v\d+$", "", environment_id.rpartition(":")[2])
    if name not in REFERENCE_NAMES:
        return None
    reference = _reference_returns()[REFERENCE_NAMES[name]]
    return 100.0 * (mean_return - reference["random"]) / (reference["expert"] - reference["random"])


@cache
def _reference_returns() -> dict[str, dict[str, float]]:
    text = resources.files("iql_ray.envs").joinpath("reference_returns.json").read_text()
    return json.loads(text)["returns"]
