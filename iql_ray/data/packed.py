"""Transitions as one packed float32 matrix, so that a minibatch is a single gather; and uniform sampling from it.

    row   | observations | actions | rewards | next_observations | terminations | next_actions |

The last part is there only where a critic asks for it. Rows are made by `packing.py`, in the agent's units. Nothing
here reads files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iql_ray.experience import Spaces, TransitionBatch
from iql_ray.seeding import child_seed

SAMPLER = "sampler"


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """Where each part of a transition lies in a packed row."""

    observation_dim: int
    action_dim: int
    has_next_actions: bool = False
    """Whether the row ends with the action taken after it (`RowSelection.with_next_actions`)."""

    @classmethod
    def of(cls, spaces: Spaces, has_next_actions: bool = False) -> RowLayout:
        return cls(
            observation_dim=spaces.observation_dim, action_dim=spaces.action_dim, has_next_actions=has_next_actions
        )

    @property
    def width(self) -> int:
        num_actions_held = 2 if self.has_next_actions else 1
        return 2 * self.observation_dim + num_actions_held * self.action_dim + 2

    def split(self, rows: Tensor) -> TransitionBatch:
        """(..., width) -> a batch of views, no copy."""
        rewards_at = self.observation_dim + self.action_dim
        terminations_at = rewards_at + 1 + self.observation_dim
        return TransitionBatch(
            observations=rows[..., : self.observation_dim],
            actions=rows[..., self.observation_dim : rewards_at],
            rewards=rows[..., rewards_at],
            next_observations=rows[..., rewards_at + 1 : terminations_at],
            terminations=rows[..., terminations_at],
            next_actions=rows[..., terminations_at + 1 :] if self.has_next_actions else None,
        )


class UniformSampler(Iterator[TransitionBatch]):
    """Endless minibatches, drawn uniformly with replacement; one independent stream of indices per seed.

    Args:
        rows: (rows, width) packed transitions on the learner's device; may be read-only memory.
        layout: of a row.
        batch_size: transitions a seed in each batch.
        seeds: of the population; a batch of several seeds has a leading seed axis.
        rank: which learner this is; each has streams of its own.
    """

    def __init__(self, rows: Tensor, layout: RowLayout, batch_size: int, seeds: Sequence[int], rank: int) -> None:
        if rows.dim() != 2 or rows.shape[1] != layout.width or len(rows) == 0:
            raise ValueError(f"packed rows have shape {tuple(rows.shape)}, expected (rows > 0, {layout.width})")
        self._rows = rows
        self._layout = layout
        self._batch_size = batch_size
        self._streams = IndexStreams(SAMPLER, seeds, rank, rows.device)

    def __next__(self) -> TransitionBatch:
        drawn = self._streams.draw(len(self._rows), self._batch_size)
        return self._layout.split(stacked([self._rows.index_select(0, indices) for indices in drawn]))

    @property
    def generators(self) -> list[torch.Generator]:
        """That it draws from, on the device of the rows; what is drawn depends on nothing else."""
        return self._streams.generators

    def random_states(self) -> dict[str, Tensor]:
        """States of the generators, uint8 tensors by name."""
        return self._streams.states()

    def load(self, random_states: Mapping[str, Tensor]) -> None:
        """Continue the streams where `random_states()` was taken.

        Raises:
            ValueError: it was taken of rows that were streamed (`streaming.py`), which were seen in another order.
        """
        if f"{SAMPLER}.0" not in random_states:
            raise ValueError(
                "the checkpoint is of a learner that streamed its rows, now they would be held; resume with the memory "
                "limit of the run's configuration, or start a new run"
            )
        self._streams.load(random_states)


class IndexStreams:
    """Uniform row numbers with replacement: one independent stream per seed, each learner's its own.

    Args:
        name: of the streams' states in a checkpoint, and of the seeds that they begin with.
    """

    def __init__(self, name: str, seeds: Sequence[int], rank: int, device: torch.device) -> None:
        self._name, self._device = name, device
        self.generators = [torch.Generator(device).manual_seed(child_seed(seed, name, rank)) for seed in seeds]

    def draw(self, num_rows: int, count: int) -> list[Tensor]:
        """(count,) numbers below `num_rows` for each seed."""
        return [
            torch.randint(num_rows, (count,), generator=generator, device=self._device) for generator in self.generators
        ]

    def states(self) -> dict[str, Tensor]:
        """uint8 tensors by name."""
        return {f"{self._name}.{index}": each.get_state() for index, each in enumerate(self.generators)}

    def load(self, random_states: Mapping[str, Tensor]) -> None:
        for index, generator in enumerate(self.generators):
            generator.set_state(random_states[f"{self._name}.{index}"].cpu())


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """Rows of each seed with a leading seed axis; of one seed, as they are."""
    return rows[0] if len(rows) == 1 else torch.stack(list(rows))
