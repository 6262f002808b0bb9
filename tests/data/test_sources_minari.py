"""Minari datasets made by Minari: any id, dict and nested observations in a recorded order, success in infos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pyarrow as pa
import pytest
from gymnasium import spaces

from iql_ray.data.sources import Source, open_source
from iql_ray.data.sources.flattening import flatten, leaves
from tests.data.examples import tables_of
from tests.data.source_examples import as_minari, buffer, create_minari, episodes

ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
GOAL_SPACE = spaces.Dict(
    {
        "observation": spaces.Box(-9, 9, (3,), np.float64),
        "desired_goal": spaces.Box(-9, 9, (2,), np.float64),
        "achieved_goal": spaces.Box(-9, 9, (2,), np.float64),
    }
)
NESTED_SPACE = spaces.Dict(
    {
        "z": spaces.Tuple((spaces.Discrete(3, start=1), spaces.Box(-9, 9, (2, 2), np.float32))),
        "a": spaces.MultiDiscrete([2, 3]),
        "b": spaces.Dict({"y": spaces.MultiBinary(2), "x": spaces.Box(-9, 9, (), np.float32)}),
    }
)


@pytest.fixture(autouse=True)
def minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def stacked(space: gymnasium.Space, values: list[Any]) -> Any:
    """Observations of a nested space as an episode holds them: a nest of arrays."""
    if isinstance(space, spaces.Dict):
        return {key: stacked(part, [value[key] for value in values]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stacked(part, [value[i] for value in values]) for i, part in enumerate(space.spaces))
    return np.stack(values)


def write(name: str, space: gymnasium.Space, lengths: tuple[int, ...] = (3, 2), infos: Any = None) -> list[list[Any]]:
    """A dataset of sampled observations; returns them, one list an episode."""
    space.seed(0)
    sampled = [[space.sample() for _ in range(length + 1)] for length in lengths]
    buffers = [
        buffer(
            observations=stacked(space, values),
            actions=np.zeros((length, 2), np.float32),
            rewards=np.zeros(length),
            terminations=np.zeros(length, bool),
            truncations=np.arange(length) == length - 1,
            infos=infos(length) if infos else None,
        )
        for values, length in zip(sampled, lengths, strict=True)
    ]
    create_minari(name, buffers, space, ACTIONS)
    return sampled


def rows(source: Source) -> dict[str, list]:
    return pa.concat_tables(tables_of(source)).to_pydict()


def flat(space: gymnasium.Space, value: Any) -> list[float]:
    return np.asarray(spaces.flatten(space, value)).astype(np.float32).tolist()


@pytest.mark.parametrize("space", [GOAL_SPACE, NESTED_SPACE, spaces.Discrete(4), spaces.Box(-9, 9, (2, 3))])
def test_observations_are_flattened_as_gymnasium_does_it(space: gymnasium.Space) -> None:
    sampled = write("test/nested-v0", space)
    source = open_source("minari:test/nested-v0")
    expected = [flat(space, value) for values in sampled for value in values[:-1]]
    following = [flat(space, value) for values in sampled for value in values[1:]]
    assert source.layout.observation_dim == spaces.flatdim(space)
    assert rows(source)["observations"] == expected
    assert rows(source)["next_observations"] == following


def test_the_order_of_a_dict_is_recorded() -> None:
    write("test/goal-v0", GOAL_SPACE)
    recorded = open_source("minari:test/goal-v0").recorded
    assert recorded.details["observation_order"] == "achieved_goal, desired_goal, observation"
    write("test/nested-v0", NESTED_SPACE)
    assert open_source("minari:test/nested-v0").recorded.details["observation_order"] == "a, b/x, b/y, z/0, z/1"


def test_a_vector_without_names_has_no_order() -> None:
    write("test/flat-v0", spaces.Box(-9, 9, (3,)))
    assert "observation_order" not in open_source("minari:test/flat-v0").recorded.details


def test_parts_of_a_dict_are_chosen_in_the_users_order() -> None:
    sampled = write("test/goal-v0", GOAL_SPACE)
    source = open_source("minari:test/goal-v0", {"observations": "observation,desired_goal"})
    assert source.recorded.details["observation_order"] == "observation, desired_goal"
    first = sampled[0][0]
    joined = np.concatenate([first["observation"], first["desired_goal"]]).astype(np.float32)
    assert rows(source)["observations"][0] == joined.tolist()


def test_a_name_may_stand_for_a_nest() -> None:
    write("test/nested-v0", NESTED_SPACE)
    source = open_source("minari:test/nested-v0", {"observations": "z,a"})
    assert source.recorded.details["observation_order"] == "z/0, z/1, a"
    assert source.layout.observation_dim == 3 + 4 + 5


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"observations": "goal"}, "there is no 'goal', the observations are achieved_goal, desired_goal, observation"),
        ({"rewards": "r"}, "Minari names its own columns, leave rewards out"),
        ({"time": "t"}, "leave time out"),
    ],
)
def test_parts_that_are_not_there(columns: dict[str, str], message: str) -> None:
    write("test/goal-v0", GOAL_SPACE)
    with pytest.raises(ValueError, match=message):
        open_source("minari:test/goal-v0", columns)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Dict({"say": spaces.Text(5)}), "Text.* at say, expected boxes of numbers"),
        (spaces.Dict({"eye": spaces.Box(0, 255, (8, 8, 3), np.uint8)}), "Box.* at eye, expected boxes of numbers"),
    ],
)
def test_observations_that_are_no_numbers(space: gymnasium.Space, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        leaves(space)


def test_an_index_that_is_no_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="holds an index outside 1 to 3"):
        flatten(leaves(spaces.Discrete(3, start=1)), np.array([1, 4]))


@pytest.mark.parametrize("name", ["one-v0", "D4RL/antmaze/umaze-v1", "a/b/c/deep-v12"])
def test_any_namespace_and_version_is_found_by_id_and_by_path(name: str, minari_root: Path) -> None:
    write(name, spaces.Box(-9, 9, (3,)))
    by_id, by_path = open_source(f"minari:{name}"), open_source(f"minari:{minari_root / name}")
    assert by_id.recorded.details["dataset_id"] == name
    assert rows(by_id) == rows(by_path)


def test_a_missing_dataset_is_answered_with_those_that_are_here() -> None:
    write("D4RL/door/human-v1", spaces.Box(-9, 9, (3,)))
    with pytest.raises(ValueError, match=r"minari download D4RL/door/human-v2; there are D4RL/door/human-v1"):
        open_source("minari:D4RL/door/human-v2")


@pytest.mark.parametrize("has_reset_info", [True, False])
@pytest.mark.parametrize("name", ["success", "goal_achieved"])
def test_success_is_that_of_the_state_a_step_led_to(name: str, has_reset_info: bool) -> None:
    """The reset has an info too, unless whoever wrote the dataset left it out."""

    def infos(length: int) -> dict[str, np.ndarray]:
        flags = np.arange(length) >= 1
        return {name: np.append(False, flags) if has_reset_info else flags, "qpos": np.zeros((length, 2))}

    write("test/reach-v0", spaces.Box(-9, 9, (3,)), infos=infos)
    source = open_source("minari:test/reach-v0")
    assert source.layout.success == (name,)
    assert "success" not in rows(source)
    assert rows(source.with_success())["success"] == [False, True, True, False, True]


def test_success_of_another_length_is_refused() -> None:
    write("test/reach-v0", spaces.Box(-9, 9, (3,)), infos=lambda length: {"success": np.zeros(length + 2)})
    with pytest.raises(ValueError, match=r"episode 0 of .*info success has 5 values for 3 steps"):
        rows(open_source("minari:test/reach-v0").with_success())


def data_file(minari_root: Path) -> Path:
    return minari_root / "test" / "walk-v0" / "data" / "main_data.hdf5"


def test_an_empty_episode_is_named(minari_root: Path) -> None:
    spec = as_minari(minari_root, episodes())
    with h5py.File(data_file(minari_root), "a") as file:
        file["episode_1"].attrs["total_steps"] = 0
    with pytest.raises(ValueError, match=r"episode 1 of .*walk-v0/data has no steps; leave it out"):
        open_source(spec)


def test_an_episode_with_an_observation_missing_is_named(minari_root: Path) -> None:
    spec = as_minari(minari_root, episodes())
    with h5py.File(data_file(minari_root), "a") as file:
        episode: Any = file["episode_2"]
        episode["observations"].resize((22, 3))
    with pytest.raises(ValueError, match=r"episode 2 of .*observations are 21 steps long, its rewards 22"):
        rows(open_source(spec))


def test_metadata_that_counts_other_episodes_is_found(minari_root: Path) -> None:
    spec = as_minari(minari_root, episodes())
    path = data_file(minari_root).with_name("metadata.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"total_episodes": 4}))
    with pytest.raises(ValueError, match=r"walk-v0/data, as a Minari dataset, is damaged: .*episode_3"):
        open_source(spec)
