"""Configuration goes to JSON and YAML and back unchanged, and refuses what it does not know."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iql_ray import config


@dataclass(frozen=True, kw_only=True)
class Agent:
    discount: float = 0.99
    hidden_sizes: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount is {self.discount}, expected a number in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class Run:
    dataset: str
    reward_scale: Literal["return-range"] | float = 1.0
    env: str | None = None
    agent: Agent = field(default_factory=Agent)


@given(
    st.builds(
        Run,
        dataset=st.text(),
        reward_scale=st.just("return-range") | st.floats(allow_nan=False, allow_infinity=False),
        env=st.none() | st.text(),
        agent=st.builds(
            Agent,
            discount=st.floats(0, 1),
            hidden_sizes=st.lists(st.integers(1, 512), max_size=3).map(tuple),
        ),
    )
)
def test_a_configuration_survives_json(run):
    assert config.from_dict(Run, json.loads(json.dumps(config.to_dict(run)))) == run


def test_a_saved_configuration_loads_equal_and_leaves_no_partial_file(tmp_path):
    run = Run(dataset="data/pen", agent=Agent(hidden_sizes=(32,)))
    config.save(run, tmp_path / "config.json")
    assert config.load(Run, tmp_path / "config.json") == run
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("number", [1e-05, 3e-12, 1.5e-07, 1e22, -2e-09])
def test_small_and_large_numbers_are_read_as_numbers(tmp_path, number):
    config.save(Run(dataset="d", reward_scale=number), tmp_path / "config.json")
    assert config.load(Run, tmp_path / "config.json").reward_scale == number
    (tmp_path / "run.yaml").write_text(f"dataset: 1e5x\nreward_scale: {number}\n")
    assert config.load(Run, tmp_path / "run.yaml") == Run(dataset="1e5x", reward_scale=number)


def test_yaml_with_a_nested_group_fills_the_nested_dataclass(tmp_path):
    (tmp_path / "run.yaml").write_text("dataset: data/pen\nagent:\n  discount: 0.9\n  hidden_sizes: [64, 64]\n")
    run = config.load(Run, tmp_path / "run.yaml")
    assert run.agent == Agent(discount=0.9, hidden_sizes=(64, 64))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "d", "reward_scal": 1.0}, "unknown key 'reward_scal'; did you mean 'reward_scale'?"),
        ({"dataset": 3}, "dataset"),
        ({}, "dataset"),
        ({"dataset": "d", "agent": {"discount": 2.0}}, r"discount is 2.0, expected a number in \[0, 1\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        config.from_dict(Run, values)


def test_an_unknown_key_inside_a_group_is_named_with_its_neighbours():
    with pytest.raises(ValueError, match="unknown key 'discont'; did you mean 'discount'"):
        config.from_dict(Run, {"dataset": "d", "agent": {"discont": 0.9}})


def test_an_override_replaces_one_nested_value_and_leaves_the_original():
    run = Run(dataset="d")
    assert config.override(run, {"agent.discount": 0.5}).agent == Agent(discount=0.5)
    assert run.agent == Agent()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("agent.discont", "did you mean 'discount'"),
        ("agnet.discount", "'agnet' is no group"),
        ("dataset.name", "'dataset' is no group"),
    ],
)
def test_an_override_of_something_else_is_refused(path, message):
    with pytest.raises(ValueError, match=message):
        config.override(Run(dataset="d"), {path: 0.5})


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "not valid YAML"), ("- 1\n- 2\n", "must hold a mapping"), ("", "must hold a mapping")],
)
def test_a_file_that_holds_no_mapping_is_refused(tmp_path, text, message):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        config.read(tmp_path / "run.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.yaml does not exist"):
        config.read(tmp_path / "absent.yaml")


def test_a_write_that_fails_keeps_the_old_file(tmp_path):
    config.write_json({"old": 1}, tmp_path / "config.json")
    with pytest.raises(TypeError):
        config.write_json({"new": object()}, tmp_path / "config.json")
    assert json.loads((tmp_path / "config.json").read_text()) == {"old": 1}
