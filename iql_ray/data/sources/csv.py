"""CSV logs: one file, a folder of them, or a glob, in the natural order of their names; a header, then a row a line.

Every number of a vector is a column of its own: `observations=x,y,speed`. Files may be gzipped. A fragment is a file,
streamed; opening a source reads its files through once, to count their rows and to tell numbers from choices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from iql_ray.data.sources.arrow_columns import column_values
from iql_ray.data.sources.columns import layout_from_headers, resolve_columns, resolve_extra
from iql_ray.data.sources.files import RemoteFile, SourceFile, find_files, is_uri, naming, resolve
from iql_ray.data.sources.source import Fragment, Layout, Source
from iql_ray.data.sources.tables import tables_from_blocks
from iql_ray.data.sources.time_order import ordered_fragments, with_episodes

SUFFIXES = (".csv", ".csv.gz")
BLOCK_BYTES = 4 * 2**20
WHOLE_NUMBER, INDEX = r"^\s*[+-]?[0-9]{1,18}\s*$", r"^\s*[0-9]{1,18}\s*$"
"""18 digits fit 64 bits whatever they are; longer ids are words. An action below 0 is a torque, and no choice."""
TRUE_VALUES, FALSE_VALUES = ["1", "true", "True", "TRUE", "1.0"], ["0", "false", "False", "FALSE", "0.0"]

Types = Mapping[str, pa.DataType]
"""A source's own column to the type that all of its files are read with."""


def describe(spec: str, location: str, chosen: dict[str, str]) -> Source:
    """Open CSV files by reading them through once: their headers, their rows' number, and what is a whole number.

    Raises:
        ValueError: no file, a header without the columns, files of different headers, a line of another length,
            rows out of order.
    """
    files = find_files(spec, location, SUFFIXES, "CSV")
    names = _header(str(files[0]))
    columns = resolve_columns(spec, names, chosen)
    time = resolve_extra(spec, "time", names, chosen)
    success = resolve_extra(spec, "success", names, chosen)
    for file in files[1:]:
        if missing := sorted(set(names) - set(_header(str(file)))):
            raise ValueError(f"source '{spec}': {file.name} lacks columns {missing} that {files[0].name} has")
    survey = Survey(columns, time)
    fragments = tuple(fragment for file in files if (fragment := survey.fragment(file)).num_rows)
    types = survey.types(success)
    headers = {name: (kind.to_pandas_dtype(), (1,)) for name, kind in types.items()}
    headers = {name: (np.dtype(kind), shape) for name, (kind, shape) in headers.items()}
    layout = layout_from_headers(spec, columns, headers, success=success, time=time)
    fragments = ordered_fragments(fragments, layout, partial(read_columns, types))
    return Source(spec=spec, layout=layout, fragments=fragments, files=files, read_fragment=partial(read, types))


class Survey:
    """What one pass over all files tells: numbers of rows, and which of the open columns hold whole numbers only.

    Open are the actions (choices or torques), the episode ids (numbers or words) and the times. Everything else has a
    type by its role, whatever the first lines look like: a reward of `0` may be followed by one of `0.5`.
    """

    def __init__(self, columns: Mapping[str, tuple[str, ...]], time: tuple[str, ...]) -> None:
        self.columns, self.time = columns, time
        actions = columns["actions"] if len(columns["actions"]) == 1 else ()
        self.is_whole = dict.fromkeys([*actions, *self._ids(), *time], True)
        self.time_type: pa.DataType | None = None

    def _ids(self) -> tuple[str, ...]:
        """The column of episode ids, if the file has one."""
        return tuple(name for name in self.columns.get("episode", ()) if not name.startswith("("))

    def fragment(self, file: SourceFile) -> Fragment:
        """Read one file through."""
        path = str(file)
        if self.time and self.time_type is None:
            self.time_type = _inferred_type(path, self.time[0])
        names = list(self.is_whole) or [self.columns["rewards"][0]]
        num_rows = 0
        for batch in _batches(path, dict.fromkeys(names, pa.string())):
            num_rows += batch.num_rows
            for name in [name for name, is_whole in self.is_whole.items() if is_whole]:
                pattern = INDEX if (name,) == self.columns["actions"] else WHOLE_NUMBER
                self.is_whole[name] = _all_match(batch.column(name), pattern)
        return Fragment(path=path, start=0, stop=num_rows, first_row=0, num_rows=num_rows)

    def types(self, success: tuple[str, ...]) -> dict[str, pa.DataType]:
        """The type of every column that is read."""
        types: dict[str, pa.DataType] = {}
        for canonical, group in self.columns.items():
            is_flag = canonical in ("terminations", "truncations")
            types |= dict.fromkeys(group, pa.bool_() if is_flag else pa.float64())
        types |= dict.fromkeys(success, pa.bool_())
        types |= {name: pa.string() for name in self._ids()}
        types |= {name: self.time_type for name in self.time if self.time_type is not None}
        types |= {name: pa.int64() for name, is_whole in self.is_whole.items() if is_whole}
        return {name: kind for name, kind in types.items() if not name.startswith("(")}


def _all_match(texts: pa.Array, pattern: str) -> bool:
    """Whether all texts are of this form; nulls are named when the rows are read."""
    matches = pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(pattern))
    return pc.call_function("all", [matches]).as_py() is not False


def read(types: Types, fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
    """The file's rows, a table at a time."""
    blocks = with_episodes(read_columns(types, fragment, layout.own_columns), layout, fragment)
    return tables_from_blocks(blocks, layout, fragment)


def read_columns(types: Types, fragment: Fragment, names: list[str]) -> Iterator[dict[str, np.ndarray]]:
    """Some of the file's columns, a block at a time."""
    start = 0
    for batch in _batches(fragment.path, {name: types[name] for name in names}):

        def name_row(row: int, start: int = start) -> str:
            return fragment.name_row(start + row)

        yield {name: column_values(name, batch.column(name), name_row) for name in names}
        start += batch.num_rows


def _header(path: str) -> list[str]:
    with _reader(path) as reader:
        names = reader.schema.names
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{path} has columns {', '.join(twice)} twice; name each column once")
    return names


def _inferred_type(path: str, name: str) -> pa.DataType:
    """What Arrow makes of a column's first block: a timestamp (later ones may be finer), or a number."""
    with _reader(path) as reader:
        kind = reader.schema.field(name).type
    if pa.types.is_timestamp(kind):
        return pa.timestamp("ns", tz=kind.tz)
    return kind if pa.types.is_temporal(kind) else pa.float64()


def _batches(path: str, types: Types) -> Iterator[pa.RecordBatch]:
    with _reader(path, types) as reader:
        yield from reader


@contextmanager
def _reader(path: str, types: Types | None = None) -> Iterator[arrow_csv.CSVStreamingReader]:
    """The file as it streams, only the columns that have a type; all, with inferred types, without.

    Raises:
        ValueError: no CSV, a line of another length, or a value that is not of its column's type; names file and row.
    """
    names = list(types or {})
    convert = arrow_csv.ConvertOptions(
        column_types=dict(types or {}),
        include_columns=names,
        true_values=TRUE_VALUES,
        false_values=FALSE_VALUES,
        strings_can_be_null=True,
    )
    options = arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES)
    with naming(path, known_by=RemoteFile(path).name):
        try:
            with arrow_csv.open_csv(_stream(path), read_options=options, convert_options=convert) as reader:
                yield reader
        except pa.ArrowInvalid as error:
            raise ValueError(_refusal(path, str(error), names)) from error


def _stream(path: str) -> Any:
    """A path is unzipped by its ending, and so is a stream."""
    if not is_uri(path):
        return path
    filesystem, inner = resolve(path)
    return filesystem.open_input_stream(inner)


def _refusal(path: str, message: str, names: list[str]) -> str:
    """Arrow's complaint in rows that are counted as everywhere here: from 0, without the header."""
    row = re.search(r"Row #(\d+): ", message)
    where = f"row {int(row[1]) - 2} of {path}" if row else path
    reason = message.partition(row[0])[2] if row else message
    column = re.search(r"In CSV column #(\d+)", message)
    named = f"column {_column_name(path, int(column[1]))} at " if column else ""
    return f"{named}{where}: {reason}; correct the line"


def _column_name(path: str, index: int) -> str:
    """Arrow counts a file's columns from 0."""
    return _header(path)[index]
