"""What learners do together, over torch.distributed; alone, each of these is the identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as process_group
from torch import Tensor

Average = Callable[[Tensor], None]
"""Replaces a flat tensor by its mean over all learners, in place."""


def num_learners() -> int:
    return process_group.get_world_size() if process_group.is_initialized() else 1


def rank() -> int:
    """Which learner this is, from 0."""
    return process_group.get_rank() if process_group.is_initialized() else 0


def average(values: Tensor) -> None:
    """Replace `values` by its mean over all learners, in place: one all-reduce."""
    if num_learners() > 1:
        process_group.all_reduce(values)
        values.div_(num_learners())


def average_together(tensors: Sequence[Tensor], average: Average = average) -> None:
    """Replace each by its mean over all learners, in place, with one call of `average` for all."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    average(flat)
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def gather(own: Any) -> list[Any]:
    """Every learner's object, by rank."""
    everyone: list[Any] = [own] * num_learners()
    if num_learners() > 1:
        process_group.all_gather_object(everyone, own)
    return everyone


def from_first(own: Any) -> Any:
    """The first learner's object, for every learner."""
    if num_learners() == 1:
        return own
    everyone = [own]
    process_group.broadcast_object_list(everyone, src=0)
    return everyone[0]
