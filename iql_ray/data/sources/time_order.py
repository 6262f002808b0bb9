"""Logs that carry times: rows are in order when time increases, and where it does not, another episode begins.

A fragment alone cannot tell to which episode its first row belongs, so the columns of times and flags are read once
when the source is opened, in order, and each fragment is given its first episode's number.

    time     0.0 0.1 0.2 | 0.0 0.1 | 0.2 0.3          flagged as an end: *
    end                          *
    episode   0   0   0  |  1   1  |  2   2            time restarts after 0.2; the flag ends episode 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from iql_ray.data.sources.source import NEVER, WHERE_TIME_RESTARTS, Fragment, Layout
from iql_ray.data.sources.tables import Block, NameRow, episode_ids, flags

ReadColumns = Callable[[Fragment, list[str]], Iterator[Block]]
"""Reads some of a fragment's own columns, block by block."""


class EpisodeCounter:
    """Numbers rows that come in order, in blocks of any size."""

    def __init__(self, first_episode: int = 0) -> None:
        self.episode = first_episode
        """The number of the last row's episode; before the first row, of the episode that it belongs to."""
        self._last_time: int | float | None = None
        self._has_ended = False

    def number(self, times: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """(rows,) int64 episode numbers.

        Args:
            times: (rows,) numbers without NaN.
            ends: (rows,) bools, true on a row that is flagged as its episode's last.
        """
        starts = np.append(False, (times[1:] <= times[:-1]) | ends[:-1])
        starts[0] = self._last_time is not None and (self._has_ended or bool(times[0] <= self._last_time))
        episodes = self.episode + np.cumsum(starts)
        self.episode = int(episodes[-1])
        self._last_time, self._has_ended = times[-1].item(), bool(ends[-1])
        return episodes


def with_episodes(blocks: Iterable[Block], layout: Layout, fragment: Fragment) -> Iterator[Block]:
    """A fragment's blocks; where episodes are counted from times, with the counted column."""
    counter, start = EpisodeCounter(fragment.first_episode), 0
    for block in blocks:
        if not layout.is_episode_from_time:
            yield block
            continue

        def name_row(row: int, start: int = start) -> str:
            return fragment.name_row(start + row)

        times = _times(block, layout, name_row)
        yield {**block, WHERE_TIME_RESTARTS: counter.number(times, _ends(block, layout, name_row))}
        start += len(times)


def ordered_fragments(
    fragments: tuple[Fragment, ...], layout: Layout, read_columns: ReadColumns
) -> tuple[Fragment, ...]:
    """The same fragments with their first episodes' numbers, once all rows are known to be in order.

    Raises:
        ValueError: a time that is no number, or one that does not increase within an episode id; names the row.
    """
    if not layout.time:
        return fragments
    if layout.is_episode_from_time:
        return tuple(_numbered(fragments, layout, read_columns))
    _check_order_within_ids(fragments, layout, read_columns)
    return fragments


def _numbered(fragments: Iterable[Fragment], layout: Layout, read_columns: ReadColumns) -> Iterator[Fragment]:
    counter = EpisodeCounter()
    names = [*layout.time, *_own(layout, "terminations"), *_own(layout, "truncations")]
    for fragment in fragments:
        first_episode = None
        for block, name_row in _located(fragment, names, read_columns):
            episodes = counter.number(_times(block, layout, name_row), _ends(block, layout, name_row))
            first_episode = int(episodes[0]) if first_episode is None else first_episode
        yield replace(fragment, first_episode=first_episode or 0)


def _check_order_within_ids(fragments: Iterable[Fragment], layout: Layout, read_columns: ReadColumns) -> None:
    last_id, last_time = np.zeros(0, np.int64), np.zeros(0)
    for fragment in fragments:
        for block, name_row in _located(fragment, [*layout.columns["episode"], *layout.time], read_columns):
            num_carried = len(last_time)
            ids = np.append(last_id, episode_ids(block[layout.columns["episode"][0]], name_row))
            times = np.append(last_time.astype(block[layout.time[0]].dtype), _times(block, layout, name_row))
            is_late = (ids[1:] == ids[:-1]) & (times[1:] <= times[:-1])
            if is_late.any():
                row = int(np.argmax(is_late))
                raise ValueError(
                    f"time ({layout.time[0]}) is {times[row + 1]} at {name_row(row + 1 - num_carried)}, not after"
                    f" {times[row]} on the row before it, which has the same episode id; expected each episode's rows"
                    " in increasing time: sort the logs by episode and time"
                )
            last_id, last_time = ids[-1:], times[-1:]


def _located(fragment: Fragment, names: list[str], read_columns: ReadColumns) -> Iterator[tuple[Block, NameRow]]:
    """The fragment's blocks that have rows, each with the way to name one."""
    start = 0
    for block in read_columns(fragment, list(dict.fromkeys(names))):
        num_rows = len(next(iter(block.values())))
        if num_rows:
            yield block, lambda row, start=start: fragment.name_row(start + row)
        start += num_rows


def _times(block: Block, layout: Layout, name_row: NameRow) -> np.ndarray:
    (name,) = layout.time
    times = block[name]
    if times.ndim != 1 or times.dtype.kind not in "iuf":
        raise ValueError(f"time ({name}) has dtype {times.dtype} at {name_row(0)}, expected a number or a timestamp")
    if np.isnan(times).any():
        raise ValueError(f"time ({name}) is NaN at {name_row(int(np.argmax(np.isnan(times))))}; expected a number")
    return times


def _ends(block: Block, layout: Layout, name_row: NameRow) -> np.ndarray:
    """(rows,) true where the source itself flags an end of either kind."""
    ends = np.zeros(len(block[layout.time[0]]), bool)
    for canonical in ("terminations", "truncations"):
        for name in _own(layout, canonical):
            ends |= flags(canonical, block[name].reshape(-1), name_row)
    return ends


def _own(layout: Layout, canonical: str) -> list[str]:
    return [name for name in layout.columns.get(canonical, ()) if name != NEVER]
