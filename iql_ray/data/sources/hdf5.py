"""HDF5 files in the flat D4RL layout: one dataset per column at the top of the file, one row per transition.

All suites' files are read: with next observations (locomotion) or without (mazes, kitchen, Adroit), with `timeouts` or
without, rewards and flags as (rows,) or (rows, 1). `metadata/` is passed over, and so is `infos/` but for success.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from iql_ray.data.sources.columns import layout_from_headers, refuse_time, resolve_columns, resolve_extra, row_count
from iql_ray.data.sources.files import existing_file, naming, openable
from iql_ray.data.sources.source import ROWS_PER_TABLE, Fragment, Layout, Source, ranges
from iql_ray.data.sources.tables import Block, tables_from_blocks

ROWS_PER_FRAGMENT = 4 * ROWS_PER_TABLE
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def describe(spec: str, location: str, chosen: dict[str, str]) -> Source:
    """Open an HDF5 file by its datasets' headers.

    Raises:
        ValueError: not an HDF5 file, a damaged one, or a column is missing or of the wrong kind.
    """
    refuse_time(spec, chosen)
    file = existing_file("hdf5", location)
    with file.open("rb") as start_of_file:
        if start_of_file.read(len(SIGNATURE)) != SIGNATURE:
            raise ValueError(f"source '{spec}' is not an HDF5 file")
    with naming(f"source '{spec}'", known_by=spec):
        headers = _headers(str(file))
    columns = resolve_columns(spec, headers, chosen)
    num_rows = row_count(spec, columns, headers)
    flag_columns = [name for name, (_, shape) in headers.items() if shape in ((num_rows,), (num_rows, 1))]
    success = resolve_extra(spec, "success", headers if "success" in chosen else flag_columns, chosen)
    fragments = tuple(
        Fragment(path=str(file), start=start, stop=stop, first_row=start, num_rows=stop - start)
        for start, stop in ranges(num_rows, ROWS_PER_FRAGMENT)
    )
    layout = layout_from_headers(spec, columns, headers, success=success)
    return Source(spec=spec, layout=layout, fragments=fragments, files=(file,), read_fragment=read)


def read(fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
    """The fragment's rows, a table at a time."""
    return tables_from_blocks(_blocks(fragment, layout), layout, fragment)


def _blocks(fragment: Fragment, layout: Layout) -> Iterator[Block]:
    import h5py

    with naming(fragment.path, known_by=fragment.path), h5py.File(openable(fragment.path), "r") as file:
        for start, stop in ranges(fragment.num_rows, ROWS_PER_TABLE):
            rows = slice(fragment.start + start, fragment.start + stop)
            block: dict[str, Any] = {name: file[name][rows] for name in layout.own_columns}  # pyright: ignore[reportIndexIssue]
            yield block


def _headers(path: str) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Dtype and shape of every dataset, without its values."""
    import h5py

    headers = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            headers[name] = (item.dtype, item.shape)

    with h5py.File(openable(path), "r") as file:
        file.visititems(visit)
    return headers
