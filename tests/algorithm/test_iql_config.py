"""The hyperparameters refuse what no run can mean; a population is a grid in a fixed order."""

from __future__ import annotations

from typing import Any

import pytest

from iql_ray.algorithm.iql_config import IQLConfig, Member, Population


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expectile", 0.0),
        ("expectile", 1.0),
        ("expectile", float("nan")),
        ("inverse_temperature", -1.0),
        ("inverse_temperature", float("inf")),
        ("discount", 1.0),
        ("discount", -0.1),
        ("target_update_rate", 0.0),
        ("target_update_rate", 1.5),
        ("learning_rate", 0.0),
        ("learning_rate", float("inf")),
        ("dropout_rate", 1.0),
        ("hidden_sizes", ()),
        ("hidden_sizes", (8, 0)),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(field: str, value: Any):
    with pytest.raises(ValueError, match=rf"^{field} = .*: expected"):
        IQLConfig(**{field: value})


def test_the_defaults_are_the_papers():
    config = IQLConfig()
    assert (config.expectile, config.inverse_temperature, config.discount) == (0.7, 3.0, 0.99)
    assert (config.target_update_rate, config.learning_rate, config.hidden_sizes) == (0.005, 3e-4, (256, 256))


def test_members_count_up_their_inverse_temperature_first_and_their_seed_last():
    population = Population(seeds=(0, 1), expectiles=(0.7, 0.9), inverse_temperatures=(1.0, 3.0))
    members = population.members()
    assert members[:3] == [Member(0, 0.7, 1.0), Member(0, 0.7, 3.0), Member(0, 0.9, 1.0)]
    assert members[-1] == Member(1, 0.9, 3.0)


def test_inverse_temperatures_share_the_critic_of_their_seed_and_expectile():
    population = Population(seeds=(0, 1), expectiles=(0.6, 0.7, 0.9), inverse_temperatures=(0.0, 1.0, 3.0, 10.0))
    assert (population.num_critics, population.num_policies) == (6, 24)


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_an_empty_or_repeated_axis_is_refused(seeds: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"seeds = .*: expected one or more different values"):
        Population(seeds=seeds, expectiles=(0.7,), inverse_temperatures=(3.0,))


def test_a_population_refuses_a_bad_expectile_as_a_single_run_does():
    with pytest.raises(ValueError, match=r"expectile = 1.0"):
        Population(seeds=(0,), expectiles=(0.7, 1.0), inverse_temperatures=(3.0,))
