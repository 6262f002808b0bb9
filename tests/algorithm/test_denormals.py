"""Subnormal numbers are 0 within, and what they were before afterwards."""

from __future__ import annotations

import pytest
import torch

from iql_ray.algorithm.denormals import are_denormals_flushed, flushed_denormals


def subnormal_product() -> float:
    """1e-40 in float32, whose smallest normal number is 1.2e-38."""
    return float(torch.tensor(1e-30) * 1e-10)


def test_within_a_subnormal_result_is_0_and_afterwards_it_is_not() -> None:
    with flushed_denormals():
        assert are_denormals_flushed()
        assert subnormal_product() == 0.0
    assert not are_denormals_flushed()
    assert subnormal_product() > 0.0


def test_an_error_gives_the_mode_back() -> None:
    def fail() -> None:
        with flushed_denormals():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert subnormal_product() > 0.0


def test_nested_use_keeps_the_outer_one() -> None:
    with flushed_denormals():
        with flushed_denormals():
            pass
        assert are_denormals_flushed()
