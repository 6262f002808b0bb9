"""Table rows to packed rows, the transforms applied; `packed.py` says how a row is laid out and samples from them.

It runs in Ray Data's tasks, so it imports no torch: that would cost every new worker process seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iql_ray.data.transforms import Transforms

if TYPE_CHECKING:
    import pyarrow as pa


def pack(table: pa.Table, transforms: Transforms, next_actions: np.ndarray | None = None) -> np.ndarray:
    """Rows of the transition schema as a new (rows, width) float32 matrix in the agent's units.

    Args:
        next_actions: (rows, action_dim) the environment's actions taken after these rows; a terminated row's may be
            anything and is packed as zeros, for nothing is bootstrapped from it. None: rows have no such part.
    """
    terminations = column_values(table, "terminations")[:, None]
    columns = [
        transforms.observations(column_values(table, "observations")),
        transforms.agent_actions(column_values(table, "actions")),
        transforms.rewards(column_values(table, "rewards"))[:, None],
        transforms.observations(column_values(table, "next_observations")),
        terminations,
    ]
    if next_actions is not None:
        columns.append(np.where(terminations, np.float32(0), transforms.agent_actions(next_actions)))
    return np.concatenate(columns, axis=1, dtype=np.float32)


def column_values(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers as (rows,), one of fixed-size lists as (rows, list size)."""
    column = table.column(name)
    if column.type.num_fields == 0:
        return column.to_numpy()
    lists = column.combine_chunks()
    return lists.flatten().to_numpy().reshape(len(lists), column.type.list_size)
