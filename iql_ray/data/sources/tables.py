"""From blocks of a format's own columns to tables in canonical names and types.

A value that the canonical type cannot hold is refused with its row. NaN, infinity and the order of rows are checked
later, where rows are in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa

from iql_ray.data.schema import MATRIX_COLUMNS, fixed_size_lists
from iql_ray.data.sources.source import NEVER, ROWS_PER_TABLE, Fragment, Layout

NameRow = Callable[[int], str]
"""Says where a row of a block lies, in the user's words."""

Block = Mapping[str, np.ndarray]
"""The source's own column names to (rows, dim) or (rows,)."""

SCALARS = {
    "rewards": pa.float32(),
    "episode": pa.int64(),
    "terminations": pa.bool_(),
    "truncations": pa.bool_(),
    "success": pa.bool_(),
}

MAX_INDEX = 2**24
"""Whole numbers up to here are exact in float32, which is how an action's index is kept."""


def canonical_schema(layout: Layout) -> pa.Schema:
    """The types of a source's tables, in the order of the layout's columns."""
    return pa.schema(
        [
            (name, SCALARS[name] if name in SCALARS else pa.list_(pa.float32(), layout.width(name)))
            for name in layout.columns
        ]
    )


def tables_from_blocks(blocks: Iterable[Block], layout: Layout, fragment: Fragment) -> Iterator[pa.Table]:
    """A fragment's blocks as canonical tables, one each.

    Raises:
        ValueError: a value that does not fit, or another number of rows than the fragment was found to have.
    """
    start = 0
    for block in blocks:
        num_rows = len(block[layout.columns["observations"][0]])
        yield canonical_table(block, layout, lambda row, start=start: fragment.name_row(start + row))
        start += num_rows
    if start != fragment.num_rows:
        raise ValueError(
            f"{fragment.file_name} has {start} rows where {fragment.num_rows} were seen before; read again"
        )


def gathered(blocks: Iterable[Block]) -> Iterator[Block]:
    """Small blocks put together to `ROWS_PER_TABLE` rows or more, so that short episodes do not make a table each."""
    held: list[Block] = []
    num_held = 0
    for block in blocks:
        held.append(block)
        num_held += len(next(iter(block.values())))
        if num_held >= ROWS_PER_TABLE:
            yield _joined(held)
            held, num_held = [], 0
    if num_held:
        yield _joined(held)


def _joined(blocks: list[Block]) -> Block:
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def canonical_table(values: Block, layout: Layout, name_row: NameRow) -> pa.Table:
    """A block of the source's own columns as one Arrow table in canonical names and types.

    Args:
        values: floats of any width, flags as bools or 0 and 1.
        name_row: says where a row of this block lies.

    Raises:
        ValueError: a column is no number or has another width than the layout says, flags other than 0 and 1,
            fractions among discrete actions, ids that are neither integers nor strings.
    """
    num_rows = len(values[layout.columns["observations"][0]])
    arrays = {}
    for canonical, group in layout.columns.items():
        column = np.zeros(num_rows, bool) if group == (NEVER,) else _stacked(group, values, name_row)
        column = column.reshape(num_rows, -1)
        if column.shape[1] != layout.width(canonical):
            raise ValueError(
                f"{canonical} has {column.shape[1]} numbers a row at {name_row(0)}, expected {layout.width(canonical)}"
            )
        if canonical == "actions" and layout.is_discrete:
            _check_indices(column.reshape(-1), name_row)
        arrays[canonical] = _canonical_array(canonical, column, name_row)
    return pa.table(arrays)


def _stacked(group: tuple[str, ...], values: Block, name_row: NameRow) -> np.ndarray:
    """The group's columns side by side."""
    for name in group:
        if values[name].dtype.kind not in "biuf" and (len(group) > 1 or values[name].dtype.kind not in "SUO"):
            raise ValueError(f"column {name} has dtype {values[name].dtype} at {name_row(0)}, expected numbers")
    return values[group[0]] if len(group) == 1 else np.column_stack([values[name] for name in group])


def _canonical_array(canonical: str, column: np.ndarray, name_row: NameRow) -> pa.Array:
    """(rows, width) of any numbers as the Arrow array of the canonical column."""
    if canonical in MATRIX_COLUMNS:
        return fixed_size_lists(_float32(canonical, column, name_row))
    if canonical == "rewards":
        return pa.array(_float32(canonical, column, name_row).reshape(-1))
    flat = column.reshape(-1)
    return pa.array(episode_ids(flat, name_row) if canonical == "episode" else flags(canonical, flat, name_row))


def _float32(canonical: str, values: np.ndarray, name_row: NameRow) -> np.ndarray:
    """Cast; what does not fit float32 becomes infinite, which the check on values then names.

    Raises:
        ValueError: no numbers.
    """
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{canonical} has dtype {values.dtype} at {name_row(0)}, expected numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def _check_indices(values: np.ndarray, name_row: NameRow) -> None:
    """Refuse what is no index of a choice where other files or rows had whole numbers."""
    if values.dtype.kind not in "biu":
        raise ValueError(
            f"actions have dtype {values.dtype} at {name_row(0)}, but were whole numbers before: choices; write all"
            " files with one type of actions"
        )
    is_large = values >= MAX_INDEX
    if is_large.any():
        row = int(np.argmax(is_large))
        raise ValueError(f"action {values[row]} at {name_row(row)} is no choice, expected 0 to {MAX_INDEX - 1}")


def flags(canonical: str, values: np.ndarray, name_row: NameRow) -> np.ndarray:
    """(rows,) of bools, or of numbers that are 0 and 1, as bools.

    Raises:
        ValueError: another value; names its row.
    """
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{canonical} has dtype {values.dtype} at {name_row(0)}; expected true and false, or 0 and 1")
    is_flag = (values == 0) | (values == 1)
    if not is_flag.all():
        row = int(np.argmin(is_flag))
        raise ValueError(f"{canonical} has {values[row]} at {name_row(row)}; expected true and false, or 0 and 1")
    return values.astype(bool)


def episode_ids(values: np.ndarray, name_row: NameRow) -> np.ndarray:
    """(rows,) int64: integers as they are, strings as 64 bits of their hash, the same in every process.

    Raises:
        ValueError: fractions, NaN, or numbers beyond 64 bits; names the row.
    """
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        is_id = (values == np.floor(values)) & (np.abs(values) < 2.0**63)
        if not is_id.all():
            row = int(np.argmin(is_id))
            raise ValueError(f"episode id {values[row]} at {name_row(row)} is no id, expected integers or strings")
        return values.astype(np.int64)
    names, inverse = np.unique(values.astype(str), return_inverse=True)
    hashes = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little", signed=True) for name in names]
    return np.array(hashes, np.int64)[inverse]
