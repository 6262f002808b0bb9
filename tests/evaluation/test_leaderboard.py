"""Configurations are ranked by numbers that a reader can check by hand."""

from __future__ import annotations

import json

import pytest

from iql_ray.evaluation.leaderboard import MemberScore, are_comparable, rank, to_json
from tests.evaluation.search_scores import EARLY, FULL, configuration, evaluated, fitted, grid

LOW, MIDDLE, HIGH = configuration(0.5), configuration(0.7), configuration(0.9)


def order(scores) -> list[float]:
    return [standing.configuration.expectile for standing in rank(scores)]


def test_the_interquartile_mean_over_seeds_ranks():
    # One lucky seed lifts the mean of LOW above that of HIGH, not its middle half: (1 + 1) / 2 against (2 + 2) / 2.
    first, second = rank([*fitted(LOW, 1, 1, 1, 100), *fitted(HIGH, 2, 2, 2, 2)])
    assert (first.configuration, first.iqm, first.mean, first.num_seeds) == (HIGH, 2.0, 2.0, 4)
    assert (second.configuration, second.iqm, second.mean) == (LOW, 1.0, 25.75)
    assert (first.rank, second.rank) == (1, 2)
    assert second.scores == {0: 1, 1: 1, 2: 1, 3: 100}


def test_stopped_ones_come_after_all_others_and_by_how_far_they_came():
    scores = [
        *fitted(LOW, 1),
        *fitted(MIDDLE, 90, is_stopped=True, num_updates=10_000),
        *fitted(HIGH, 50, is_stopped=True, num_updates=20_000),
        *fitted(configuration(0.95), 60, is_stopped=True, num_updates=20_000),
    ]
    assert order(scores) == [0.5, 0.95, 0.9, 0.7]


def test_only_the_seeds_that_came_furthest_count():
    stopped = MemberScore(
        configuration=HIGH, seed=2, num_updates=EARLY, score=-50, interval=(-50, -50), is_stopped=True
    )
    (standing,) = rank([*fitted(HIGH, 10, 20), stopped])
    assert (standing.iqm, standing.num_seeds, standing.num_left_out) == (15.0, 2, 1)
    assert (standing.num_updates, standing.is_stopped) == (FULL, False)


def test_equals_are_ordered_by_lower_settings():
    tied = [configuration(0.9, 1.0), configuration(0.7, 3.0), configuration(0.7, 0.5), configuration(0.7, 10.0)]
    standings = rank([score for each in tied for score in fitted(each, 5.0)])
    places = [(each.configuration.expectile, each.configuration.inverse_temperature) for each in standings]
    assert places == [(0.7, 0.5), (0.7, 3.0), (0.7, 10.0), (0.9, 1.0)]


def test_the_order_of_the_scores_does_not_matter():
    scores = grid((0.5, 0.7, 0.9), (1, 3), num_seeds=3)
    assert rank(scores) == rank(scores[::-1])


def test_one_seed_has_the_interval_of_its_evaluation():
    (standing,) = rank(fitted(LOW, 5.0))
    assert standing.interval == (4.0, 6.0)
    assert not standing.is_over_seeds


def test_several_seeds_have_an_interval_over_them():
    (standing,) = rank(fitted(LOW, 0.0, 10.0))
    assert standing.interval == (0.0, 10.0)
    assert standing.is_over_seeds


def test_the_interval_knows_of_the_episodes_within_seeds():
    # Two seeds of one mean, so that over seeds alone nothing is left to chance.
    certain = rank([evaluated(LOW, [5.0] * 10, seed=seed) for seed in (0, 1)])[0]
    noisy = rank([evaluated(LOW, [0.0, 10.0] * 5, seed=seed) for seed in (0, 1)])[0]
    assert certain.interval == (5.0, 5.0)
    assert noisy.interval[0] < 4.0 < 6.0 < noisy.interval[1]


def test_improvement_is_over_pairs_of_seeds():
    # 4 beats 1, 2 and 3; 2 beats 1 and ties with 2: 4.5 of 6.
    first, second = rank([*fitted(HIGH, 4, 2), *fitted(LOW, 1, 2, 3)])
    assert first.probability_of_improvement is not None
    assert first.probability_of_improvement.probability == pytest.approx(4.5 / 6)
    assert first.pairs_of == "seeds"
    assert (second.probability_of_improvement, second.pairs_of) == (None, None)


def test_improvement_of_one_seed_each_is_over_pairs_of_episodes():
    first, _ = rank([evaluated(HIGH, [4.0, 2.0]), evaluated(LOW, [1.0, 2.0, 3.0])])
    assert first.probability_of_improvement is not None
    assert first.probability_of_improvement.probability == pytest.approx(4.5 / 6)
    assert first.pairs_of == "episodes"


def test_one_seed_each_without_episodes_has_no_improvement():
    assert rank([*fitted(HIGH, 4), *fitted(LOW, 1)])[0].probability_of_improvement is None


def test_what_was_trained_for_less_is_not_compared():
    first, second = rank([*fitted(LOW, 4, 5), *fitted(HIGH, 9, 9, is_stopped=True)])
    assert first.probability_of_improvement is None
    assert not are_comparable(first, second)


def test_the_label_says_the_settings_in_words():
    assert configuration(0.7, 3.0, discount=0.97).label == "expectile 0.7, inverse temperature 3, discount 0.97"
    assert configuration(hidden_sizes=(64, 64)).label.endswith(", hidden sizes 64 x 64")


def test_names_that_end_alike_are_told_apart():
    twice = (("agent.discount", 0.9), ("fqe.discount", 0.99))
    assert type(LOW)(expectile=0.5, inverse_temperature=1.0, varied=twice).label.endswith(
        "agent discount 0.9, fqe discount 0.99"
    )


def test_the_leaderboard_is_plain_json():
    scores = [*fitted(configuration(0.7, hidden_sizes=(64, 64)), 1, 2), *fitted(configuration(0.9, hidden_sizes=8), 3)]
    plain = to_json(rank(scores))
    assert json.loads(json.dumps(plain)) == plain
    assert [each["varied"] for each in plain] == [{"agent.hidden_sizes": 8}, {"agent.hidden_sizes": [64, 64]}]
    assert plain[0]["probability_of_improvement"]["probability"] == 1.0
    assert plain[1]["probability_of_improvement"] is None
    assert plain[1]["scores"] == {"0": 1, "1": 2}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "at least one member, got none"),
        (fitted(LOW, 1) * 2, r"expectile 0\.5, inverse temperature 3, seed 0: got 2 scores"),
        ([*fitted(LOW, 1), *fitted(configuration(discount=0.9), 1)], "expected the same settings"),
    ],
)
def test_scores_that_make_no_leaderboard_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        rank(scores)


def test_scores_that_are_not_finite_or_not_the_mean_are_refused():
    with pytest.raises(ValueError, match=r"expectile 0\.5, inverse temperature 3, seed 0: score is nan"):
        fitted(LOW, float("nan"))
    with pytest.raises(ValueError, match=r"returns is .* expected finite numbers"):
        MemberScore(configuration=LOW, seed=0, num_updates=1, score=1.0, interval=(0, 2), returns=(1.0, float("inf")))
    with pytest.raises(ValueError, match=r"score is 1\.0, expected the returns' mean 2\.0"):
        MemberScore(configuration=LOW, seed=0, num_updates=1, score=1.0, interval=(0, 2), returns=(1.0, 3.0))


def test_settings_that_cannot_be_hashed_are_refused():
    with pytest.raises(ValueError, match="tuples for lists"):
        configuration(hidden_sizes=[64, 64])
