"""HDF5 files in the flat D4RL layout: one dataset per column at the top of the file, one row per transition."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from iql_ray.data.sources.columns import canonical_table, layout_from_headers, resolve_columns, row_count
from iql_ray.data.sources.source import ROWS_PER_TABLE, Fragment, Layout, Source, existing_file, ranges

ROWS_PER_FRAGMENT = 4 * ROWS_PER_TABLE


def describe(spec: str, location: str, chosen: dict[str, str]) -> Source:
    """Open an HDF5 file by its datasets' headers.

    Raises:
        OSError: the file is cut short, or may not be read.
        ValueError: not an HDF5 file, a damaged one, or a column is missing or of the wrong kind.
    """
    path = existing_file("hdf5", location)
    headers = _headers(spec, path)
    columns = resolve_columns(spec, headers, chosen)
    num_rows = row_count(spec, columns, headers)
    fragments = tuple(
        Fragment(path=str(path), start=start, stop=stop, first_row=start, num_rows=stop - start)
        for start, stop in ranges(num_rows, ROWS_PER_FRAGMENT)
    )
    layout = layout_from_headers(spec, columns, headers)
    return Source(spec=spec, layout=layout, fragments=fragments, files=(path,), read_fragment=read)


def read(fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
    """The fragment's rows, a table at a time."""
    import h5py

    names = {name for group in layout.columns.values() for name in group}
    with h5py.File(fragment.path, "r") as file:
        for start, stop in ranges(fragment.num_rows, ROWS_PER_TABLE):
            rows = slice(fragment.start + start, fragment.start + stop)
            values: dict[str, Any] = {name: file[name][rows] for name in names}  # pyright: ignore[reportIndexIssue]
            yield canonical_table(values, layout, lambda row, start=start: fragment.name_row(start + row))


def _headers(spec: str, path: Path) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Dtype and shape of every dataset, without its values.

    Raises:
        OSError: the file is cut short, or may not be read.
        ValueError: not an HDF5 file, or a damaged one.
    """
    import h5py

    if not h5py.is_hdf5(path):
        raise ValueError(f"source '{spec}' is not an HDF5 file")
    headers = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            headers[name] = (item.dtype, item.shape)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (KeyError, RuntimeError) as error:  # h5py's, where an object inside the file is overwritten
        raise ValueError(f"source '{spec}' is damaged: {error}; fetch or write the file again") from error
    return headers
