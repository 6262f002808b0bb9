"""A shuffle of more rows than memory holds, the same for a seed however the rows arrive and on any number of CPUs.

Each row gets a random 64-bit key that depends on the seed and on the row's number alone; the shuffled order is the
order of the keys. Rows go to one file per range of keys, then each file is sorted alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from iql_ray.data.schema import Records
from iql_ray.seeding import child_seed

BUCKET_BYTES = 32 * 2**20
"""What one bucket is meant to hold: sorting one takes about twice this."""

MAX_BUCKETS = 256
"""Files open at a time; beyond 8 GiB the buckets grow instead."""


def splitmix64(values: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit integers that scatters neighbours (Steele, Lea and Flood 2014); equal keys never occur."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def shuffle_keys(seed: int, first_row: int, num_rows: int) -> np.ndarray:
    """The keys of rows `first_row` and up, (num_rows,) uint64."""
    rows = np.arange(first_row, first_row + num_rows, dtype=np.uint64)
    return splitmix64(rows ^ np.uint64(child_seed(seed, "shuffle")))


def num_buckets(num_rows: int, row_bytes: int) -> int:
    """How many buckets hold this many rows."""
    return min(MAX_BUCKETS, max(1, -(-num_rows * row_bytes // BUCKET_BYTES)))


def scatter(blocks: Iterable[Records], dtype: np.dtype[Any], folder: Path, *, seed: int, buckets: int) -> int:
    """Put every row into its bucket and return how many rows there were.

    Args:
        folder: an empty folder on a disk that takes a second copy of the data.
        buckets: how many files; changes memory and speed, never the order.
    """
    keyed = _keyed(dtype)
    num_rows = 0
    with ExitStack() as stack:
        files = [stack.enter_context((folder / f"bucket-{index:03d}").open("wb")) for index in range(buckets)]
        for block in blocks:
            _append(block, shuffle_keys(seed, num_rows, len(block)), keyed, files)
            num_rows += len(block)
    return num_rows


def gather(folder: Path, dtype: np.dtype[Any]) -> Iterator[Records]:
    """All rows that `scatter` took, in shuffled order, a bucket at a time; buckets are deleted as they are read."""
    for path in sorted(folder.iterdir()):
        rows = np.fromfile(path, _keyed(dtype))
        path.unlink()
        yield rows["record"][np.argsort(rows["key"])]


def _keyed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype([("key", "<u8"), ("record", dtype)])


def _append(block: Records, keys: np.ndarray, keyed: np.dtype[Any], files: Sequence[IO[bytes]]) -> None:
    """Append each row to the file of its key's top bits."""
    bucket = (keys >> np.uint64(40)).astype(np.int64) * len(files) >> 24
    order = np.argsort(bucket, kind="stable")
    rows = np.empty(len(block), keyed)
    rows["key"], rows["record"] = keys[order], block[order]
    bounds = np.searchsorted(bucket[order], np.arange(len(files) + 1))
    for file, start, stop in zip(files, bounds[:-1], bounds[1:], strict=True):
        rows[start:stop].tofile(file)
