"""The one schema of a transition: its Arrow form on disk, its packed record form in memory, and its checks.

A record is a row of a numpy structured array; it holds everything of one transition and is copied as one piece.
Nothing here reads or writes files, or knows where the data came from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

MATRIX_COLUMNS = ("observations", "actions", "next_observations")
FLOAT_COLUMNS = ("observations", "actions", "rewards", "next_observations")

Records = np.ndarray[Any, np.dtype[Any]]
"""(rows,) of `record_dtype`."""

Locate = Callable[[int], str]
"""Says where a row of the source lies, in the user's words: `row 7 (part-1.parquet, row 3)`."""


def transition_schema(observation_dim: int, action_dim: int) -> pa.Schema:
    """The Arrow schema of every prepared shard; a discrete action is its index, so `action_dim` is 1."""
    return pa.schema(
        [
            ("observations", pa.list_(pa.float32(), observation_dim)),
            ("actions", pa.list_(pa.float32(), action_dim)),
            ("rewards", pa.float32()),
            ("next_observations", pa.list_(pa.float32(), observation_dim)),
            ("terminations", pa.bool_()),
            ("truncations", pa.bool_()),
            ("episode", pa.int64()),
            ("step", pa.int32()),
        ]
    )


def record_dtype(observation_dim: int, action_dim: int) -> np.dtype[Any]:
    """The same columns as one packed little-endian record."""
    return np.dtype(
        [
            ("observations", "<f4", (observation_dim,)),
            ("actions", "<f4", (action_dim,)),
            ("rewards", "<f4"),
            ("next_observations", "<f4", (observation_dim,)),
            ("terminations", "?"),
            ("truncations", "?"),
            ("episode", "<i8"),
            ("step", "<i4"),
        ]
    )


def fixed_size_lists(matrix: np.ndarray) -> pa.FixedSizeListArray:
    """(rows, dim) float32 as an Arrow column of lists of `dim`."""
    values = pa.array(np.ascontiguousarray(matrix, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, matrix.shape[1])


def table_from_records(records: Records) -> pa.Table:
    """Records as an Arrow table of `transition_schema`."""
    observation_dim = records.dtype["observations"].shape[0]
    schema = transition_schema(observation_dim, records.dtype["actions"].shape[0])
    columns = [
        fixed_size_lists(records[name]) if name in MATRIX_COLUMNS else pa.array(np.ascontiguousarray(records[name]))
        for name in schema.names
    ]
    return pa.table(columns, schema=schema)


def records_from_table(table: pa.Table, observation_dim: int, action_dim: int) -> Records:
    """Records from an Arrow table of these columns; a column that the table does not have is zero.

    Raises:
        ValueError: a column's type is not the one of `transition_schema`.
    """
    schema = transition_schema(observation_dim, action_dim)
    records = np.zeros(table.num_rows, record_dtype(observation_dim, action_dim))
    for name in table.column_names:
        column, expected = table.column(name), schema.field(name).type
        if column.type != expected or column.null_count:
            found = f"{column.type} with {column.null_count} nulls"
            raise ValueError(f"column {name} has type {found}, expected {expected} without any")
        flat = column.combine_chunks()
        values = flat.flatten() if name in MATRIX_COLUMNS else flat
        records[name] = values.to_numpy(zero_copy_only=False).reshape(records[name].shape)
    return records


def check_finite(records: Records, columns: tuple[str, ...], first_row: int, locate: Locate) -> None:
    """Refuse NaN and infinite values.

    Args:
        columns: which float columns the source filled.
        first_row: the source's row number of the first record.

    Raises:
        ValueError: names the column, the source's row, the element and the value.
    """
    for name in columns:
        values = records[name].reshape(len(records), -1)
        is_finite = np.isfinite(values)
        if not is_finite.all():
            row, element = np.argwhere(~is_finite)[0]
            raise ValueError(
                f"{name} has {values[row, element]} at {locate(first_row + int(row))}, element {element}; expected"
                " finite float32 numbers; drop or correct the row"
            )
