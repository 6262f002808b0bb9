"""Which rows of a stream come when: a function of the seed and of the sizes of the row groups alone.

    a pass      g7 g2 g9 | g0 g4 g1 | g5 g8 ...    all row groups in random order; learners take consecutive parts
    a window    g7 g2 g9                           what one learner has in memory together

Nothing here reads rows, or keeps a state. `streaming.py` draws from the windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from iql_ray.seeding import child_seed


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Rows [start, stop) of one row group, by its place among all."""

    group: int
    start: int
    stop: int

    @property
    def num_rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class Window:
    """What lies in memory together, and how much of it has been drawn when a stream (re)starts there."""

    pass_number: int
    index: int
    pieces: tuple[Piece, ...]
    num_drawn: int = 0

    @property
    def num_rows(self) -> int:
        return sum(piece.num_rows for piece in self.pieces)


def share_of_pass(sizes: Sequence[int], seed: int, pass_number: int, rank: int, num_learners: int) -> list[Piece]:
    """A learner's part of a pass: the groups in the pass's order, cut into shares whose sizes differ by one at most.

    A group that lies across a cut is read by both learners, each of which takes its own rows.
    """
    first, last = (sum(sizes) * part // num_learners for part in (rank, rank + 1))
    order = np.random.default_rng(child_seed(seed, "stream", pass_number)).permutation(len(sizes))
    pieces, begin = [], 0
    for group in order.tolist():
        start, stop = max(first - begin, 0), min(last - begin, sizes[group])
        if start < stop:
            pieces.append(Piece(group=group, start=start, stop=stop))
        begin += sizes[group]
    return pieces


def windows_from(
    sizes: Sequence[int], groups_per_window: int, seed: int, rank: int, num_learners: int, num_drawn: int
) -> Iterator[Window]:
    """A learner's windows without end, from the one in which the row after `num_drawn` lies.

    The windows of a pass have as many pieces as each other, or one more.
    """
    total = sum(sizes)
    num_rows = total * (rank + 1) // num_learners - total * rank // num_learners
    pass_number, to_skip = divmod(num_drawn, num_rows)
    while True:
        pieces = share_of_pass(sizes, seed, pass_number, rank, num_learners)
        num_windows = -(-len(pieces) // groups_per_window)
        bounds = [len(pieces) * window // num_windows for window in range(num_windows + 1)]
        for index, (start, stop) in enumerate(pairwise(bounds)):
            window = Window(pass_number=pass_number, index=index, pieces=tuple(pieces[start:stop]), num_drawn=to_skip)
            if to_skip < window.num_rows:
                yield window
            to_skip = max(0, to_skip - window.num_rows)
        pass_number += 1
