"""The order of a stream: every row once a pass, shares apart, and any place in it found again from a number."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iql_ray.data.stream_order import Piece, Window, share_of_pass, windows_from

SIZES = [5, 3, 4, 5, 0, 1]
"""Eighteen rows; one group is empty."""


def rows_of(pieces: list[Piece] | tuple[Piece, ...]) -> list[tuple[int, int]]:
    """(group, row in it) of every row."""
    return [(piece.group, row) for piece in pieces for row in range(piece.start, piece.stop)]


def all_rows(sizes: list[int]) -> list[tuple[int, int]]:
    return [(group, row) for group, size in enumerate(sizes) for row in range(size)]


def groups_of(seed: int, pass_number: int) -> list[int]:
    return [piece.group for piece in share_of_pass([4] * 8, seed, pass_number, 0, 1)]


def first_windows(num_windows: int, num_drawn: int = 0, groups_per_window: int = 2, rank: int = 0) -> list[Window]:
    """Of one of two learners."""
    return list(islice(windows_from(SIZES, groups_per_window, 0, rank, 2, num_drawn), num_windows))


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1).filter(any), num_learners=st.integers(1, 5), seed=st.integers(0, 9)
)
def test_the_shares_of_a_pass_are_all_rows_once_and_of_equal_size(sizes: list[int], num_learners: int, seed: int):
    shares = [rows_of(share_of_pass(sizes, seed, 3, rank, num_learners)) for rank in range(num_learners)]
    assert sorted(row for share in shares for row in share) == all_rows(sizes)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_group_across_the_cut_is_shared_row_by_row():
    """One group of five rows, two learners: rows 0 and 1, rows 2 to 4."""
    assert share_of_pass([5], 0, 0, 0, 2) == [Piece(group=0, start=0, stop=2)]
    assert share_of_pass([5], 0, 0, 1, 2) == [Piece(group=0, start=2, stop=5)]


def test_passes_and_seeds_have_orders_of_their_own():
    assert groups_of(0, 0) == groups_of(0, 0)
    orders = [groups_of(seed, pass_number) for seed in (0, 1) for pass_number in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert {tuple(sorted(order)) for order in orders} == {tuple(range(8))}


def test_a_learners_share_is_another_one_in_the_next_pass():
    first, second = (set(rows_of(share_of_pass([4] * 8, 0, number, 0, 2))) for number in (0, 1))
    assert first != second


@pytest.mark.parametrize(("groups_per_window", "sizes"), [(1, [1] * 7), (3, [2, 2, 3]), (4, [3, 4]), (9, [7])])
def test_windows_of_a_pass_have_equally_many_groups(groups_per_window: int, sizes: list[int]):
    """Seven groups; no small window at the end, which would leave no time to read the next."""
    windows = islice(windows_from([2] * 7, groups_per_window, 0, 0, 1, 0), len(sizes))
    assert [len(window.pieces) for window in windows] == sizes


def test_windows_one_after_the_other_are_the_passes():
    """Nine rows a learner and pass."""
    windows = first_windows(12)
    for number in (0, 1):
        of_pass = [window for window in windows if window.pass_number == number]
        assert [window.index for window in of_pass] == list(range(len(of_pass)))
        pieces = [piece for window in of_pass for piece in window.pieces]
        assert pieces == share_of_pass(SIZES, 0, number, 0, 2)
        assert sum(window.num_rows for window in of_pass) == 9


@pytest.mark.parametrize("rank", [0, 1])
def test_any_place_is_found_again_from_the_number_of_rows_drawn(rank: int):
    """Thirty rows are three passes and a third."""
    whole = [row for window in first_windows(20, rank=rank) for row in rows_of(window.pieces)]
    for num_drawn in range(30):
        windows = first_windows(12, num_drawn, rank=rank)
        assert 0 <= windows[0].num_drawn < windows[0].num_rows
        assert [window.num_drawn for window in windows[1:]] == [0] * 11
        rest = [row for window in windows for row in rows_of(window.pieces)][windows[0].num_drawn :]
        assert rest[:20] == whole[num_drawn : num_drawn + 20]
