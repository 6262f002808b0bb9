"""Replay: transitions collected online in a preallocated ring, and minibatches of them beside offline ones.

Offline rows stay where they are, mapped by everyone who reads them; only what is new is written. Rows are packed
(`packed.py`). Nothing here steps an environment or keeps files.

    uniform   one draw over offline and online rows together, as if they were one buffer (the paper)
    mixed     a fixed share of every batch is online
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from iql_ray.data.packed import SAMPLER, IndexStreams, RowLayout, stacked
from iql_ray.experience import TransitionBatch


class Sampler(Iterator[TransitionBatch], Protocol):
    """Endless minibatches that can be continued from a checkpoint."""

    def random_states(self) -> dict[str, Tensor]: ...
    def load(self, random_states: Mapping[str, Tensor]) -> None: ...


class ReplayRing:
    """The last `capacity` rows that were added; the oldest makes room.

        capacity 3, after five rows    | 3 | 4 | 2 |    the next one replaces row 2

    Args:
        capacity: rows.
        width: of a packed row.
        device: the learner's.
    """

    def __init__(self, capacity: int, width: int, device: torch.device | str = "cpu") -> None:
        if capacity < 1:
            raise ValueError(f"replay capacity is {capacity}, expected 1 row or more")
        self.rows = torch.zeros((capacity, width), device=device)
        """(capacity, width); those from `len` on hold nothing yet."""
        self.num_added = 0
        self._versions = np.zeros(capacity, np.int64)

    def __len__(self) -> int:
        return min(self.num_added, len(self.rows))

    def add(self, rows: np.ndarray, policy_versions: np.ndarray) -> None:
        """Add rows in order.

        Args:
            rows: (new rows, width) float32, packed.
            policy_versions: (new rows,) updates behind the policy that made each.
        """
        capacity = len(self.rows)
        kept = min(len(rows), capacity)
        places = np.arange(self.num_added + len(rows) - kept, self.num_added + len(rows)) % capacity
        self.rows[torch.from_numpy(places)] = torch.from_numpy(rows[len(rows) - kept :]).to(self.rows.device)
        self._versions[places] = policy_versions[len(rows) - kept :]
        self.num_added += len(rows)

    def skip(self, num_rows: int) -> None:
        """Rows that have been added and have made room again, where a run goes on with what is left."""
        self.num_added += num_rows

    def mean_age(self, num_updates: int) -> float:
        """Updates since the policy that made a row, the mean over all rows held: the age that a uniform draw meets."""
        return float(num_updates - self._versions[: len(self)].mean()) if len(self) else 0.0


class ReplaySampler(Iterator[TransitionBatch]):
    """Minibatches drawn uniformly with replacement from offline and online rows together.

    Args:
        offline: (rows, width) packed; no rows where the run goes without offline data. May be read-only memory.
        ring: what was collected so far.
        layout: of a row.
        batch_size: transitions a seed in each batch.
        seeds: of the population.
        rank: which learner this is.
    """

    def __init__(
        self, offline: Tensor, ring: ReplayRing, layout: RowLayout, batch_size: int, seeds: Sequence[int], rank: int
    ) -> None:
        if offline.dim() != 2 or offline.shape[1] != layout.width:
            raise ValueError(f"packed rows have shape {tuple(offline.shape)}, expected (rows, {layout.width})")
        self._offline, self._ring, self._layout, self._batch_size = offline, ring, layout, batch_size
        self._streams = IndexStreams(SAMPLER, seeds, rank, offline.device)

    def __next__(self) -> TransitionBatch:
        drawn = self._streams.draw(len(self._offline) + len(self._ring), self._batch_size)
        return self._layout.split(stacked([self._rows_at(indices) for indices in drawn]))

    def random_states(self) -> dict[str, Tensor]:
        """States of the generators, uint8 tensors by name."""
        return self._streams.states()

    def load(self, random_states: Mapping[str, Tensor]) -> None:
        """Continue the streams where `random_states()` was taken; the rows must be those of then."""
        self._streams.load(random_states)

    def _rows_at(self, indices: Tensor) -> Tensor:
        """Both parts are read at full size and one is chosen: sizes never depend on what was drawn."""
        num_offline = len(self._offline)
        if num_offline == 0:
            return self._ring.rows.index_select(0, indices)
        if len(self._ring) == 0:
            return self._offline.index_select(0, indices)
        offline = self._offline.index_select(0, indices.clamp(max=num_offline - 1))
        online = self._ring.rows.index_select(0, (indices - num_offline).clamp(min=0))
        return torch.where((indices < num_offline)[:, None], offline, online)


class MixedSampler(Iterator[TransitionBatch]):
    """Minibatches of which a fixed number of transitions is online, the first ones offline.

    Args:
        offline: minibatches of the offline part, held or streamed.
        ring: what was collected so far; not empty when a batch is drawn.
        num_online: transitions a seed of the ring in each batch.
    """

    def __init__(
        self, offline: Sampler, ring: ReplayRing, layout: RowLayout, num_online: int, seeds: Sequence[int], rank: int
    ) -> None:
        self._offline, self._ring, self._layout, self._num_online = offline, ring, layout, num_online
        self._streams = IndexStreams("replay", seeds, rank, ring.rows.device)

    def __next__(self) -> TransitionBatch:
        drawn = self._streams.draw(len(self._ring), self._num_online)
        online = self._layout.split(stacked([self._ring.rows.index_select(0, indices) for indices in drawn]))
        return _joined(next(self._offline), online)

    def random_states(self) -> dict[str, Tensor]:
        """States of all generators by name."""
        return {**self._offline.random_states(), **self._streams.states()}

    def load(self, random_states: Mapping[str, Tensor]) -> None:
        """Continue all streams where `random_states()` was taken."""
        self._offline.load(random_states)
        self._streams.load(random_states)


def online_share(batch_size: int, online_fraction: float) -> int:
    """Transitions of a batch that are online: the nearest number, at least one, and one less than all of them.

    Raises:
        ValueError: a batch of one transition cannot be mixed.
    """
    if batch_size < 2:
        raise ValueError(f"a batch of {batch_size} cannot hold offline and online transitions; raise --batch-size")
    return min(max(1, round(online_fraction * batch_size)), batch_size - 1)


def _joined(first: TransitionBatch, second: TransitionBatch) -> TransitionBatch:
    """Two batches as one, along the batch axis."""
    axis = first.rewards.dim() - 1
    others = vars(second)
    return TransitionBatch(
        **{name: torch.cat([each, others[name]], axis) for name, each in vars(first).items() if each is not None}
    )
