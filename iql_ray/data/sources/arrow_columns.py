"""Arrow columns, whatever a writer made of them, as numpy arrays: lists as rows of a matrix, times as whole numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iql_ray.data.sources.tables import NameRow


def column_values(name: str, column: pa.Array, name_row: NameRow) -> np.ndarray:
    """An Arrow column as (rows,) or, where it holds lists, as (rows, length).

    Raises:
        ValueError: a null, lists of different lengths, or a type that is no number, string, time or list.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if column.null_count:
        where = name_row(_first(column.is_null()))
        raise ValueError(f"column {name} is null at {where}; expected a value in every row")
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    return _matrix(name, column, name_row) if is_list(column.type) else _flat(name, column, name_row)


def _flat(name: str, column: pa.Array, name_row: NameRow) -> np.ndarray:
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise ValueError(f"column {name} has type {kind} at {name_row(0)}; expected numbers, lists of them or strings")
    return column.to_numpy(zero_copy_only=False)


def _matrix(name: str, column: pa.Array, name_row: NameRow) -> np.ndarray:
    lengths = pc.call_function("list_value_length", [column]).to_numpy()
    if (lengths != lengths[:1]).any():
        row = int(np.argmax(lengths != lengths[0]))
        where = name_row(row)
        raise ValueError(f"column {name} has a list of {lengths[row]} at {where}, expected {lengths[0]} as before it")
    items = column.flatten()
    if is_list(items.type):
        raise ValueError(f"column {name} has type {column.type} at {name_row(0)}, expected flat lists of numbers")
    length = int(lengths[0]) if len(lengths) else 0
    if items.null_count and length:
        row = _first(items.is_null()) // length
        raise ValueError(f"column {name} has a list with a null in it at {name_row(row)}; expected numbers")
    return _flat(name, items, name_row).reshape(len(column), length)


def is_list(kind: pa.DataType) -> bool:
    """Whether rows are lists of any sort."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _first(mask: pa.BooleanArray) -> int:
    return pc.index(mask, True).as_py()
