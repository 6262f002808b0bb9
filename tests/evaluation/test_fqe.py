"""The verdict from data alone: exact values of a small maze, what is never trained on, and when not to trust it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iql_ray.algorithm.fqe import ValueScale
from iql_ray.algorithm.fqe_config import FQEConfig
from iql_ray.envs.maze_map import DISCOUNT, tabular_model
from iql_ray.envs.tabular import action_values, greedy_policy, optimal_values, policy_values
from iql_ray.envs.umaze_data import MazeData, maze_data
from iql_ray.evaluation.fqe import FittedQEvaluator, fitted_evaluation
from iql_ray.evaluation.fqe_warnings import warnings_of
from iql_ray.evaluation.logged_episodes import LoggedEpisodes
from iql_ray.policy import Policy
from tests.distributed.examples import tiny_columns
from tests.evaluation.fqe_examples import (
    SHORT,
    constant_policy,
    logged,
    narrow_columns,
    prepared,
    prepared_maze,
    tabular_policy,
)
from tests.evaluation.toys import random_policy, zero_policy

MAZE_BUDGET = FQEConfig(fqe_updates=800, fqe_batch_size=128, fqe_hidden_sizes=(32, 32), fqe_target_rate=0.1)


@pytest.fixture(scope="module")
def lucky() -> MazeData:
    """300 episodes of uniformly random moves in a maze of seven cells."""
    return maze_data("lucky")


@pytest.fixture(scope="module")
def on_lucky(lucky: MazeData, tmp_path_factory: pytest.TempPathFactory) -> FittedQEvaluator:
    dataset = prepared_maze(tmp_path_factory.mktemp("lucky"), lucky)
    return FittedQEvaluator(logged(dataset), MAZE_BUDGET, discount=DISCOUNT)


@pytest.fixture
def narrow(tmp_path: Path) -> LoggedEpisodes:
    return logged(prepared(tmp_path, narrow_columns()))


def exact(data: MazeData, policy: np.ndarray) -> float:
    return float(policy_values(tabular_model(data.maze), policy)[data.maze.start_state])


def best_policy(data: MazeData) -> np.ndarray:
    model = tabular_model(data.maze)
    return greedy_policy(action_values(model, optimal_values(model)))


def test_the_best_policy_of_the_maze_is_worth_what_the_exact_solution_says(lucky, on_lucky):
    best = best_policy(lucky)
    verdict = on_lucky.evaluate(tabular_policy(best), temperature=1.0)
    assert exact(lucky, best) == pytest.approx(7.372, abs=1e-3)
    assert verdict["value"] == pytest.approx(7.372, abs=0.25)
    assert verdict["value_ci"][0] < 7.372 < verdict["value_ci"][1]
    assert verdict["improvement_ci"][0] > 0
    assert (verdict["num_episodes"], verdict["num_training_episodes"]) == (60, 240)
    assert (verdict["discount"], verdict["temperature"]) == (DISCOUNT, 1.0)
    assert (verdict["truncated_share"], verdict["truncated_weight"]) == (0.0, 0.0)


def test_the_datas_own_policy_is_worth_what_its_episodes_returned_and_warns_of_nothing(lucky, on_lucky):
    uniform = np.full((lucky.maze.num_states, 4), 0.25)
    verdict = on_lucky.evaluate(tabular_policy(uniform), temperature=1.0)
    assert verdict["value"] == pytest.approx(exact(lucky, uniform), abs=0.25)
    assert verdict["behaviour_value"] == pytest.approx(verdict["logged_return"], abs=0.25)
    assert verdict["logged_return"] == pytest.approx(lucky.returns(DISCOUNT).mean())
    assert verdict["improvement_ci"][0] < 0 < verdict["improvement_ci"][1]
    assert verdict["warnings"] == []


def test_held_out_episodes_are_never_trained_on(narrow: LoggedEpisodes):
    """Their rewards, ends and next observations may be anything; only where they begin counts."""
    is_held_out = narrow.is_held_out[narrow.episodes]
    changed = replace(
        narrow,
        rewards=np.where(is_held_out, 1e6, narrow.rewards).astype(np.float32),
        next_observations=np.where(is_held_out[:, None], -7.0, narrow.next_observations).astype(np.float32),
    )
    first, second = (
        FittedQEvaluator(each, SHORT, discount=0.9).evaluate(constant_policy(0.05)) for each in (narrow, changed)
    )
    same = ("value", "value_ci", "behaviour_value", "improvement", "drift", "disagreement")
    assert {name: first[name] for name in same} == {name: second[name] for name in same}
    assert first["logged_return"] != second["logged_return"]


def test_equal_seeds_give_equal_verdicts_and_others_do_not(narrow: LoggedEpisodes):
    first, again, other = (
        FittedQEvaluator(narrow, SHORT, discount=0.9, seed=seed).evaluate(random_policy()) for seed in (0, 0, 1)
    )
    assert first == again
    assert first["value"] != other["value"]


def test_a_verdict_does_not_depend_on_those_before_it(narrow: LoggedEpisodes):
    evaluator = FittedQEvaluator(narrow, SHORT, discount=0.9)
    evaluator.evaluate(random_policy(seed=1))
    assert evaluator.evaluate(random_policy()) == FittedQEvaluator(narrow, SHORT, discount=0.9).evaluate(
        random_policy()
    )


def test_rewards_of_one_for_ever_are_worth_the_geometric_sum(narrow: LoggedEpisodes):
    """Every episode is cut after ten steps: 6.5 as logged at discount 0.9, a weight of 0.35 missing; really 10."""
    budget = replace(SHORT, fqe_updates=400, fqe_learning_rate=1e-2)
    verdict = FittedQEvaluator(narrow, budget, discount=0.9).evaluate(constant_policy(0.0))
    assert verdict["value"] == pytest.approx(10.0, abs=0.3)
    assert verdict["behaviour_value"] == pytest.approx(10.0, abs=0.3)
    assert verdict["logged_return"] == pytest.approx((1 - 0.9**10) / 0.1, abs=1e-4)
    assert verdict["truncated_share"] == 1.0
    assert verdict["truncated_weight"] == pytest.approx(0.9**10)


def test_actions_far_from_the_datas_are_warned_of_and_usual_ones_are_not(narrow: LoggedEpisodes):
    evaluator = FittedQEvaluator(narrow, SHORT, discount=0.0)
    far, usual = (evaluator.evaluate(constant_policy(action)) for action in (0.9, 0.0))
    assert far["policy_unsupported_share"] == 1.0
    assert "actions-far-from-data" in [each["kind"] for each in far["warnings"]]
    assert usual["policy_unsupported_share"] < 0.1
    assert "actions-far-from-data" not in [each["kind"] for each in usual["warnings"]]


def test_choices_that_the_data_never_made_are_warned_of(tmp_path: Path):
    """The narrow maze shows one action in each cell: any other is made up."""
    data = maze_data("narrow")
    evaluator = FittedQEvaluator(logged(prepared_maze(tmp_path, data)), SHORT, discount=DISCOUNT)
    best = best_policy(data)
    usual, other = (evaluator.evaluate(tabular_policy(each), 1.0) for each in (best, np.roll(best, 1, axis=1)))
    assert usual["policy_unsupported_share"] < 0.05
    assert other["policy_unsupported_share"] > 0.8
    assert "actions-far-from-data" in [each["kind"] for each in other["warnings"]]


def test_a_drawing_box_policy_is_judged_by_its_draws(narrow: LoggedEpisodes):
    evaluator = FittedQEvaluator(narrow, SHORT, discount=0.5)
    still, drawing = (evaluator.evaluate(constant_policy(0.0), temperature) for temperature in (0.0, 1.0))
    assert drawing["policy_unsupported_share"] > 0.5 > still["policy_unsupported_share"]
    assert drawing["value"] != still["value"]


FINE = {
    "policy_unsupported_share": 0.05,
    "data_unsupported_share": 0.05,
    "disagreement": 0.1,
    "out_of_range_share": 0.0,
    "drift": 0.01,
    "remaining_share": 0.01,
    "discount": 0.99,
    "num_episodes": 50,
}


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, []),
        ({"policy_unsupported_share": 0.3}, ["actions-far-from-data"]),
        ({"policy_unsupported_share": 0.3, "data_unsupported_share": 0.2}, []),
        ({"disagreement": 0.6}, ["high-disagreement"]),
        ({"out_of_range_share": 0.2}, ["diverged"]),
        ({"drift": 0.2}, ["not-settled"]),
        ({"remaining_share": 0.2}, ["not-settled"]),
        ({"num_episodes": 5}, ["few-held-out-episodes"]),
    ],
)
def test_each_number_has_its_warning(changes: dict, kinds: list[str]):
    scale = ValueScale(center=0.0, spread=1.0, low=-1.0, high=1.0)
    assert [each["kind"] for each in warnings_of({**FINE, **changes}, scale)] == kinds


def test_a_policy_of_other_spaces_is_refused(narrow: LoggedEpisodes):
    evaluator = FittedQEvaluator(narrow, SHORT, discount=0.9)
    strangers: list[Policy] = [
        zero_policy(3, 1), zero_policy(2, 2), zero_policy(2, 1, bound=2.0), tabular_policy(np.ones((2, 3)) / 3)
    ]  # fmt: skip
    for stranger in strangers:
        with pytest.raises(ValueError, match="give data of the policy's own kind"):
            evaluator.evaluate(stranger)


def test_a_discount_of_one_is_refused(narrow: LoggedEpisodes):
    with pytest.raises(ValueError, match=r"discount is 1.0, expected a number in \[0, 1\)"):
        FittedQEvaluator(narrow, SHORT, discount=1.0)


def test_episodes_of_one_cut_step_have_no_next_action_and_still_a_verdict(tmp_path: Path):
    columns = tiny_columns(40)
    columns |= {"terminations": np.zeros(40, bool), "truncations": np.ones(40, bool)}
    verdict = FittedQEvaluator(logged(prepared(tmp_path, columns)), SHORT, discount=0.5).evaluate(random_policy())
    assert np.isfinite([verdict["value"], verdict["behaviour_value"]]).all()


def test_a_training_runs_record_ranks_by_the_value(tmp_path: Path):
    dataset = prepared(tmp_path, narrow_columns())
    summary = fitted_evaluation(dataset, SHORT, 0.9, seed=0)(random_policy())
    assert summary["method"] == "fqe"
    assert (summary["return_mean"], summary["return_ci"]) == (summary["value"], summary["value_ci"])
    assert summary["num_episodes"] == 12
