"""Candidate against champion: paired where they share seeds, and a gate that takes the lower bound alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from iql_ray.algorithm.fqe_config import FQEConfig
from iql_ray.evaluation.comparison import (
    Gate,
    Protocol,
    compare_episodes,
    compare_values,
    fqe_protocol,
    rollout_protocol,
)
from iql_ray.evaluation.fqe import FittedQEvaluator
from iql_ray.evaluation.logged_episodes import read_episodes
from iql_ray.experience import EpisodeResult
from tests.evaluation.fqe_examples import constant_policy, narrow_columns, prepared

PROTOCOL = rollout_protocol("Pen-v1", 40, 0, 0.0)


def episodes(returns) -> list[EpisodeResult]:
    return [EpisodeResult(seed=seed, episode_return=float(value), length=1) for seed, value in enumerate(returns)]


def test_what_a_start_is_worth_falls_out_of_a_paired_difference():
    """Starts are worth up to 1000; the candidate earns one more from each of them, and that is certain."""
    starts = np.linspace(0, 1000, 40)
    comparison = compare_episodes(PROTOCOL, episodes(starts + 1), episodes(starts))
    assert comparison.difference == pytest.approx(1.0)
    assert comparison.difference_ci == pytest.approx((1.0, 1.0))
    assert comparison.score_ci[1] - comparison.score_ci[0] > 100
    assert Gate().passes(comparison)[0]


def test_equal_policies_do_not_replace_each_other():
    comparison = compare_episodes(PROTOCOL, episodes(range(40)), episodes(range(40)))
    assert comparison.difference_ci == (0.0, 0.0)
    assert Gate().passes(comparison) == (False, "the paired difference's lower bound (0) is not above the margin (0)")


def test_a_better_mean_alone_is_not_enough():
    """Plus 10 in half of the episodes and minus 9 in the others: 0.5 better on average, and nobody knows."""
    comparison = compare_episodes(PROTOCOL, episodes([10, -9] * 20), episodes([0] * 40))
    assert comparison.difference == 0.5
    assert not Gate().passes(comparison)[0]


def test_different_seeds_are_refused():
    with pytest.raises(ValueError, match="different seeds"):
        compare_episodes(PROTOCOL, episodes([1, 2]), episodes([1, 2])[::-1])


def test_few_episodes_are_warned_of():
    assert [each["kind"] for each in compare_episodes(PROTOCOL, episodes([1, 2]), None).warnings] == ["few-episodes"]
    assert compare_episodes(PROTOCOL, episodes(range(20)), None).warnings == ()


def test_the_hash_of_a_protocol_changes_with_everything_in_it():
    protocol = Protocol(method="rollouts", environment="Pen-v1", num_episodes=10)
    changed = [
        replace(protocol, environment="Pen-v2"),
        replace(protocol, num_episodes=11),
        replace(protocol, seed=1),
        replace(protocol, temperature=0.5),
        replace(protocol, settings={"group_width": 9}),
        fqe_protocol("abc", FQEConfig(), 0.99, 0, 0.0),
        fqe_protocol("abc", FQEConfig(fqe_updates=3), 0.99, 0, 0.0),
    ]
    assert len({protocol.sha256, *(each.sha256 for each in changed)}) == 8
    assert protocol.sha256 == replace(protocol).sha256


def test_values_fitted_to_the_same_data_are_paired(tmp_path):
    """A policy against itself: the difference is nothing, however wide the values' own intervals are."""
    config = FQEConfig(fqe_updates=40, fqe_hidden_sizes=(8,), fqe_batch_size=32)
    logged = read_episodes(prepared(tmp_path / "data", narrow_columns()), held_out_share=0.2, max_rows=1000, seed=0)
    evaluator = FittedQEvaluator(logged, config, discount=0.5)
    usual, far = (evaluator.judge(constant_policy(action)) for action in (0.0, 0.9))
    protocol = fqe_protocol(logged.manifest.digest, config, 0.5, 0, 0.0)
    same = compare_values(protocol, usual, usual)
    assert same.difference_ci == (0.0, 0.0)
    assert same.score_ci[0] < same.score < same.score_ci[1]
    other = compare_values(protocol, usual, far)
    assert other.difference == pytest.approx(usual[0]["value"] - far[0]["value"], abs=1e-5)
    messages = [each["message"] for each in other.warnings if each["kind"] == "actions-far-from-data"]
    assert messages
    assert messages[0].startswith("of the champion: ")
