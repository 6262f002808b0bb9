"""Minibatches from more rows than memory holds: windows of row groups, in a new random order every pass.

    a window     g7 g2 g9               in memory: its rows in random order, each once, cut into batches
    meanwhile             | g0 g4 g1    is read and packed on a thread, into the other of two buffers

Every row comes exactly once a pass. How close that is to uniform: a prepared dataset is shuffled, so each of its row
groups is a random sample, and a batch, looked at alone, is a uniform sample of all rows without replacement. But rows
of one group share a window on every pass, so a batch never mixes rows of groups that lie in different windows, and
seeds of one population draw from the same window at the same time.

What comes next follows from the seed and the number of rows drawn so far: that number is the stream's whole state.
`stream_order.py` says it, `row_groups.py` reads, `memory.py` sizes the windows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iql_ray.data.fetching import local_folder
from iql_ray.data.locations import is_uri
from iql_ray.data.packed import RowLayout, UniformSampler
from iql_ray.data.prepared import Manifest, shard_paths
from iql_ray.data.row_groups import RowGroup, packed_blocks, selected_groups, stored_groups
from iql_ray.data.selection import ALL_ROWS, RowSelection, SelectedRows, select_rows
from iql_ray.data.stream_order import Piece, Window, windows_from
from iql_ray.data.transforms import Transforms
from iql_ray.experience import TransitionBatch
from iql_ray.seeding import child_seed

STATE = "stream"


@dataclass(frozen=True, kw_only=True)
class StreamedRows:
    """Rows that are read as they are needed: all learners together see each of them once a pass."""

    groups: tuple[RowGroup, ...]
    groups_per_window: int
    num_learners: int
    transforms: Transforms
    selected: SelectedRows | None = None
    device: torch.device | str = "cpu"
    """Where the windows are."""
    dataset: str = ""
    """That the groups are of, where it lies behind a URI; other machines then fetch it."""

    @classmethod
    def of(
        cls,
        dataset: str | Path,
        manifest: Manifest,
        transforms: Transforms,
        *,
        groups_per_window: int,
        num_learners: int = 1,
        selection: RowSelection = ALL_ROWS,
    ) -> StreamedRows:
        """A prepared dataset's; a selection costs a few passes over a few columns."""
        groups, selected = stored_groups(shard_paths(dataset)), None
        if selection != ALL_ROWS:
            selected = select_rows(dataset, manifest, selection)
            groups = selected_groups(groups, selected)
        return cls(
            groups=groups,
            groups_per_window=groups_per_window,
            num_learners=num_learners,
            transforms=transforms,
            selected=selected,
            dataset=str(dataset),
        )

    def here(self) -> StreamedRows:
        """The same on this machine: what lies behind a URI is fetched, unless it is there."""
        if not is_uri(self.dataset):
            return self
        folder = local_folder(self.dataset)
        groups = tuple(replace(group, path=str(folder / Path(group.path).name)) for group in self.groups)
        return replace(self, groups=groups)


class LoadedWindow:
    """A window's packed rows and what is left of each seed's order of them."""

    def __init__(self, rows: Tensor, orders: Tensor, num_drawn: int) -> None:
        self._rows, self._orders, self._num_drawn = rows, orders, num_drawn

    @property
    def num_left(self) -> int:
        return self._orders.shape[1] - self._num_drawn

    def draw(self, num_rows: int) -> Tensor:
        """The next (seeds, num_rows, width), copied: the memory behind may be filled anew."""
        drawn = self._orders[:, self._num_drawn : self._num_drawn + num_rows]
        self._num_drawn += num_rows
        return self._rows.index_select(0, drawn.flatten()).view(*drawn.shape, -1)


class WindowReader:
    """Reads one window ahead of the one that is drawn from; holds two and never more.

    Args:
        rows: to stream.
        windows: in the order in which they are drawn from.
        row_width: floats of a packed row.
        seeds: of the population.
        rank: which learner this is.
    """

    def __init__(
        self, rows: StreamedRows, windows: Iterator[Window], row_width: int, seeds: Sequence[int], rank: int
    ) -> None:
        largest = max(group.num_rows for group in rows.groups)
        capacity = min(rows.groups_per_window * largest, sum(group.num_rows for group in rows.groups))
        self._rows, self._windows, self._seeds, self._rank = rows, windows, seeds, rank
        self._filling, self._drawn_from = (torch.empty((capacity, row_width), device=rows.device) for _ in range(2))
        self._thread = ThreadPoolExecutor(1, "stream")
        self._read: Future[LoadedWindow] = self._thread.submit(self._load, next(windows), self._filling)

    def next_window(self) -> LoadedWindow:
        """The next window, waited for if need be; what was read before is no longer valid."""
        loaded = self._read.result()
        self._filling, self._drawn_from = self._drawn_from, self._filling
        self._read = self._thread.submit(self._load, next(self._windows), self._filling)
        return loaded

    def _load(self, window: Window, buffer: Tensor) -> LoadedWindow:
        num_rows = 0
        for piece in window.pieces:
            for block in self._blocks(piece):
                buffer[num_rows : num_rows + len(block)] = torch.from_numpy(block)
                num_rows += len(block)
        assert num_rows == window.num_rows, "a row group gives the rows that it was counted to have"
        orders = torch.empty((len(self._seeds), num_rows), dtype=torch.int32)
        for order, seed in zip(orders, self._seeds, strict=True):
            name = (STATE, self._rank, window.pass_number, window.index)
            generator = torch.Generator().manual_seed(child_seed(seed, *name))
            order.copy_(torch.randperm(num_rows, generator=generator, dtype=torch.int32))
        return LoadedWindow(buffer, orders.to(buffer.device), window.num_drawn)

    def _blocks(self, piece: Piece) -> Iterator[np.ndarray]:
        """The piece's rows: a group is read from its beginning, for Parquet has no way into its middle."""
        begin = 0
        for block in packed_blocks(self._rows.groups[piece.group], self._rows.transforms, self._rows.selected):
            yield block[max(piece.start - begin, 0) : max(piece.stop - begin, 0)]
            begin += len(block)


class StreamSampler(Iterator[TransitionBatch]):
    """Endless minibatches of streamed rows, each row once a pass; used as `UniformSampler` is.

    Args:
        rows: to stream.
        layout: of a packed row.
        batch_size: transitions a seed in each batch.
        seeds: of the population; a batch of several seeds has a leading seed axis. The first one orders the groups.
        rank: which learner this is.
    """

    def __init__(self, rows: StreamedRows, layout: RowLayout, batch_size: int, seeds: Sequence[int], rank: int) -> None:
        self._rows, self._layout, self._batch_size, self._seeds, self._rank = rows, layout, batch_size, seeds, rank
        self._sizes = [group.num_rows for group in rows.groups]
        if sum(self._sizes) < rows.num_learners:
            raise ValueError(
                f"{sum(self._sizes)} rows to stream, expected one for each of {rows.num_learners} learners"
            )
        self._num_drawn = 0
        self._reader: WindowReader | None = None
        self._window: LoadedWindow | None = None

    def __next__(self) -> TransitionBatch:
        parts, missing = [], self._batch_size
        while missing:
            window = self._window_with_rows()
            parts.append(window.draw(min(missing, window.num_left)))
            missing -= parts[-1].shape[1]
        self._num_drawn += self._batch_size
        rows = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return self._layout.split(rows[0] if len(self._seeds) == 1 else rows)

    def random_states(self) -> dict[str, Tensor]:
        """How many rows each seed has drawn, and what of: everything else follows from the seeds."""
        return {STATE: torch.tensor([self._num_drawn, self._fingerprint()])}

    def load(self, random_states: Mapping[str, Tensor]) -> None:
        """Continue where `random_states()` was taken; the window there is read again.

        Raises:
            ValueError: the state is of other row groups, another size of windows, or rows that were not streamed.
        """
        if STATE not in random_states:
            raise ValueError(
                "the checkpoint is of a learner that held its rows, now they are to be streamed; resume where the "
                "memory limit is at least as large as it was"
            )
        num_drawn, fingerprint = random_states[STATE].tolist()
        if fingerprint != self._fingerprint():
            raise ValueError(
                "the checkpoint's stream was of other row groups or of windows of another size; put back the dataset's "
                "files as they were and the memory limit of the run's configuration, or start a new run"
            )
        self._num_drawn, self._reader, self._window = num_drawn, None, None

    def _window_with_rows(self) -> LoadedWindow:
        if self._reader is None:
            sizes, rows, seed = self._sizes, self._rows, self._seeds[0]
            windows = windows_from(sizes, rows.groups_per_window, seed, self._rank, rows.num_learners, self._num_drawn)
            self._reader = WindowReader(rows, windows, self._layout.width, self._seeds, self._rank)
        if self._window is None or self._window.num_left == 0:
            self._window = self._reader.next_window()
        return self._window

    def _fingerprint(self) -> int:
        """Of everything but the seeds that the order of the rows depends on."""
        text = f"{self._sizes} {self._rows.groups_per_window}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")


def sampler_of(
    rows: Tensor | StreamedRows, layout: RowLayout, batch_size: int, seeds: Sequence[int], rank: int
) -> UniformSampler | StreamSampler:
    """A learner's minibatches, from rows that it holds or from rows that it streams."""
    if isinstance(rows, Tensor):
        return UniformSampler(rows, layout, batch_size, seeds, rank)
    return StreamSampler(rows, layout, batch_size, seeds, rank)
