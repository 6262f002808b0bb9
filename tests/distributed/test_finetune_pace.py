"""The arithmetic of updates and environment steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iql_ray.distributed.finetune_pace import Pace, crossed, next_multiple


def pace(ratio: float = 1.0, initial: int = 0, total: int = 1000) -> Pace:
    return Pace(updates_per_env_step=ratio, num_initial_env_steps=initial, num_env_steps=total)


def test_one_update_is_owed_for_each_step_beyond_the_initial_ones() -> None:
    assert pace(initial=10).owed(10, 0) == 0
    assert pace(initial=10).owed(13, 1) == 2


def test_a_tenth_of_an_update_a_step_is_owed_at_the_tenth_step_and_the_thirtieth() -> None:
    assert [pace(ratio=0.1).owed(steps, 0) for steps in (9, 10, 19, 30)] == [0, 1, 1, 3]


def test_steps_are_settled_when_their_updates_are_done() -> None:
    assert pace(initial=10).settled(num_taken_in=5, num_updates=0) == 5
    assert pace(initial=10).settled(num_taken_in=20, num_updates=4) == 14
    assert pace(initial=10).settled(num_taken_in=20, num_updates=10) == 20


def test_nobody_is_asked_beyond_the_lead_or_the_end() -> None:
    assert pace().may_ask(num_asked=15, num_updates=0, lead=16)
    assert not pace().may_ask(num_asked=16, num_updates=0, lead=16)
    assert not pace(total=20).may_ask(num_asked=20, num_updates=20, lead=16)


@given(ratio=st.sampled_from([0.05, 0.3, 1.0, 2.0, 3.7]), initial=st.integers(0, 50), steps=st.integers(0, 500))
def test_doing_all_that_is_owed_settles_every_step(ratio: float, initial: int, steps: int) -> None:
    made = pace(ratio, initial)
    done = made.owed(steps, 0)
    assert made.settled(steps, done) == steps
    assert abs(done - ratio * max(0, steps - initial)) < 1
    assert made.updates_until(steps, done) == 0


def test_an_interval_is_crossed_by_whoever_reaches_a_multiple() -> None:
    assert [crossed(before, after, 10) for before, after in ((0, 9), (9, 10), (10, 19), (8, 31))] == [0, 1, 0, 1]
    assert [next_multiple(after, 10) for after in (0, 9, 10)] == [10, 10, 20]
