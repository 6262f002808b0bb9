"""A small dataset with no flaw, to put one flaw in at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from iql_ray.data.inspection import Inspection, inspect_dataset
from tests.data.examples import prepare_here, write_npz

NUM_EPISODES, LENGTH = 24, 40


def clean_columns(lengths: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Random walks of three observations; actions and rewards are noise. The task ended in the shorter episodes.

    Args:
        lengths: (episodes,) at most `LENGTH`; by default a third of the episodes end early, all at other lengths.
    """
    generator = np.random.default_rng(0)
    if lengths is None:
        lengths = np.full(NUM_EPISODES, LENGTH)
        lengths[::3] = 12 + 3 * np.arange(len(lengths[::3]))
    walks = [np.cumsum(generator.standard_normal((length + 1, 3)), axis=0) for length in lengths]
    num_rows = int(lengths.sum())
    ends = np.zeros(num_rows, bool)
    ends[np.cumsum(lengths) - 1] = True
    is_early = np.repeat(lengths < LENGTH, lengths)
    return {
        "observations": np.concatenate([walk[:-1] for walk in walks]).astype(np.float32),
        "actions": generator.uniform(-1, 1, (num_rows, 2)).astype(np.float32),
        "rewards": generator.standard_normal(num_rows).astype(np.float32),
        "next_observations": np.concatenate([walk[1:] for walk in walks]).astype(np.float32),
        "terminations": ends & is_early,
        "truncations": ends & ~is_early,
    }


def steps_of(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """(rows,) the step of each row in its episode."""
    ends = np.flatnonzero(columns["terminations"] | columns["truncations"])
    starts = np.append(0, ends[:-1] + 1)
    return np.concatenate([np.arange(length) for length in ends - starts + 1])


def inspected(folder: Path, columns: dict[str, np.ndarray], **options: object) -> Inspection:
    """Prepare these columns without Ray and look at them."""
    prepare_here(write_npz(folder / "a.npz", columns), folder / "a", **options)  # pyright: ignore[reportArgumentType]
    return inspect_dataset(folder / "a")


def kinds(inspection: Inspection) -> list[str]:
    """What was found."""
    return [finding.kind for finding in inspection.findings]
