"""Which settings of IQL data suggest, and that they are the paper's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iql_ray import recipes
from iql_ray.data.inspection.settings import FEW_ROWS, Settings
from pipelines import command_line
from pipelines.train import TrainConfig
from tests.data.inspected import LENGTH, clean_columns, inspected, steps_of


def settings_of(folder: Path, columns: dict[str, np.ndarray]) -> Settings:
    return inspected(folder, columns).settings


def values(settings: Settings) -> dict[str, float | str | bool]:
    return {each.setting: each.value for each in settings.suggestions}


def goal_columns(first_success: int, length: int, low: float = 0.0, high: float = 1.0) -> dict[str, np.ndarray]:
    columns = clean_columns(np.full(10, length))
    is_there = steps_of(columns) >= first_success
    return {**columns, "rewards": np.where(is_there, high, low).astype(np.float32)}


def test_dense_rewards_in_many_rows_are_scaled_by_their_returns(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, clean_columns(np.full(FEW_ROWS // LENGTH, LENGTH)))
    assert settings.recipe == "locomotion"
    assert values(settings) == {
        "expectile": 0.7,
        "inverse-temperature": 3.0,
        "reward-scale": "return-range",
        "discount": 0.99,
    }


def test_few_rows_stay_close_to_the_data(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, clean_columns())
    assert settings.recipe == "kitchen_adroit"
    assert values(settings)["inverse-temperature"] == 0.5
    assert values(settings)["dropout-rate"] == 0.1


def test_a_goal_far_away_is_the_papers_antmaze(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, goal_columns(first_success=39, length=40))
    assert settings.recipe == "antmaze"
    assert values(settings) == {
        "expectile": 0.9,
        "inverse-temperature": 10.0,
        "reward-shift": -1.0,
        "discount": 0.99,
    }


@pytest.mark.parametrize(("low", "high", "scale", "shift"), [(-1, 0, None, 0.0), (0, 10, 0.1, -1.0), (2, 4, 0.5, -2.0)])
def test_success_is_worth_nothing_and_a_step_costs_one(
    tmp_path: Path, low: float, high: float, scale: float | None, shift: float
) -> None:
    suggested = values(settings_of(tmp_path, goal_columns(39, 40, low, high)))
    assert (suggested.get("reward-scale"), suggested["reward-shift"]) == (scale, shift)
    factor = 1 if scale is None else scale
    assert (factor * low + shift, factor * high + shift) == (-1, 0)


def test_where_episodes_may_fail_steps_cost_nothing(tmp_path: Path) -> None:
    columns = goal_columns(first_success=39, length=40)
    columns["rewards"][39] = 0
    columns["terminations"][39], columns["truncations"][39] = True, False
    settings = settings_of(tmp_path, columns)
    assert values(settings)["reward-shift"] == 0
    assert "1 episodes terminate without success" in settings.suggestions[2].reason


def test_a_goal_further_than_the_horizon_asks_for_a_higher_discount(tmp_path: Path) -> None:
    assert values(settings_of(tmp_path, goal_columns(399, 400)))["discount"] == 0.995


def test_equal_returns_cannot_be_scaled(tmp_path: Path) -> None:
    columns = clean_columns(np.full(FEW_ROWS // LENGTH, LENGTH))
    settings = settings_of(tmp_path, {**columns, "rewards": np.ones_like(columns["rewards"])})
    assert values(settings)["reward-scale"] == 1.0


def test_large_observations_are_to_be_normalised(tmp_path: Path) -> None:
    columns = clean_columns()
    for name in ("observations", "next_observations"):
        columns[name] *= 1000
    settings = settings_of(tmp_path, columns)
    assert values(settings)["normalize-observations"] is True
    assert "--normalize-observations" in settings.flags()


@pytest.mark.parametrize(
    "columns", [clean_columns(), clean_columns(np.full(FEW_ROWS // LENGTH, LENGTH)), goal_columns(39, 40, 0, 10)]
)
def test_train_takes_every_suggestion_and_the_recipe_says_the_same(
    tmp_path: Path, columns: dict[str, np.ndarray]
) -> None:
    settings = settings_of(tmp_path, columns)
    words = [word for flag in settings.flags() for word in flag.split(" ")]
    config = command_line.parse(TrainConfig, ["--dataset", "d", *words])
    recipe = recipes.recipe(settings.recipe)
    assert config.agent.expectile == recipe["agent"]["expectile"]
    assert config.agent.inverse_temperature == recipe["agent"]["inverse_temperature"]
    assert config.agent.dropout_rate == recipe["agent"].get("dropout_rate", 0)
    assert config.transforms.reward_shift == recipe.get("transforms", {}).get("reward_shift", 0)
