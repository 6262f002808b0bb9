"""Parquet files: one, a folder of them, or a glob, in the natural order of their names; a row is a transition.

Vectors are list columns, or several scalar columns joined by commas in the mapping. A fragment is one row group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from iql_ray.data.sources.arrow_columns import column_values
from iql_ray.data.sources.columns import CANONICAL, Names, layout_from_headers, resolve_columns, resolve_extra
from iql_ray.data.sources.files import SourceFile, find_files, naming, openable
from iql_ray.data.sources.source import ROWS_PER_TABLE, Fragment, Layout, Source
from iql_ray.data.sources.tables import Block, tables_from_blocks
from iql_ray.data.sources.time_order import ordered_fragments, with_episodes

SUFFIXES = (".parquet",)


def describe(spec: str, location: str, chosen: dict[str, str]) -> Source:
    """Open Parquet files by their footers and the first row, which tells how long the lists are.

    Where a column of times is named, that column and the flags are read through once.

    Raises:
        ValueError: no file, an unreadable one, a column missing or of the wrong kind, files of different schemas,
            rows out of order.
    """
    return describe_files(spec, find_files(spec, location, SUFFIXES, "Parquet"), chosen, CANONICAL)


def describe_files(spec: str, files: tuple[SourceFile, ...], chosen: Mapping[str, str], names: Names) -> Source:
    """As `describe`, for files that are found already and a format's own names of the canonical columns."""
    first_names = set(_schema(spec, files[0]).names)
    fragments = tuple(fragment for file in files for fragment in _row_groups(spec, file, first_names, files[0].name))
    if not fragments:
        raise ValueError(f"source '{spec}' has zero rows; expected at least one transition")
    columns = resolve_columns(spec, first_names, chosen, names)
    time = resolve_extra(spec, "time", first_names, chosen)
    success = resolve_extra(spec, "success", first_names, chosen)
    needed = Layout(observation_dim=0, action_dim=0, is_discrete=False, columns=columns, time=time).own_columns
    first = next(read_columns(fragments[0], [*needed, *time], rows_per_block=1), None)
    if first is None:
        raise ValueError(f"source '{spec}': {files[0]} is damaged: its footer counts rows that it does not have")
    headers = {name: (values.dtype, values.shape) for name, values in first.items()}
    layout = layout_from_headers(spec, columns, headers, success=success, time=time)
    fragments = ordered_fragments(fragments, layout, read_columns)
    return Source(spec=spec, layout=layout, fragments=fragments, files=files, read_fragment=read)


def _schema(spec: str, file: SourceFile) -> pa.Schema:
    with _opened(spec, file) as parquet:
        return parquet.schema_arrow


def _row_groups(spec: str, file: SourceFile, expected: set[str], first_name: str) -> Iterator[Fragment]:
    with _opened(spec, file) as parquet:
        sizes = [parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)]
        missing = expected - set(parquet.schema_arrow.names)
    if missing:
        raise ValueError(f"source '{spec}': {file.name} lacks columns {sorted(missing)} that {first_name} has")
    first_row = 0
    for index, size in enumerate(sizes):
        if size:
            yield Fragment(path=str(file), start=index, stop=index + 1, first_row=first_row, num_rows=size)
        first_row += size


def _opened(spec: str, file: SourceFile) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(openable(str(file)))
    except pa.ArrowInvalid as error:
        raise ValueError(f"source '{spec}': {file} is not a Parquet file: {error}") from error


def read(fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
    """The fragment's rows, a table at a time, without holding the row group."""
    blocks = with_episodes(read_columns(fragment, layout.own_columns), layout, fragment)
    return tables_from_blocks(blocks, layout, fragment)


def read_columns(fragment: Fragment, names: list[str], rows_per_block: int = ROWS_PER_TABLE) -> Iterator[Block]:
    """Some of the fragment's columns, a block at a time; checksums of pages are verified where they were written."""
    row_groups = list(range(fragment.start, fragment.stop))
    start = 0
    with (
        naming(fragment.path, known_by=fragment.file_name),
        pq.ParquetFile(openable(fragment.path), page_checksum_verification=True) as file,
    ):
        for batch in file.iter_batches(rows_per_block, row_groups=row_groups, columns=names, use_threads=False):
            yield _block(batch, names, fragment, start)
            start += batch.num_rows


def _block(batch: pa.RecordBatch, names: list[str], fragment: Fragment, start: int) -> Block:
    return {name: column_values(name, batch.column(name), lambda row: fragment.name_row(start + row)) for name in names}
