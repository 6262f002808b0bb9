"""One order per seed: whatever the blocks, whatever the number of buckets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iql_ray.data.schema import record_dtype
from iql_ray.data.shuffling import MAX_BUCKETS, gather, num_buckets, scatter, shuffle_keys, splitmix64

DTYPE = record_dtype(1, 1)


def shuffle(folder: Path, num_rows: int, *, seed: int = 0, block: int = 100, buckets: int = 4) -> list[int]:
    rows = np.zeros(num_rows, DTYPE)
    rows["episode"] = np.arange(num_rows)
    folder.mkdir()
    blocks = (rows[start : start + block] for start in range(0, num_rows, block))
    assert scatter(blocks, DTYPE, folder, seed=seed, buckets=buckets) == num_rows
    return [row for piece in gather(folder, DTYPE) for row in piece["episode"].tolist()]


def test_splitmix64_gives_the_numbers_of_its_authors() -> None:
    # The reference generator seeded with 1234567 adds its constant before it mixes.
    assert splitmix64(np.array([1234567], np.uint64))[0] == 6457827717110365317


def test_the_order_is_that_of_the_keys(tmp_path: Path) -> None:
    assert shuffle(tmp_path / "a", 1000) == np.argsort(shuffle_keys(0, 0, 1000)).tolist()


def test_every_row_comes_out_once_and_in_another_order(tmp_path: Path) -> None:
    order = shuffle(tmp_path / "a", 1000)
    assert order != sorted(order)
    assert sorted(order) == list(range(1000))


def test_blocks_and_buckets_change_nothing(tmp_path: Path) -> None:
    orders = [
        shuffle(tmp_path / f"{block}-{buckets}", 1000, block=block, buckets=buckets)
        for block, buckets in ((1000, 1), (7, 2), (100, 5), (33, 256))
    ]
    assert all(order == orders[0] for order in orders)


def test_another_seed_is_another_order(tmp_path: Path) -> None:
    assert shuffle(tmp_path / "a", 100) != shuffle(tmp_path / "b", 100, seed=1)


def test_rows_scatter_evenly_over_the_buckets() -> None:
    counts = np.bincount((shuffle_keys(3, 0, 64_000) >> np.uint64(58)).astype(int), minlength=64)
    assert np.abs(counts - 1000).max() < 150


@pytest.mark.parametrize(("num_rows", "expected"), [(1, 1), (2**25, 1), (2**25 + 1, 2), (2**60, MAX_BUCKETS)])
def test_buckets_grow_with_the_data_up_to_a_limit(num_rows: int, expected: int) -> None:
    assert num_buckets(num_rows, 1) == expected


def test_no_file_is_left(tmp_path: Path) -> None:
    shuffle(tmp_path / "a", 100)
    assert list((tmp_path / "a").iterdir()) == []
