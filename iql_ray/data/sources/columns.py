"""From a format's own columns to the canonical ones: names, shapes and types. Values are checked later, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from iql_ray.data.schema import MATRIX_COLUMNS, fixed_size_lists
from iql_ray.data.sources.source import Layout

CANONICAL: dict[str, tuple[str, ...]] = {
    "observations": ("observations",),
    "actions": ("actions",),
    "rewards": ("rewards",),
    "next_observations": ("next_observations",),
    "terminations": ("terminations", "terminals"),
    "truncations": ("truncations", "timeouts"),
    "episode": ("episode",),
}
"""Each canonical column and the names under which it is found without a mapping, first match first."""

REQUIRED = ("observations", "actions", "rewards", "terminations")

Headers = Mapping[str, tuple[np.dtype, tuple[int, ...]]]
"""A source's own column name to its dtype and whole shape, rows first."""


def parse_columns(pairs: Sequence[str]) -> dict[str, str]:
    """`["observations=obs", "episode=eps_id"]` as a mapping from canonical to source names.

    Raises:
        ValueError: a pair is not KEY=VALUE, or a key comes twice.
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        name, separator, column = pair.partition("=")
        if not (name and separator and column):
            raise ValueError(f"--columns: got '{pair}', expected CANONICAL=THEIRS, e.g. observations=obs")
        if name in mapping:
            raise ValueError(f"--columns: {name} is given twice, as {mapping[name]} and as {column}; give it once")
        mapping[name] = column
    return mapping


def resolve_columns(spec: str, available: Iterable[str], chosen: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Which of the source's columns fill each canonical column.

    Args:
        available: the source's own column names.
        chosen: the user's mapping; a value may be several scalar columns joined by commas.

    Raises:
        ValueError: a required or chosen column is missing; names what there is.
    """
    names = sorted(available)
    resolved: dict[str, tuple[str, ...]] = {}
    for canonical, defaults in CANONICAL.items():
        group = _chosen_group(chosen[canonical], names) if canonical in chosen else _default_group(defaults, names)
        for name in group:
            if name not in names:
                raise ValueError(
                    f"source '{spec}' has no column '{name}' for {canonical}; it has {', '.join(names)};"
                    f" name the right one with --columns {canonical}=NAME"
                )
        if group:
            resolved[canonical] = group
        elif canonical in REQUIRED:
            raise ValueError(
                f"source '{spec}' has no column {' or '.join(defaults)}; it has {', '.join(names)};"
                f" name the one that holds the {canonical} with --columns {canonical}=NAME"
            )
    return resolved


def _chosen_group(wanted: str, names: list[str]) -> tuple[str, ...]:
    return (wanted,) if wanted in names else tuple(wanted.split(","))


def _default_group(defaults: tuple[str, ...], names: list[str]) -> tuple[str, ...]:
    return tuple(name for name in defaults if name in names)[:1]


def row_count(spec: str, columns: Mapping[str, tuple[str, ...]], headers: Headers) -> int:
    """The number of rows that all used columns share.

    Raises:
        ValueError: they differ.
    """
    lengths = {name: headers[name][1][0] if headers[name][1] else 0 for group in columns.values() for name in group}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"source '{spec}': columns have different numbers of rows, {lengths}; expected one number")
    return next(iter(lengths.values()))


def layout_from_headers(spec: str, columns: dict[str, tuple[str, ...]], headers: Headers) -> Layout:
    """The layout of a source whose every column declares its dtype and shape.

    Raises:
        ValueError: a column is not numeric, or a row of it is no flat vector of the expected width.
    """
    widths = {canonical: _width(spec, canonical, group, headers) for canonical, group in columns.items()}
    for canonical, width in widths.items():
        expected = widths["observations"] if canonical == "next_observations" else 1
        if canonical not in ("observations", "actions") and width != expected:
            raise ValueError(
                f"source '{spec}': {canonical} has {width} numbers a row, expected {expected}; check --columns"
            )
    action_dtype = headers[columns["actions"][0]][0]
    return Layout(
        observation_dim=widths["observations"],
        action_dim=widths["actions"],
        is_discrete=widths["actions"] == 1 and action_dtype.kind in "iu",
        columns=columns,
    )


def _width(spec: str, canonical: str, group: tuple[str, ...], headers: Headers) -> int:
    """How many numbers a row of a canonical column has."""
    width = 0
    for name in group:
        dtype, shape = headers[name]
        if len(shape) > 2:
            raise ValueError(
                f"source '{spec}': column {name} has rows of shape {shape[1:]}, expected flat vectors for {canonical}"
            )
        if dtype.kind not in ("biufSUO" if canonical == "episode" else "biuf"):
            raise ValueError(f"source '{spec}': column {name} has dtype {dtype}, expected numbers for {canonical}")
        width += shape[1] if len(shape) == 2 else 1
    return width


def canonical_schema(layout: Layout) -> pa.Schema:
    """The types of a source's tables, in the order of the layout's columns."""
    scalars = {"rewards": pa.float32(), "episode": pa.int64(), "terminations": pa.bool_(), "truncations": pa.bool_()}
    return pa.schema(
        [
            (name, scalars[name] if name in scalars else pa.list_(pa.float32(), layout.width(name)))
            for name in layout.columns
        ]
    )


def canonical_table(values: Mapping[str, np.ndarray], layout: Layout, name_row: Callable[[int], str]) -> pa.Table:
    """A block of the source's own columns as one Arrow table in canonical names and types.

    Args:
        values: the source's column names to (rows, dim) or (rows,); floats of any width, flags as bools or 0 and 1.
        name_row: says where a row of this block lies.

    Raises:
        ValueError: flags other than 0 and 1, or episode ids that are neither integers nor strings.
    """
    arrays = {}
    for canonical, group in layout.columns.items():
        column = values[group[0]] if len(group) == 1 else np.column_stack([values[name] for name in group])
        column = column.reshape(len(column), -1)
        if column.shape[1] != layout.width(canonical):
            raise ValueError(
                f"{canonical} has {column.shape[1]} numbers a row at {name_row(0)}, expected {layout.width(canonical)}"
            )
        arrays[canonical] = _canonical_array(canonical, column, name_row)
    return pa.table(arrays)


def _canonical_array(canonical: str, column: np.ndarray, name_row: Callable[[int], str]) -> pa.Array:
    """(rows, width) of any numbers as the Arrow array of the canonical column."""
    if canonical in MATRIX_COLUMNS:
        return fixed_size_lists(_float32(column))
    flat = column.reshape(-1)
    if canonical == "rewards":
        return pa.array(_float32(flat))
    return pa.array(_episode_ids(flat) if canonical == "episode" else _flags(canonical, flat, name_row))


def _float32(values: np.ndarray) -> np.ndarray:
    """Cast; what does not fit float32 becomes infinite, which the check on values then names."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def _flags(canonical: str, values: np.ndarray, name_row: Callable[[int], str]) -> np.ndarray:
    is_flag = (values == 0) | (values == 1)
    if not is_flag.all():
        row = int(np.argmin(is_flag))
        raise ValueError(f"{canonical} has {values[row]} at {name_row(row)}; expected true and false, or 0 and 1")
    return values.astype(bool)


def _episode_ids(values: np.ndarray) -> np.ndarray:
    """Integers as they are; strings as 64 bits of their hash, the same in every process."""
    is_whole = values.dtype.kind in "iub" or (values.dtype.kind == "f" and bool((values == np.floor(values)).all()))
    if is_whole:
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        raise ValueError(f"episode ids have dtype {values.dtype} with fractions or NaN, expected integers or strings")
    names, inverse = np.unique(values.astype(str), return_inverse=True)
    hashes = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little", signed=True) for name in names]
    return np.array(hashes, np.int64)[inverse]
