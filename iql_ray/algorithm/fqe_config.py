"""How much fitted Q evaluation spends, and how it learns. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FQEConfig:
    """Fitted Q evaluation of a policy from logged data alone."""

    fqe_members: int = 5
    """Q networks, each trained on episodes of its own, drawn with replacement; their spread is the interval."""
    fqe_updates: int = 10_000
    """Updates for the behaviour policy; the evaluated policy goes on from there for as many."""
    fqe_batch_size: int = 256
    """Transitions an update and member."""
    fqe_hidden_sizes: tuple[int, ...] = (128, 128)
    """Units of each hidden layer of Q."""
    fqe_learning_rate: float = 1e-3
    """Adam's rate at the start; it decays to 0 over the updates."""
    fqe_target_rate: float = 0.05
    """Share of Q that moves into its target at every update, in (0, 1]. What a wrong start leaves shrinks
    by exp(-rate * (1 - discount)) an update: a discount nearer to 1 needs more updates, or a higher rate."""
    fqe_held_out_share: float = 0.2
    """Share of the episodes that Q is never trained on; the estimate is over their first observations."""
    fqe_max_rows: int = 1_000_000
    """Transitions read at most: whole episodes, drawn at random, as many as fit."""

    def __post_init__(self) -> None:
        for name, minimum in (("fqe_members", 2), ("fqe_updates", 1), ("fqe_batch_size", 1), ("fqe_max_rows", 2)):
            if getattr(self, name) < minimum:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least {minimum}")
        if not self.fqe_hidden_sizes or min(self.fqe_hidden_sizes) < 1:
            raise ValueError(f"fqe_hidden_sizes = {self.fqe_hidden_sizes}: expected one or more sizes > 0")
        if not (math.isfinite(self.fqe_learning_rate) and self.fqe_learning_rate > 0):
            raise ValueError(f"fqe_learning_rate = {self.fqe_learning_rate}: expected a finite number > 0")
        if not 0.0 < self.fqe_target_rate <= 1.0:
            raise ValueError(f"fqe_target_rate = {self.fqe_target_rate}: expected a number in (0, 1]")
        if not 0.0 < self.fqe_held_out_share < 1.0:
            raise ValueError(f"fqe_held_out_share = {self.fqe_held_out_share}: expected a number in (0, 1)")


DURING_TRAINING = FQEConfig(fqe_updates=5_000, fqe_hidden_sizes=(64, 64), fqe_target_rate=0.1, fqe_max_rows=200_000)
"""Cheap enough to rank the checkpoints of a run: some ten seconds of one core for each."""
