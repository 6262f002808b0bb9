"""What the settings of a trial were along its way, the others' parts of it included."""

from __future__ import annotations

from iql_ray.evaluation.leaderboard import Configuration, MemberScore, rank
from iql_ray.evaluation.schedules import (
    Change,
    Stretch,
    TrialSchedule,
    in_words,
    lineage,
    num_settings,
    to_json,
    verdict,
)

A, B, C, D = ({"expectile": tau, "inverse_temperature": 3.0} for tau in (0.5, 0.7, 0.8, 0.9))


def test_a_trial_that_took_another_over_has_that_ones_past():
    schedules = {
        "1": TrialSchedule(first=A, changes=(Change(num_updates=20, source="2", settings=C),)),
        "2": TrialSchedule(first=B, changes=(Change(num_updates=30, source="1", settings=D),)),
    }
    past = lineage(schedules, "1")
    assert [(each.num_updates, each.trial, each.settings) for each in past] == [(0, "2", B), (20, "1", C)]
    past = lineage(schedules, "2")
    assert [(each.num_updates, each.trial, each.settings) for each in past] == [(0, "2", B), (20, "1", C), (30, "2", D)]


def test_what_was_decided_at_the_same_time_comes_after():
    """Trial 2 is taken over as it stood, not as what it became at that very moment."""
    schedules = {
        "1": TrialSchedule(first=A, changes=(Change(num_updates=20, source="2", settings=C),)),
        "2": TrialSchedule(first=B, changes=(Change(num_updates=20, source="3", settings=D),)),
        "3": TrialSchedule(first=D),
    }
    assert [each.settings for each in lineage(schedules, "1")] == [B, C]


def test_settings_hold_until_the_next_change():
    schedule = TrialSchedule(first=A, changes=(Change(num_updates=20, source="2", settings=C),))
    assert [schedule.settings_after(count) for count in (0, 19, 20, 90)] == [A, A, C, C]


STRETCHES = (Stretch(num_updates=0, trial="2", settings=B), Stretch(num_updates=2000, trial="1", settings=D))


def test_in_words_only_what_changed_is_said_again():
    words = "expectile 0.7, inverse temperature 3; from 2,000 updates on expectile 0.9"
    assert in_words(STRETCHES) == words
    assert num_settings(STRETCHES) == 2
    assert num_settings((STRETCHES[0], Stretch(num_updates=9, trial="1", settings=B))) == 1
    assert to_json(STRETCHES)[1] == {"num_updates": 2000, "trial": "1", "settings": D}


def test_the_verdict_says_that_it_is_no_single_configuration():
    scores = [
        MemberScore(
            configuration=Configuration(expectile=tau, inverse_temperature=3.0, varied=(("trial", number),)),
            seed=seed,
            num_updates=4000,
            score=tau,
            interval=(0.0, 1.0),
        )
        for number, tau in ((1, 0.9), (2, 0.7))
        for seed in (0, 1)
    ]
    text = verdict(rank(scores), STRETCHES)
    assert text.startswith("Trial 1, the best of 2 of population based training, scores 0.900")
    assert "with expectile 0.9, inverse temperature 3 at its end." in text
    assert "a schedule, not of one configuration: expectile 0.7, inverse temperature 3; from 2,000 updates on" in text
    assert "nothing here settles" in text
    constant = verdict(rank(scores), STRETCHES[:1])
    assert "the same from its first update on" in constant
    assert "schedule" not in constant
