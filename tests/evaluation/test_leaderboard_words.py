"""The verdict claims as much as the seeds can carry, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from iql_ray.evaluation.leaderboard import rank
from iql_ray.evaluation.leaderboard_words import decimal, is_settled, num_decimals, verdict, with_interval
from tests.evaluation.search_scores import configuration, evaluated, fitted

LOW, HIGH = configuration(0.5), configuration(0.9)


def said(*scores) -> str:
    return verdict(rank([score for some in scores for score in some]))


def test_four_seeds_against_four_that_are_all_worse_settle_it():
    text = said(fitted(HIGH, 70, 71, 72, 73), fitted(LOW, 50, 51, 52, 53))
    assert text.startswith("Expectile 0.9 with inverse temperature 3 scores 71.5 [70.0, 73.0] over 4 seeds. ")
    assert "beats the next best (expectile 0.5 with inverse temperature 3: 51.5 " in text
    assert text.endswith("with probability 1.00 [1.00, 1.00], which is more than chance explains: between these two, "
                         "the choice is settled.")  # fmt: skip


def test_three_seeds_never_settle_it():
    text = said(fitted(HIGH, 70, 71, 72), fitted(LOW, 50, 51, 52))
    assert "so the choice between these two is not settled: four or more seeds of each would tell." in text


def test_seeds_that_overlap_ask_for_more_and_warn_of_luck():
    text = said(fitted(HIGH, 70, 60, 72, 58), fitted(LOW, 50, 71, 59, 61))
    assert "not settled: more seeds would tell." in text
    assert "The interval of one other overlaps with its own, and the best of 2 is partly the luckiest" in text


def test_one_seed_leaves_it_open():
    with_episodes = said([evaluated(HIGH, [4.0, 2.0])], [evaluated(LOW, [1.0, 2.0, 3.0])])
    assert "with probability 0.75" in with_episodes
    assert "over pairs of episodes. One seed cannot tell" in with_episodes
    without = said(fitted(HIGH, 4), fitted(LOW, 1))
    assert "The next best is expectile 0.5 with inverse temperature 3: 1.00 [0.00, 2.00] with one seed." in without
    assert "One seed cannot tell" in without


def test_many_episodes_of_one_seed_do_not_settle_it():
    best, following = rank([evaluated(HIGH, np.arange(100.0, 200.0).tolist()), evaluated(LOW, [1.0] * 100)])
    assert best.probability_of_improvement is not None
    assert best.probability_of_improvement.low == 1.0
    assert not is_settled(best, following)


def test_a_single_configuration_is_compared_with_nothing():
    assert said(fitted(HIGH, 4, 5)).endswith("Nothing else was tried, so there is nothing to compare it with.")


def test_stopped_rivals_are_named():
    stopped = fitted(LOW, 1, 2, is_stopped=True)
    alone = said(fitted(HIGH, 4, 5), stopped)
    assert alone.endswith("It alone ran in full; one was stopped early, on early scores, which can mislead.")
    among = said(fitted(HIGH, 4, 5), fitted(configuration(0.7), 1, 1), stopped)
    assert "2 configurations ran in full; one was stopped early" in among


def test_where_all_were_stopped_it_says_so():
    text = said(fitted(HIGH, 4, 5, is_stopped=True), fitted(LOW, 9, is_stopped=True, num_updates=5))
    assert "over 2 seeds after 20,000 updates. No configuration ran the full number" in text
    assert "beats" not in text


def test_seeds_that_were_stopped_are_owned_up_to():
    left_out = fitted(HIGH, 0, 0, 1, is_stopped=True)[2:]
    assert "One more seed of it was stopped early and not counted, which flatters it." in said(
        fitted(HIGH, 4, 5), left_out
    )


def test_equal_configurations_are_rarely_called_different():
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(100, 2, 6))
    settled = [is_settled(*rank([*fitted(LOW, *first), *fitted(HIGH, *second)])) for first, second in draws]
    assert np.mean(settled) <= 0.08


def test_a_verdict_needs_a_standing():
    with pytest.raises(ValueError, match="at least one standing"):
        verdict([])


def test_numbers_have_the_digits_that_matter():
    assert with_interval(71.23, (68.0, 74.11)) == "71.2 [68.0, 74.1]"
    assert (
        with_interval(-1234.5, (-1300.0, -1100.0)) == "\N{MINUS SIGN}1,234 [\N{MINUS SIGN}1,300, \N{MINUS SIGN}1,100]"
    )
    assert with_interval(150.31, (150.25, 150.37)) == "150.31 [150.25, 150.37]"
    assert decimal(-0.001, 2) == "0.00"
    assert num_decimals([0.0, 0.0]) == 0


def test_configurations_that_score_the_same_are_not_told_apart():
    tied = [fitted(configuration(expectile), 10.0, 10.0) for expectile in (0.7, 0.9)]
    words = verdict(rank([score for each in tied for score in each]))
    assert "Another (expectile 0.9 with inverse temperature 3) scores exactly the same" in words
    assert "luckiest" not in words
    three = [*tied, fitted(configuration(0.8), 10.0, 10.0)]
    assert "2 others score exactly the same" in verdict(rank([score for each in three for score in each]))
