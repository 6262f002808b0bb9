"""One order per seed: whatever the blocks, whatever the number of buckets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iql_ray.data.schema import record_dtype
from iql_ray.data.shuffling import MAX_BUCKETS, Buckets, ShuffledRows, num_buckets, shuffle_keys, splitmix64

DTYPE = record_dtype(1, 1)


def numbered_rows(num_rows: int) -> np.ndarray:
    rows = np.zeros(num_rows, DTYPE)
    rows["episode"] = np.arange(num_rows)
    return rows


def scatter(folder: Path, rows: np.ndarray, *, seed: int = 0, block: int = 100, buckets: int = 4) -> ShuffledRows:
    folder.mkdir()
    with Buckets(folder, DTYPE, seed=seed, sizes=np.zeros(buckets, np.int64)) as taken:
        for start in range(0, len(rows), block):
            taken.add(rows[start : start + block])
    return ShuffledRows(folder, DTYPE, taken.sizes)


def shuffle(folder: Path, num_rows: int, *, seed: int = 0, block: int = 100, buckets: int = 4) -> list[int]:
    shuffled = scatter(folder, numbered_rows(num_rows), seed=seed, block=block, buckets=buckets)
    assert shuffled.num_rows == num_rows
    return shuffled.rows(0, num_rows)["episode"].tolist()


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


def test_any_stretch_can_be_asked_for(tmp_path: Path) -> None:
    shuffled = scatter(tmp_path / "a", numbered_rows(1000), buckets=7)
    order = np.argsort(shuffle_keys(0, 0, 1000)).tolist()
    for start, stop in ((0, 10), (5, 900), (400, 401), (999, 1000)):
        assert shuffled.rows(start, stop)["episode"].tolist() == order[start:stop]


def test_buckets_go_once_no_row_of_theirs_is_left(tmp_path: Path) -> None:
    shuffled = scatter(tmp_path / "a", numbered_rows(1000), buckets=4)
    sizes = np.bincount((shuffle_keys(0, 0, 1000) >> np.uint64(62)).astype(int))
    shuffled.drop_before(int(sizes[0]) - 1)
    assert len(list((tmp_path / "a").iterdir())) == 4
    shuffled.drop_before(int(sizes[0]))
    assert len(list((tmp_path / "a").iterdir())) == 3
    assert len(shuffled.rows(int(sizes[0]), 1000)) == 1000 - sizes[0]
    shuffled.drop_before(1000)
    assert list((tmp_path / "a").iterdir()) == []


def test_a_scattering_goes_on_from_the_sizes_it_had(tmp_path: Path) -> None:
    rows = numbered_rows(1000)
    (tmp_path / "a").mkdir()
    with Buckets(tmp_path / "a", DTYPE, seed=0, sizes=np.zeros(4, np.int64)) as buckets:
        buckets.add(rows[:300])
        sizes = buckets.sizes.copy()
        buckets.add(rows[300:700])
    with Buckets(tmp_path / "a", DTYPE, seed=0, sizes=sizes) as buckets:
        buckets.add(rows[300:])
    order = ShuffledRows(tmp_path / "a", DTYPE, buckets.sizes).rows(0, 1000)["episode"].tolist()
    assert order == np.argsort(shuffle_keys(0, 0, 1000)).tolist()


def test_a_bucket_that_lost_rows_is_no_bucket_to_go_on_with(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"bucket-000 has 0 bytes, expected .* that were written before"),
        Buckets(tmp_path, DTYPE, seed=0, sizes=np.array([1])),
    ):
        pass
