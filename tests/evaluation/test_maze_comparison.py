"""Every method of a run is found, named and measured, and the measures are JSON."""

from __future__ import annotations

import json

import pytest

from iql_ray.algorithm.iql_config import Member
from iql_ray.envs.umaze_data import maze_data
from iql_ray.evaluation.maze_comparison import MazeComparison, compare, method_name
from iql_ray.evaluation.maze_study import MazeStudy
from tests.evaluation.maze_examples import grid, learned_exactly

STORY = [("implicit", 0.5), ("implicit", 0.95), ("sarsa", 0.5), ("single-q", 0.9), ("td", 0.9)]


def compared(name: str, critics: list[tuple[str, float]], inverse_temperatures=(0.0, 10.0), tenth=False):
    study = MazeStudy(data=maze_data(name))
    best_tenth = learned_exactly(study, grid([("implicit", 0.95)], [0.0])) if tenth else None
    return compare(study, learned_exactly(study, grid(critics, inverse_temperatures)), best_tenth)


@pytest.fixture(scope="module")
def stitching() -> MazeComparison:
    return compared("stitching", STORY, tenth=True)


@pytest.mark.parametrize(
    ("member", "name"),
    [
        (Member(0, 0.95, 10.0), "iql-0.95"),
        (Member(0, 0.95, 0.0), "bc"),
        (Member(0, 0.5, 10.0, "sarsa"), "sarsa"),
        (Member(0, 0.9, 10.0, "single-q"), "single-q-0.9"),
        (Member(0, 0.9, 10.0, "td"), "td-weighted"),
        (Member(0, 0.9, 0.0, "td"), "bc"),
    ],
)
def test_methods_have_names(member, name):
    assert method_name(member) == name


def test_every_method_has_its_outcome_and_td_acts_greedily_besides(stitching):
    assert sorted(stitching.outcomes) == sorted(
        ["bc", "10%bc", "iql-0.5", "iql-0.95", "sarsa", "single-q-0.9", "td-weighted", "td"]
    )
    assert stitching.outcomes["td"].earned.mean == pytest.approx(stitching.study.best)


def test_perfect_learning_stitches_at_a_high_expectile_and_one_step_does_not(stitching):
    best = stitching.study.best
    assert stitching.best_expectile == 0.95
    assert stitching.outcomes["iql-0.95"].earned.mean > 0.95 * best
    for name in ("iql-0.5", "sarsa", "bc", "10%bc"):
        assert stitching.outcomes[name].earned.mean < 0.1 * best


def test_the_measures_are_json(stitching):
    plain = json.loads(json.dumps(stitching.plain(), allow_nan=False))
    assert plain["v_star_start"] == pytest.approx(0.572, abs=5e-4)
    assert plain["returns"]["iql-0.95"].keys() == {"return", "interval", "sampled_return", "sampled_interval"}
    assert plain["value_error"] == {"0.5": 0, "0.95": 0}
    assert plain["td_overestimate"]["outside_data"] == {"num_actions": 9, "mean": 0, "highest": 0}
    assert plain["single_q_overestimate"]["all_actions"]["mean"] > 0
    assert plain["lucky_choice"] == {}


def test_on_the_lucky_map_single_q_goes_for_the_luck_and_iql_does_not():
    lucky = compared("lucky", [("implicit", 0.95), ("single-q", 0.95)], [10.0])
    assert lucky.lucky_choices["single-q-0.95"].mean > 0.5 > lucky.lucky_choices["iql-0.95"].mean
    assert lucky.outcomes["iql-0.95"].earned.mean > lucky.outcomes["single-q-0.95"].earned.mean
    assert lucky.plain()["td_overestimate"] == {}
