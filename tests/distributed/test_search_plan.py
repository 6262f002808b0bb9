"""Which trials a search has, and which of its settings are refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.distributed.search_config import Range, SearchConfig, parse_axis
from iql_ray.distributed.search_plan import (
    TrialSpec,
    data_keys,
    member_config,
    members_per_trial,
    planned_trials,
    sampled_spec,
    trial_config,
)
from iql_ray.evaluation.leaderboard import Configuration

GRID: dict[str, Any] = {"seeds": (0, 1), "expectiles": (0.7, 0.9), "inverse_temperatures": (1.0, 3.0, 10.0)}


def config_of(**settings: Any) -> SearchConfig:
    return SearchConfig(**{"dataset": "d", **GRID, **settings})


def packed(members: int, **settings: Any) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    return [(spec.seeds, spec.expectiles) for spec in planned_trials(config_of(**settings), members)]


@pytest.mark.parametrize(
    ("members", "trials"),
    [
        (12, [((0, 1), (0.7, 0.9))]),
        (11, [((0,), (0.7, 0.9)), ((1,), (0.7, 0.9))]),
        (6, [((0,), (0.7, 0.9)), ((1,), (0.7, 0.9))]),
        (3, [((0,), (0.7,)), ((0,), (0.9,)), ((1,), (0.7,)), ((1,), (0.9,))]),
        (1, [((0,), (0.7,)), ((0,), (0.9,)), ((1,), (0.7,)), ((1,), (0.9,))]),
    ],
)
def test_trials_hold_whole_critics_with_all_their_policies(members: int, trials: list):
    assert packed(members) == trials


def test_a_scheduler_judges_configurations_with_all_their_seeds():
    assert packed(3, scheduler="asha") == [((0, 1), (0.7,)), ((0, 1), (0.9,))]


def test_pbt_changes_the_settings_of_whole_configurations():
    specs = planned_trials(config_of(scheduler="pbt", vary=("agent.discount=0.9,0.99",)), 1)
    assert len(specs) == 12
    assert {(spec.seeds, len(spec.expectiles), len(spec.inverse_temperatures)) for spec in specs} == {((0, 1), 1, 1)}
    sampled = planned_trials(config_of(scheduler="pbt", search="random", num_samples=6), 1)
    assert {spec.num_members for spec in sampled} == {2}
    assert {spec.inverse_temperatures[0] for spec in sampled} <= {1.0, 3.0, 10.0}


def test_pbt_changes_them_ten_times_unless_told():
    assert config_of(scheduler="pbt", num_updates=1000).generations == tuple(range(100, 1000, 100))
    assert config_of(scheduler="pbt", num_updates=10, perturbation_interval_updates=4).generations == (4, 8)
    assert config_of(num_updates=1000).generations == ()


def test_every_member_is_in_one_trial_whatever_the_packing():
    wanted = sorted((seed, tau, beta) for seed in (0, 1) for tau in (0.7, 0.9) for beta in (1.0, 3.0, 10.0))
    for members in range(1, 13):
        found = [
            (seed, tau, beta)
            for spec in planned_trials(config_of(), members)
            for seed in spec.seeds
            for tau in spec.expectiles
            for beta in spec.inverse_temperatures
        ]
        assert sorted(found) == wanted


@pytest.mark.parametrize(
    ("device", "slots", "asked", "members"),
    [("cpu", 1, None, 12), ("cpu", 2, None, 6), ("cpu", 100, None, 1), ("cpu", 2, 5, 5), ("cuda", 1, None, 12)],
)
def test_trials_are_as_large_as_leaves_no_place_empty(device: str, slots: int, asked: int | None, members: int):
    assert members_per_trial(config_of(members_per_trial=asked), device, slots) == members


def test_a_cpu_holds_sixteen_members_and_a_gpu_sixty_four():
    many = config_of(seeds=tuple(range(20)))
    assert (members_per_trial(many, "cpu", 1), members_per_trial(many, "cuda", 1)) == (16, 64)


def test_varied_settings_multiply_the_grid():
    config = config_of(vary=("agent.discount=0.97,0.99", "transforms.reward_shift=-1,0"))
    specs = planned_trials(config, 12)
    assert [dict(spec.varied) for spec in specs] == [
        {"agent.discount": 0.97, "transforms.reward_shift": -1},
        {"agent.discount": 0.97, "transforms.reward_shift": 0},
        {"agent.discount": 0.99, "transforms.reward_shift": -1},
        {"agent.discount": 0.99, "transforms.reward_shift": 0},
    ]
    assert trial_config(config, specs[0]).agent.discount == 0.97
    assert (
        data_keys(config, specs)
        == data_keys(config, [])
        == {(("transforms.reward_shift", -1),), (("transforms.reward_shift", 0),)}
    )
    assert len({spec.name for spec in specs}) == 4


def test_a_trials_name_says_what_is_in_it():
    spec = TrialSpec(seeds=(0,), expectiles=(0.7,), inverse_temperatures=(3.0,))
    assert spec.name == TrialSpec(seeds=(0,), expectiles=(0.7,), inverse_temperatures=(3.0,)).name
    assert spec.name != TrialSpec(seeds=(1,), expectiles=(0.7,), inverse_temperatures=(3.0,)).name


def test_random_samples_bring_all_inverse_temperatures_along_and_are_the_same_again():
    config = config_of(
        search="random",
        num_samples=5,
        expectiles=(),
        expectile_range=(0.5, 0.9),
        vary=("agent.learning_rate=1e-4..1e-2",),
    )
    specs = planned_trials(config, 1)
    assert specs == planned_trials(config, 7)
    assert len(specs) == 5
    for spec in specs:
        assert spec.seeds == (0, 1)
        assert spec.inverse_temperatures == (1.0, 3.0, 10.0)
        assert 0.5 <= spec.expectiles[0] <= 0.9
        assert 1e-4 <= dict(spec.varied)["agent.learning_rate"] <= 1e-2
    assert specs != planned_trials(
        config_of(search="random", num_samples=5, seed=1, expectiles=(), expectile_range=(0.5, 0.9)), 1
    )


def test_sampled_numbers_can_be_written_down():
    config = config_of(search="random", expectiles=(), expectile_range=(0.5, 0.9), vary=("agent.discount=0.98765,0.9",))
    spec = sampled_spec(config, {"expectile": 0.712345678, "agent.discount": 0.98765})
    assert spec.expectiles == (0.7123,)
    assert spec.varied == (("agent.discount", 0.98765),), "what was listed stays as it is"


def test_a_member_alone_is_what_train_takes():
    configuration = Configuration(expectile=0.9, inverse_temperature=10.0, varied=(("agent.discount", 0.97),))
    alone = member_config(config_of(agent=IQLConfig(learning_rate=1e-3)), configuration, seed=1)
    assert alone.agent == IQLConfig(learning_rate=1e-3, expectile=0.9, inverse_temperature=10.0, discount=0.97)
    assert (alone.seed, alone.population.num_policies) == (1, 1)


def test_rungs_grow_by_the_reduction_factor():
    assert config_of(scheduler="asha", num_updates=900).rungs == (225, 450), "half leave at a quarter and at a half"
    assert config_of(scheduler="asha", num_updates=900, reduction_factor=3).rungs == (100, 300)
    assert config_of(scheduler="asha", num_updates=900, first_rung_updates=50, reduction_factor=4).rungs == (
        50,
        200,
        800,
    )
    assert config_of(num_updates=900).rungs == ()
    assert config_of(scheduler="asha", num_updates=20_001).rungs == (5001, 10_002), "none just before the end"
    assert config_of(scheduler="asha", num_updates=20_000, reduction_factor=3).rungs == (2223, 6669)


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("agent.discount=0.97,0.99", (0.97, 0.99)),
        ("transforms.reward_scale=return-range,1", ("return-range", 1)),
        ("agent.learning_rate=1e-4..1e-3", Range(low=1e-4, high=1e-3)),
        ("transforms.normalize_observations=true,false", (True, False)),
        ("agent.hidden_sizes=[64,64],[8]", ((64, 64), (8,))),
    ],
)
def test_a_varied_setting_is_a_list_or_a_range(text: str, axis: Any):
    assert parse_axis(text) == (text.partition("=")[0], axis)


def test_a_range_is_logarithmic_from_a_factor_of_ten():
    assert Range(low=1e-4, high=1e-3).is_logarithmic
    assert not Range(low=0.5, high=0.9).is_logarithmic
    assert not Range(low=-1.0, high=100.0).is_logarithmic


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vary": ("agent.discount",)}, "expected PATH=VALUE,VALUE or PATH=LOW..HIGH"),
        ({"vary": ("agent.expectile=0.5,0.7",)}, "agent.expectile is set by a flag of its own: --expectiles"),
        ({"vary": ("num_updates=1,2",)}, "num_updates is not varied; expected agent.NAME"),
        ({"vary": ("agent.discont=0.9,0.99",)}, "unknown key 'discont'; did you mean 'discount'"),
        ({"vary": ("agent.discount=0.9,1.5",)}, "discount = 1.5: expected a number in"),
        ({"vary": ("agent.discount=0.9,0.9",)}, "a value is there twice"),
        ({"vary": ("agent.discount=0.9,0.95", "agent.discount=0.99,0.97")}, "a setting is named twice"),
        ({"vary": ("agent.discount=0.9..0.99",)}, "a range is sampled from; use --search random or optuna"),
        ({"search": "random", "vary": ("agent.discount=0.99..0.9",)}, "two numbers, the lower one first"),
        ({"search": "random", "vary": ("transforms.reward_shift=-1..0",)}, "a copy of the data to itself"),
        ({"expectile_range": (0.5, 0.9)}, "with --search random or optuna"),
        ({"num_learners": 2, "batch_size": 256}, "a trial is one learner"),
        ({"critics": ("implicit", "sarsa")}, "a search has one kind of critic"),
        ({"extract_updates": 5}, "add --extract after"),
        ({"extract": "after", "scheduler": "asha"}, "before its end there is no policy to judge"),
        ({"critics_from": "run"}, "use iql-ray extract"),
        (
            {"scheduler": "pbt", "vary": ("agent.hidden_sizes=[64],[8]",)},
            "cannot go on with another agent.hidden_sizes",
        ),
        ({"scheduler": "pbt", "vary": ("batch_size=64,128",)}, "cannot go on with another batch_size"),
        ({"scheduler": "pbt", "search": "optuna"}, "both choose settings; use --search grid or random"),
        ({"scheduler": "pbt", "extract": "after"}, "leave --extract after out"),
        ({"scheduler": "pbt", "perturbation_interval_updates": 10, "num_updates": 10}, "fewer than num_updates = 10"),
        ({"eval_method": "none"}, "a search ranks by evaluation"),
        ({"eval_method": "rollouts"}, "needs an environment"),
        ({"reduction_factor": 1}, "expected 2 or more"),
        ({"gpus_per_trial": 1.5}, "expected a share in (0, 1]"),
        ({"members_per_trial": 0}, "members_per_trial = 0: expected 1 or more"),
    ],
)
def test_a_search_that_cannot_be_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        config_of(**settings)
