"""Recipes carry the paper's values, and every one of them fits the train configuration."""

from __future__ import annotations

import pytest

from iql_ray import config
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.recipes import RECIPES, recipe
from pipelines import command_line


@pytest.mark.parametrize(
    ("name", "expectile", "inverse_temperature"),
    [("locomotion", 0.7, 3.0), ("antmaze", 0.9, 10.0), ("kitchen_adroit", 0.7, 0.5)],
)
def test_the_papers_expectile_and_inverse_temperature(name, expectile, inverse_temperature):
    assert (
        recipe(name)["agent"].items()
        >= {
            "expectile": expectile,
            "inverse_temperature": inverse_temperature,
        }.items()
    )


def test_what_else_the_paper_changes_per_family():
    assert recipe("locomotion")["transforms"] == {"reward_scale": "return-range"}
    assert recipe("antmaze")["transforms"] == {"reward_shift": -1.0}
    assert recipe("kitchen_adroit")["agent"]["dropout_rate"] == 0.1
    assert "transforms" not in recipe("kitchen_adroit")


def test_the_baselines_imitate():
    assert recipe("bc")["agent"]["inverse_temperature"] == recipe("percent_bc")["agent"]["inverse_temperature"] == 0.0
    assert recipe("percent_bc")["top_episode_share"] == 0.1


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_applies_to_the_train_configuration(name):
    settings = command_line.parse(TrainConfig, ["--dataset", "d", "--recipe", name])
    saved = config.to_dict(settings)
    for key, value in recipe(name).items():
        assert (saved[key].items() >= value.items()) if isinstance(value, dict) else saved[key] == value
    assert settings.recipe == name


def test_an_unknown_recipe_lists_those_there_are():
    with pytest.raises(ValueError, match="unknown recipe 'locomoton'; expected one of: locomotion, antmaze"):
        recipe("locomoton")


def test_changing_what_was_asked_for_changes_no_recipe():
    recipe("locomotion")["agent"]["expectile"] = 0.1
    assert recipe("locomotion")["agent"]["expectile"] == 0.7
