"""Table rows to packed rows, the transforms applied; `packed.py` says how a row is laid out and samples from them.

It runs in Ray Data's tasks, so it imports no torch: that would cost every new worker process seconds.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from iql_ray.data.transforms import Transforms


def pack(table: pa.Table, transforms: Transforms) -> np.ndarray:
    """Rows of the transition schema as a new (rows, width) float32 matrix in the agent's units."""
    columns = (
        transforms.observations(_matrix(table, "observations")),
        transforms.agent_actions(_matrix(table, "actions")),
        transforms.rewards(_vector(table, "rewards"))[:, None],
        transforms.observations(_matrix(table, "next_observations")),
        _vector(table, "terminations").astype(np.float32)[:, None],
    )
    return np.concatenate(columns, axis=1, dtype=np.float32)


def _vector(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy()


def _matrix(table: pa.Table, name: str) -> np.ndarray:
    array = table.column(name).combine_chunks()
    return array.flatten().to_numpy().reshape(len(array), -1)
