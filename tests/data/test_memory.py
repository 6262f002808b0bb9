"""What a learner's data takes: held or streamed, how many row groups at a time, or a refusal that says how much."""

from __future__ import annotations

from pathlib import Path

import pytest

from iql_ray.data.memory import GIB, LearnerData, groups_per_window, selection_bytes
from iql_ray.data.prepared import read_manifest
from iql_ray.data.row_groups import RowGroup
from iql_ray.data.selection import ALL_ROWS, RowSelection
from tests.data.examples import example, prepare_here, write_npz

DATA = LearnerData(num_rows=1000, row_width=10, batch_size=8)
"""Rows of 40 bytes: 40,000 as a whole. A streamed one takes 2 x 44 + 4 = 92."""
GROUPS = tuple(RowGroup(path="a", index=index, num_rows=size) for index, size in enumerate((20, 10, 20)))
FIXED = (10 + 6) * 20 * 40 + 2 * 8 * 40
"""Ten copies of a block of 20 rows that is read and six of its pages, and two of a batch of 8."""


def window(limit_bytes: int, data: LearnerData = DATA) -> int | None:
    return groups_per_window(data, limit_bytes, lambda: GROUPS, "dataset d")


def test_a_share_that_fits_is_held():
    assert window(40_000) is None
    assert window(39_999) is not None


def test_the_files_of_a_share_that_fits_are_not_opened():
    def groups() -> tuple[RowGroup, ...]:
        raise AssertionError("opened")

    assert groups_per_window(DATA, 40_000, groups, "dataset d") is None


@pytest.mark.parametrize("num_groups", [1, 2, 5])
def test_as_many_groups_as_fit_are_a_window(num_groups: int):
    enough = FIXED + num_groups * 20 * 92
    assert window(enough) == num_groups
    assert window(enough + 20 * 92 - 1) == num_groups


def test_a_window_never_takes_more_than_the_limit():
    for limit in range(FIXED + 20 * 92, 40_000, 321):
        num_groups = window(limit)
        assert num_groups is not None
        assert DATA.streamed_bytes(num_groups * 20, 20) <= limit


def test_every_seed_has_an_order_of_its_own():
    """Two more seeds are 8 bytes more a row and window, and two batches more."""
    data = LearnerData(num_rows=1000, row_width=10, num_seeds=3, batch_size=8)
    assert data.streamed_bytes(20, 20) - DATA.streamed_bytes(20, 20) == 20 * 2 * 8 + 4 * 8 * 40


def test_a_limit_below_one_group_is_refused_with_what_it_takes():
    needed = FIXED + 20 * 92
    expected = (
        f"too small for dataset d: .* two row groups of 20 rows, .* take {needed / GIB:.4g}; raise --memory-limit"
    )
    with pytest.raises(ValueError, match=expected):
        window(needed - 1)


def test_the_selections_tables_count():
    """Two episodes: three starts of 8 bytes; five rows of one action each, 4 bytes."""
    with_tables = LearnerData(num_rows=1000, row_width=10, batch_size=8, tables_bytes=20 * 92)
    limit = FIXED + 2 * 20 * 92
    assert (window(limit), window(limit, with_tables)) == (2, 1)


def test_a_selections_tables_are_starts_and_next_actions(tmp_path: Path):
    prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a")
    manifest = read_manifest(tmp_path / "a")
    assert selection_bytes(manifest, ALL_ROWS) == 0
    assert selection_bytes(manifest, RowSelection(top_episode_share=0.5)) == 3 * 8
    assert selection_bytes(manifest, RowSelection(with_next_actions=True)) == 3 * 8 + 5 * 4
