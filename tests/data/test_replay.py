"""The ring of what was collected, and minibatches of it beside offline ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iql_ray.data.packed import RowLayout, UniformSampler
from iql_ray.data.replay import MixedSampler, ReplayRing, ReplaySampler, online_share

LAYOUT = RowLayout(observation_dim=1, action_dim=1)
"""Five numbers a row; the tests put a row's own number in all of them."""


def numbered(first: int, stop: int) -> np.ndarray:
    return np.repeat(np.arange(first, stop, dtype=np.float32)[:, None], LAYOUT.width, axis=1)


def ring_of(num_rows: int, capacity: int = 100) -> ReplayRing:
    ring = ReplayRing(capacity, LAYOUT.width)
    ring.add(numbered(1000, 1000 + num_rows), np.arange(num_rows))
    return ring


def test_a_ring_of_three_after_five_rows_holds_the_last_three() -> None:
    ring = ReplayRing(3, LAYOUT.width)
    for first, stop in ((0, 2), (2, 5)):
        ring.add(numbered(first, stop), np.arange(first, stop))
    assert ring.rows[:, 0].tolist() == [3, 4, 2]
    assert len(ring) == 3


def test_more_rows_than_there_is_room_for_leave_the_newest() -> None:
    ring = ReplayRing(3, LAYOUT.width)
    ring.add(numbered(0, 8), np.arange(8))
    assert sorted(ring.rows[:, 0].tolist()) == [5, 6, 7]
    assert ring.rows[8 % 3, 0] == 5


def test_the_mean_age_is_of_the_rows_that_are_held() -> None:
    ring = ReplayRing(2, LAYOUT.width)
    assert ring.mean_age(10) == 0
    ring.add(numbered(0, 3), np.array([0, 4, 6]))
    assert ring.mean_age(10) == 5.0


def test_rows_skipped_leave_the_places_of_those_that_follow_as_they_were() -> None:
    whole, resumed = ReplayRing(3, LAYOUT.width), ReplayRing(3, LAYOUT.width)
    whole.add(numbered(0, 5), np.arange(5))
    resumed.skip(2)
    resumed.add(numbered(2, 5), np.arange(2, 5))
    assert torch.equal(whole.rows, resumed.rows)


def test_offline_and_online_rows_are_drawn_alike() -> None:
    sampler = ReplaySampler(torch.from_numpy(numbered(0, 30)), ring_of(10), LAYOUT, 400, (0,), rank=0)
    drawn = torch.cat([next(sampler).rewards for _ in range(20)])
    assert (drawn >= 1000).double().mean() == pytest.approx(0.25, abs=0.03)
    assert set(drawn.int().tolist()) == {*range(30), *range(1000, 1010)}


def test_all_parts_of_a_transition_come_from_one_row() -> None:
    sampler = ReplaySampler(torch.from_numpy(numbered(0, 30)), ring_of(10), LAYOUT, 64, (0,), rank=0)
    batch = next(sampler)
    assert torch.equal(batch.observations[:, 0], batch.rewards)
    assert torch.equal(batch.next_observations[:, 0], batch.terminations)


def test_an_empty_ring_gives_what_the_offline_rows_alone_give() -> None:
    rows = torch.from_numpy(numbered(0, 30))
    offline, replay = (
        UniformSampler(rows, LAYOUT, 8, (0, 1), rank=0),
        ReplaySampler(rows, ReplayRing(4, LAYOUT.width), LAYOUT, 8, (0, 1), rank=0),
    )
    assert torch.equal(next(offline).rewards, next(replay).rewards)


def test_without_offline_rows_all_come_from_the_ring() -> None:
    nothing = torch.zeros((0, LAYOUT.width))
    assert next(ReplaySampler(nothing, ring_of(5), LAYOUT, 32, (0,), rank=0)).rewards.min() >= 1000


def test_a_mixed_batch_has_exactly_its_share_of_online_rows() -> None:
    offline = UniformSampler(torch.from_numpy(numbered(0, 30)), LAYOUT, 6, (0, 1), rank=0)
    batch = next(MixedSampler(offline, ring_of(1), LAYOUT, 2, (0, 1), rank=0))
    assert batch.rewards.shape == (2, 8)
    assert batch.observations.shape == (2, 8, 1)
    assert ((batch.rewards >= 1000).sum(-1) == 2).all()


@pytest.mark.parametrize("is_mixed", [False, True])
def test_a_sampler_goes_on_where_its_states_were_taken(is_mixed: bool) -> None:
    def sampler() -> MixedSampler | ReplaySampler:
        rows = torch.from_numpy(numbered(0, 30))
        if not is_mixed:
            return ReplaySampler(rows, ring_of(10), LAYOUT, 8, (0,), rank=0)
        return MixedSampler(UniformSampler(rows, LAYOUT, 4, (0,), rank=0), ring_of(10), LAYOUT, 4, (0,), rank=0)

    first, second = sampler(), sampler()
    next(first)
    states = {name: state.clone() for name, state in first.random_states().items()}
    expected = next(first)
    second.load(states)
    assert torch.equal(next(second).rewards, expected.rewards)


@pytest.mark.parametrize(("fraction", "num_online"), [(0.5, 128), (0.001, 1), (0.999, 255)])
def test_a_share_leaves_at_least_one_of_each(fraction: float, num_online: int) -> None:
    assert online_share(256, fraction) == num_online


def test_a_batch_of_one_cannot_be_mixed() -> None:
    with pytest.raises(ValueError, match="batch of 1"):
        online_share(1, 0.5)


def test_a_ring_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity is 0"):
        ReplayRing(0, 5)
