"""Table rows to packed rows, the transforms applied; `packed.py` says how a row is laid out and samples from them.

It runs in Ray Data's tasks, so it imports no torch: that would cost every new worker process seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from iql_ray.data.transforms import Transforms

if TYPE_CHECKING:
    import pyarrow as pa

PACKED_COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminations")


def pack(table: pa.Table, transforms: Transforms, next_actions: np.ndarray | None = None) -> np.ndarray:
    """Rows of the transition schema as a new (rows, width) float32 matrix in the agent's units.

    Args:
        next_actions: (rows, action_dim) the environment's actions taken after these rows; a terminated row's may be
            anything and is packed as zeros, for nothing is bootstrapped from it. None: rows have no such part.
    """
    columns = {name: column_values(table, name) for name in PACKED_COLUMNS}
    return pack_columns(columns, transforms, next_actions)


def pack_columns(
    columns: Mapping[str, np.ndarray], transforms: Transforms, next_actions: np.ndarray | None = None
) -> np.ndarray:
    """As `pack`, from arrays in the environment's units by name: `PACKED_COLUMNS`."""
    terminations = columns["terminations"][:, None]
    parts = [
        transforms.observations(columns["observations"]),
        transforms.agent_actions(columns["actions"]),
        transforms.rewards(columns["rewards"])[:, None],
        transforms.observations(columns["next_observations"]),
        terminations,
    ]
    if next_actions is not None:
        parts.append(np.where(terminations, np.float32(0), transforms.agent_actions(next_actions)))
    return np.concatenate(parts, axis=1, dtype=np.float32)


def column_values(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers as (rows,), one of fixed-size lists as (rows, list size)."""
    column = table.column(name)
    if column.type.num_fields == 0:
        return column.to_numpy()
    lists = column.combine_chunks()
    return lists.flatten().to_numpy().reshape(len(lists), column.type.list_size)
