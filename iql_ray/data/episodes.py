"""Where episodes begin and end in a stream of rows, and what each row's next observation is.

The stream comes in blocks of any size; a function here holds one block, to see the row that follows it. Nothing
depends on where blocks are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import numpy as np

from iql_ray.data.schema import Locate, Records

UnfinishedEpisodes = Literal["error", "truncate"]


class EpisodeLog:
    """What is kept of every episode: its return, its length and the source's id for it; 24 bytes each."""

    def __init__(self) -> None:
        self.num_rows = 0
        self.num_episodes = 0
        self.num_derived_truncations = 0
        self._returns: list[np.ndarray] = [np.zeros(0)]
        self._lengths: list[np.ndarray] = [np.zeros(0, np.int64)]
        self._ids: list[np.ndarray] = [np.zeros(0, np.int64)]
        self._return_so_far = 0.0

    def add(self, records: Records, source_ids: np.ndarray, ends: np.ndarray) -> None:
        """Take the next numbered block; sums run row by row, so that they do not depend on how blocks are cut."""
        episode = np.cumsum(ends) - ends
        sums = np.bincount(np.append(0, episode), np.append(self._return_so_far, records["rewards"].astype(np.float64)))
        num_ended = int(ends.sum())
        self._return_so_far = sums[num_ended] if len(sums) > num_ended else 0.0
        self._returns.append(sums[:num_ended])
        self._lengths.append(records["step"][ends].astype(np.int64) + 1)
        self._ids.append(source_ids[ends])
        self.num_rows += len(records)
        self.num_episodes += num_ended

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, where an episode has just ended."""
        counts = np.array([self.num_rows, self.num_derived_truncations])
        return {"returns": self.returns, "lengths": self.lengths, "ids": np.concatenate(self._ids), "counts": counts}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Become the log that gave these `arrays`."""
        self._returns, self._lengths, self._ids = [arrays["returns"]], [arrays["lengths"]], [arrays["ids"]]
        self.num_rows, self.num_derived_truncations = map(int, arrays["counts"])
        self.num_episodes = len(arrays["returns"])

    @property
    def returns(self) -> np.ndarray:
        """(episodes,) undiscounted raw returns of the episodes as logged."""
        return np.concatenate(self._returns)

    @property
    def lengths(self) -> np.ndarray:
        """(episodes,) numbers of logged rows."""
        return np.concatenate(self._lengths)

    def check_contiguous(self, locate: Locate) -> None:
        """Refuse an episode id that comes back after another episode's rows.

        Raises:
            ValueError: names the rows where the episode stopped and where it came back.
        """
        ids, lengths = np.concatenate(self._ids), self.lengths
        order = np.argsort(ids, kind="stable")
        repeats = np.flatnonzero(ids[order][1:] == ids[order][:-1])
        if repeats.size:
            first, again = order[repeats[0]], order[repeats[0] + 1]
            last_rows = np.cumsum(lengths) - 1
            raise ValueError(
                f"episode id {ids[first]} stops at {locate(int(last_rows[first]))} and comes back at"
                f" {locate(int(last_rows[again] - lengths[again] + 1))}; expected each episode's rows one after"
                " another: sort the source by episode and time"
            )


def number_episodes(
    blocks: Iterable[Records],
    log: EpisodeLog,
    *,
    has_ids: bool,
    has_truncations: bool,
    unfinished: UnfinishedEpisodes,
    locate: Locate,
) -> Iterator[Records]:
    """Blocks with running episode numbers and steps, every episode ending in a termination or a truncation.

    Args:
        blocks: rows in order from an episode's first; where `has_ids`, `episode` holds the source's id.
        log: of the episodes before these, whose numbers go on.
        has_truncations: the source says itself where it cut episodes. If it does not and has ids, an episode that
            ends without a termination was cut.
        unfinished: what to do with an episode that ends with neither flag where the source should have said.

    Raises:
        ValueError: an unfinished episode, or an episode that goes on after its flagged end.
    """
    number, step = log.num_episodes, 0
    for block, following in with_following(blocks):
        flagged = block["terminations"] | block["truncations"]
        ends = _last_rows(block, following) if has_ids else flagged | _is_final(block, following)
        _check_no_overrun(flagged & ~ends, log.num_rows, locate)
        cut = ends & ~flagged
        if cut.any() and unfinished == "error" and (has_truncations or not has_ids):
            row = int(np.argmax(cut))
            raise ValueError(_unfinished(number + int(ends[:row].sum()), locate(log.num_rows + row)))
        source_ids = block["episode"].copy()
        block["truncations"] |= cut
        block["episode"] = number + np.cumsum(ends) - ends
        block["step"] = _steps(ends, step)
        log.add(block, source_ids, ends)
        log.num_derived_truncations += int(cut.sum())
        number += int(ends.sum())
        step = 0 if ends[-1] else int(block["step"][-1]) + 1
        yield block


def link_next_observations(blocks: Iterable[Records]) -> Iterator[Records]:
    """Give each row the next row's observation, never across an episode; a cut episode's last row has none and goes.

    episode   0  0  0 | 1  1 | 2        before: 0 was cut, 1 terminated, 2 was cut
    kept      a  b  . | d  e | .        next:   a->b  b->c | d->e  e->e (never used: e terminated)
    cut          *    |      |          b is now the last row of its episode, so it carries the truncation
    """
    for block, following in with_following(blocks):
        observations = block["observations"]
        has_no_next = block["truncations"] & ~block["terminations"]
        block["next_observations"][:-1] = observations[1:]
        if following is not None:
            block["next_observations"][-1] = following["observations"]
        block["next_observations"][block["terminations"]] = observations[block["terminations"]]
        follower_has_no_next = following is not None and following["truncations"] and not following["terminations"]
        is_new_last = np.append(has_no_next[1:], follower_has_no_next) & ~block["terminations"]
        block["truncations"] |= is_new_last
        yield block[~has_no_next]


def with_following(blocks: Iterable[Records]) -> Iterator[tuple[Records, np.void | None]]:
    """Each block with the first row of the next one, None after the last; empty blocks are skipped."""
    held: Records | None = None
    for block in blocks:
        if len(block) and held is not None:
            yield held, block[0].copy()
        held = block if len(block) else held
    if held is not None:
        yield held, None


def sections(blocks: Iterable[Records], *, has_ids: bool, is_due: Callable[[], bool]) -> Iterator[Iterator[Records]]:
    """The stream in sections of whole episodes, each to be used up before the next is asked for.

    Args:
        blocks: rows as the source has them; where `has_ids`, `episode` holds its id, else flags end episodes.
        is_due: asked at every block; where it says so, the section ends with the last episode that ends there.
    """
    stream = with_following(blocks)
    ahead = next(stream, None)

    def section() -> Iterator[Records]:
        nonlocal ahead
        while ahead is not None:
            block, following = ahead
            ends = _last_rows(block, following) if has_ids else block["terminations"] | block["truncations"]
            size = int(np.flatnonzero(ends)[-1]) + 1 if ends.any() and following is not None and is_due() else 0
            ahead = (block[size:], following) if 0 < size < len(block) else next(stream, None)
            yield block[:size] if size else block
            if size:
                return

    while ahead is not None:
        yield section()


def _last_rows(block: Records, following: np.void | None) -> np.ndarray:
    """Where the source's episode id changes after the row."""
    ids = block["episode"]
    return np.append(ids[1:] != ids[:-1], following is None or following["episode"] != ids[-1])


def _is_final(block: Records, following: np.void | None) -> np.ndarray:
    """True at the very last row of the stream."""
    is_final = np.zeros(len(block), bool)
    is_final[-1] = following is None
    return is_final


def _steps(ends: np.ndarray, first_step: int) -> np.ndarray:
    """Each row's index within its episode, where the block's first row is at `first_step`."""
    rows = np.arange(len(ends))
    starts = np.append(True, ends[:-1])
    steps = rows - np.maximum.accumulate(np.where(starts, rows, 0))
    return steps + np.where(np.cumsum(starts) == 1, first_step, 0)


def _check_no_overrun(overrun: np.ndarray, first_row: int, locate: Locate) -> None:
    if overrun.any():
        raise ValueError(
            f"an episode goes on after {locate(first_row + int(np.argmax(overrun)))}, which is flagged as its end;"
            " expected the flag on the last row of an episode id only: correct the flags or the episode column"
        )


def _unfinished(number: int, where: str) -> str:
    return (
        f"episode {number} ends at {where} flagged neither terminal nor truncated; flag its last row,"
        " or let it count as cut with --unfinished-episodes truncate"
    )
