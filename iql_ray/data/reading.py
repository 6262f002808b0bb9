"""A source's tables in order, from any row on: read ahead in bounded memory by threads of this process.

For formats whose decoders let go of Python's lock this is parallel over fragments. What is read is not interpreted
here; reading on a cluster is `distributed/preparation.py`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, islice
from queue import SimpleQueue
from threading import Event, Semaphore

import pyarrow as pa

from iql_ray.data.sources import Fragment, Source

MAX_THREADS = 16
"""Each holds rows; more than these one disk and one driver cannot feed."""

READ_AHEAD_BYTES = 128 * 2**20
"""What all threads together may have read and nobody taken yet."""

MAX_TABLES_AHEAD = 64
"""Of one fragment, however small they are."""


def num_threads() -> int:
    """Threads for work that lets go of Python's lock: one for each core that this process may use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_THREADS, available)


def read_in_threads(source: Source, first_row: int = 0, threads: int | None = None) -> Iterator[pa.Table]:
    """The source's tables in order, from `first_row` of the whole source on.

    Raises:
        ValueError: a fragment that cannot be read, or does not hold what the source's header promised.
    """
    first, num_rows_before = fragment_of(source, first_row)
    tables = _read_ahead(source, source.fragments[first:], threads or num_threads())
    return without_first(tables, first_row - num_rows_before)


def fragment_of(source: Source, row: int) -> tuple[int, int]:
    """The index of the fragment that a row of the source lies in, and how many rows come before that fragment."""
    firsts = list(accumulate((fragment.num_rows for fragment in source.fragments), initial=0))
    index = next(index for index in reversed(range(len(firsts))) if firsts[index] <= row)
    return index, firsts[index]


def without_first(tables: Iterable[pa.Table], num_rows: int) -> Iterator[pa.Table]:
    """The same rows but the first ones."""
    for table in tables:
        yield table.slice(min(num_rows, table.num_rows))
        num_rows -= min(num_rows, table.num_rows)


class _Lane:
    """A fragment's tables on their way from the thread that reads them; `room` counts those it may read ahead."""

    def __init__(self) -> None:
        self.tables: SimpleQueue[pa.Table | BaseException | None] = SimpleQueue()
        self.room = Semaphore(0)


def _read_ahead(source: Source, fragments: Iterable[Fragment], threads: int) -> Iterator[pa.Table]:
    stop, waiting, lanes = Event(), iter(fragments), deque[_Lane]()
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        try:
            while True:
                for fragment in islice(waiting, threads - len(lanes)):
                    lanes.append(_Lane())
                    pool.submit(_fill, lanes[-1], source, fragment, stop, threads)
                if not lanes:
                    return
                yield from _drain(lanes[0])
                lanes.popleft()
        finally:
            stop.set()
            for lane in lanes:
                lane.room.release()


def _drain(lane: _Lane) -> Iterator[pa.Table]:
    while (table := lane.tables.get()) is not None:
        if isinstance(table, BaseException):
            raise table
        yield table
        lane.room.release()


def _fill(lane: _Lane, source: Source, fragment: Fragment, stop: Event, threads: int) -> None:
    """Read a fragment into its lane; an error goes the same way, to be raised where the rows are used."""
    is_first = True
    try:
        for table in source.read(fragment):
            lane.tables.put(table)
            if is_first:  # the first table tells how many fit
                is_first = False
                lane.room.release(max(1, min(MAX_TABLES_AHEAD, READ_AHEAD_BYTES // threads // max(1, table.nbytes))))
            del table
            lane.room.acquire()
            if stop.is_set():
                return
        lane.tables.put(None)
    except BaseException as error:
        lane.tables.put(error)
