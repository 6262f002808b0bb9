"""Parquet files: one, a folder of them, or a glob, in the natural order of their names; a row is a transition.

Vectors are list columns, or several scalar columns joined by commas in the mapping. A fragment is one row group.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iql_ray.data.sources.columns import canonical_table, layout_from_headers, resolve_columns
from iql_ray.data.sources.source import ROWS_PER_TABLE, Fragment, Layout, Source


def describe(spec: str, location: str, chosen: dict[str, str]) -> Source:
    """Open Parquet files by their footers and the first row, which tells how long the lists are.

    Raises:
        ValueError: no file, an unreadable one, a column missing or of the wrong kind, files of different schemas.
    """
    files = parquet_files(spec, location)
    fragments = tuple(fragment for path in files for fragment in _row_groups(spec, path, files[0]))
    if not fragments:
        raise ValueError(f"source '{spec}' has zero rows; expected at least one transition")
    with pq.ParquetFile(fragments[0].path) as file:
        columns = resolve_columns(spec, file.schema_arrow.names, chosen)
        names = [name for group in columns.values() for name in group]
        first = next(file.iter_batches(batch_size=1, columns=names))
    one_row = {name: _values(name, first.column(name), fragments[0].name_row) for name in names}
    layout = layout_from_headers(spec, columns, {name: (row.dtype, row.shape) for name, row in one_row.items()})
    return Source(spec=spec, layout=layout, fragments=fragments, files=files, read_fragment=read)


def parquet_files(spec: str, location: str) -> tuple[Path, ...]:
    """The files of a location in natural order: `part-2` before `part-10`, as they were written.

    Raises:
        ValueError: there is none.
    """
    path = Path(location).expanduser()
    if path.is_dir():
        found = [file for file in path.rglob("*.parquet") if not _is_hidden(file.relative_to(path))]
    else:
        found = [path] if path.is_file() else [Path(name) for name in glob.glob(str(path)) if Path(name).is_file()]
    if not found:
        raise ValueError(f"source '{spec}': no Parquet file at {path} (a file, a folder of *.parquet, or a glob)")
    return tuple(sorted(found, key=lambda file: [_natural(part) for part in file.parts]))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key in which digits compare as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _row_groups(spec: str, path: Path, first: Path) -> Iterator[Fragment]:
    try:
        with pq.ParquetFile(path) as file, pq.ParquetFile(first) as reference:
            sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
            missing = set(reference.schema_arrow.names) - set(file.schema_arrow.names)
    except pa.ArrowInvalid as error:
        raise ValueError(f"source '{spec}': {path} is not a Parquet file: {error}") from error
    if missing:
        raise ValueError(f"source '{spec}': {path.name} lacks columns {sorted(missing)} that {first.name} has")
    first_row = 0
    for index, size in enumerate(sizes):
        if size:
            yield Fragment(path=str(path), start=index, stop=index + 1, first_row=first_row, num_rows=size)
        first_row += size


def read(fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
    """The fragment's rows, a table at a time, without holding the row group."""
    names = [name for group in layout.columns.values() for name in group]
    row_groups = list(range(fragment.start, fragment.stop))
    start = 0
    with pq.ParquetFile(fragment.path) as file:
        for batch in file.iter_batches(ROWS_PER_TABLE, row_groups=row_groups, columns=names, use_threads=False):

            def name_row(row: int, start: int = start) -> str:
                return fragment.name_row(start + row)

            values = {name: _values(name, batch.column(name), name_row) for name in names}
            yield canonical_table(values, layout, name_row)
            start += batch.num_rows


def _values(name: str, column: pa.Array, name_row: Callable[[int], str]) -> np.ndarray:
    """An Arrow column as (rows,) or, where it holds lists, as (rows, length).

    Raises:
        ValueError: a null, lists of different lengths, or a type that is no number, string or list.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if column.null_count:
        where = name_row(_first(column.is_null()))
        raise ValueError(f"column {name} is null at {where}; expected a value in every row")
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not _is_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    lengths = pc.call_function("list_value_length", [column]).to_numpy()
    if (lengths != lengths[0]).any():
        row = int(np.argmax(lengths != lengths[0]))
        where = name_row(row)
        raise ValueError(f"column {name} has a list of {lengths[row]} at {where}, expected {lengths[0]} as before it")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), lengths[0])


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _first(mask: pa.BooleanArray) -> int:
    return pc.index(mask, True).as_py()
