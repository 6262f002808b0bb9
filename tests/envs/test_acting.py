"""Acting side by side: noise drawn ahead is the noise drawn one by one, and every row has its own."""

from __future__ import annotations

import numpy as np
import pytest

from iql_ray.envs.acting import GROUP_WIDTH, Explorer, RowNoise, success_after
from tests.evaluation.toys import random_policy


def generators(*rows: int) -> dict[int, np.random.Generator]:
    return {row: np.random.default_rng(row) for row in rows}


@pytest.mark.parametrize("method", ["standard_normal", "random"])
def test_noise_drawn_ahead_is_the_noise_drawn_one_by_one(method):
    sources = [generators(0, 2), generators(0, 2)]
    noises = [RowNoise(source, num_ahead) for source, num_ahead in zip(sources, (1, 5), strict=True)]
    arguments = {"standard_normal": ((4, 3), np.float32), "random": ((4, 3),)}[method]
    for _ in range(5):
        one, other = (getattr(noise, method)(*arguments) for noise in noises)
        np.testing.assert_array_equal(one, other)
        assert (one[[1, 3]] == 0).all()
        assert (one[[0, 2]] != 0).all()
    for row in (0, 2):
        assert sources[0][row].bit_generator.state == sources[1][row].bit_generator.state


def test_an_environment_acts_the_same_alone_in_a_group_and_across_groups():
    policy, observations = random_policy(), np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)

    def actions(*numbers: int) -> np.ndarray:
        explorer = Explorer(policy, generators(*numbers), temperature=1.0, epsilon=0.0, num_steps=1)
        return explorer.act(observations[list(numbers)])

    whole = actions(*range(12))
    assert whole.shape == (12, 1)
    for numbers in ([3], [6, 7, 8, 9], range(GROUP_WIDTH), [11, 2]):
        np.testing.assert_array_equal(actions(*numbers), whole[list(numbers)])


def test_success_is_that_of_the_first_key_and_stays():
    assert success_after(None, {}) is None
    assert success_after(None, {"is_success": False}) is False
    assert success_after(True, {"is_success": False}) is True
    assert success_after(False, {"success": True, "is_success": False}) is True
