"""The paper's story in learned numbers: the whole comparison as `make maze` runs it, ten seeds, exact returns."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.maze import MazeConfig, maze

BIG_MAZES = ("paper", "stitching")


@pytest.fixture(scope="module")
def result(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return maze(MazeConfig(out=tmp_path_factory.mktemp("maze")))


def share_of_best(result: dict[str, Any], name: str, method: str) -> float:
    return result["returns"][name][method]["return"] / result["v_star_start"][name]


@pytest.mark.slow
@pytest.mark.parametrize("name", BIG_MAZES)
def test_learned_values_are_the_exact_ones_of_the_same_data(result: dict[str, Any], name: str):
    errors = result["value_error"][name]
    assert {expectile: errors[expectile] < 0.05 for expectile in ("0.5", "0.7", "0.9", "0.95")} == dict.fromkeys(
        ("0.5", "0.7", "0.9", "0.95"), True
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", BIG_MAZES)
def test_iql_stitches_and_what_it_is_compared_with_does_not(result: dict[str, Any], name: str):
    best = max(share_of_best(result, name, f"iql-{expectile}") for expectile in ("0.5", "0.7", "0.9", "0.95", "0.99"))
    assert best >= 0.95
    assert share_of_best(result, name, "iql-0.5") < {"paper": 0.05, "stitching": 0.5}[name]
    for method in ("bc", "10%bc"):
        assert share_of_best(result, name, method) < 0.1


@pytest.mark.slow
def test_a_maximum_over_all_actions_believes_what_the_data_never_show(result: dict[str, Any]):
    outside = result["td_overestimate"]["narrow"]["outside_data"]
    assert outside["highest"] > result["v_star_start"]["narrow"]
    assert share_of_best(result, "narrow", "td") < 0.5
    assert share_of_best(result, "narrow", "iql-0.9") >= 0.95


@pytest.mark.slow
def test_single_q_prefers_the_lucky_action_and_iql_does_not(result: dict[str, Any]):
    choices = result["lucky_choice"]["lucky"]
    assert choices["single-q-0.95"]["probability"] > 0.5 > choices["iql-0.95"]["probability"]
    assert share_of_best(result, "lucky", "iql-0.95") >= 0.95
    assert share_of_best(result, "lucky", "single-q-0.95") < 0.7
