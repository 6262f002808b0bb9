"""A shuffle of more rows than memory holds, the same for a seed however the rows arrive and on any number of CPUs.

Each row gets a random 64-bit key that depends on the seed and on the row's number alone; the shuffled order is the
order of the keys. Rows go to one file per range of keys, then each file is sorted alone when its rows are asked for.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from iql_ray.data.schema import Records
from iql_ray.seeding import child_seed

BUCKET_BYTES = 32 * 2**20
"""What one bucket is meant to hold: sorting one takes about twice this."""

KEY_BYTES = 8
"""Each row's key stands before it in its bucket."""

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


class Buckets:
    """Takes rows in their own order and puts each into the file of its key's range; use as `with Buckets(...)`.

    Args:
        folder: on a disk that takes a second copy of the data.
        sizes: (buckets,) rows that each file holds already; what a file has beyond is cut off. How many buckets there
            are changes memory and speed, never the order.

    Raises:
        ValueError: a file holds less.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any], *, seed: int, sizes: np.ndarray) -> None:
        self.sizes = sizes.copy()
        self._folder, self._seed, self._row_bytes = folder, seed, KEY_BYTES + dtype.itemsize

    def __enter__(self) -> Buckets:
        with ExitStack() as stack:
            self._files = [
                stack.enter_context(_cut_to(bucket_path(self._folder, index), size * self._row_bytes))
                for index, size in enumerate(self.sizes.tolist())
            ]
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    @property
    def num_rows(self) -> int:
        return int(self.sizes.sum())

    def add(self, block: Records) -> None:
        """Append the next rows, each to the file of its key's top bits."""
        keys = shuffle_keys(self._seed, self.num_rows, len(block))
        bucket = ((keys >> np.uint64(40)).astype(np.int64) * len(self._files) >> 24).astype(np.uint16)
        rows = np.empty((len(block), self._row_bytes), np.uint8)
        rows[:, :KEY_BYTES], rows[:, KEY_BYTES:] = as_bytes(keys.astype("<u8")), as_bytes(block)
        rows = rows.take(np.argsort(bucket, kind="stable"), axis=0)
        sizes = np.bincount(bucket, minlength=len(self._files))
        stops = np.cumsum(sizes)
        for file, start, stop in zip(self._files, stops - sizes, stops, strict=True):
            file.write(rows[start:stop].data)
        self.sizes += sizes

    def flush(self) -> None:
        """Hand all rows to the operating system, which keeps them when this process is killed."""
        for file in self._files:
            file.flush()


class ShuffledRows:
    """What `Buckets` took, in shuffled order, in any stretches; quickest in order, a bucket being sorted once."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], sizes: np.ndarray) -> None:
        self.dtype, self.num_rows = dtype, int(sizes.sum())
        self._folder, self._stops = folder, np.cumsum(sizes)
        self._held: tuple[int, np.ndarray] | None = None
        self._num_dropped = 0

    def rows(self, start: int, stop: int) -> Records:
        """Rows `start:stop` of the shuffled order."""
        first, last = np.searchsorted(self._stops, [start, stop - 1], side="right").tolist()
        parts = [self._part(index, start, stop) for index in range(first, last + 1)]
        return np.concatenate(parts).view(self.dtype).reshape(-1)

    def drop_before(self, row: int) -> None:
        """Delete the buckets all of whose rows come before this one."""
        while self._num_dropped < len(self._stops) and self._stops[self._num_dropped] <= row:
            bucket_path(self._folder, self._num_dropped).unlink(missing_ok=True)
            self._num_dropped += 1

    def _part(self, index: int, start: int, stop: int) -> np.ndarray:
        rows = self._sorted(index)
        first = int(self._stops[index]) - len(rows)
        return rows[max(start - first, 0) : stop - first]

    def _sorted(self, index: int) -> np.ndarray:
        """(rows, bytes) of a bucket."""
        if self._held is None or self._held[0] != index:
            self._held = None
            rows = np.fromfile(bucket_path(self._folder, index), np.uint8).reshape(-1, KEY_BYTES + self.dtype.itemsize)
            keys = np.ascontiguousarray(rows[:, :KEY_BYTES]).view("<u8").reshape(-1)
            self._held = index, rows[:, KEY_BYTES:].take(np.argsort(keys), axis=0)
        return self._held[1]


def as_bytes(rows: np.ndarray) -> np.ndarray:
    """(rows, bytes) of (rows,) of anything: moved as bytes, records go several times as fast."""
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.dtype.itemsize)


def bucket_path(folder: Path, index: int) -> Path:
    """Where a bucket's rows lie."""
    return folder / f"bucket-{index:03d}"


def _cut_to(path: Path, num_bytes: int) -> IO[bytes]:
    """The file, open for appending after its first bytes."""
    file = path.open("ab")
    if file.tell() < num_bytes:
        file.close()
        raise ValueError(f"{path} has {path.stat().st_size} bytes, expected {num_bytes} that were written before")
    file.truncate(num_bytes)
    return file
