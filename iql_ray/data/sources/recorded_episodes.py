"""Episodes that this process holds in memory, generated or collected, as a source like any other.

Nothing is read from disk: such a source has no files. Who makes the episodes is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import pyarrow as pa

from iql_ray.data.sources.columns import layout_from_headers, resolve_columns, row_count
from iql_ray.data.sources.source import ROWS_PER_TABLE, Fragment, Layout, Recorded, Source, ranges
from iql_ray.data.sources.tables import tables_from_blocks


def from_columns(spec: str, columns: Mapping[str, np.ndarray], recorded: Recorded | None = None) -> Source:
    """A source of rows in memory.

    Args:
        spec: what the source is called in messages and in the manifest.
        columns: canonical names to (rows, dim) or (rows,), episodes one after another; integers as (rows,) actions
            are choices.
        recorded: what else is known: spaces, environment, licence.

    Raises:
        ValueError: a required column is missing, is not numeric, or has another number of rows; no rows at all.
    """
    headers = {name: (values.dtype, values.shape) for name, values in columns.items()}
    resolved = resolve_columns(spec, headers, {})
    num_rows = row_count(spec, resolved, headers)
    if num_rows == 0:
        raise ValueError(f"source '{spec}' has zero rows; expected at least one transition")
    return Source(
        spec=spec,
        layout=layout_from_headers(spec, resolved, headers),
        fragments=(Fragment(path=spec, start=0, stop=num_rows, first_row=0, num_rows=num_rows),),
        files=(),
        read_fragment=partial(_read, columns),
        recorded=recorded or Recorded(),
    )


def _read(columns: Mapping[str, np.ndarray], fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
    """The fragment's rows, a table at a time."""
    blocks = (
        {name: columns[name][start:stop] for name in layout.own_columns}
        for start, stop in ranges(fragment.num_rows, ROWS_PER_TABLE)
    )
    return tables_from_blocks(blocks, layout, fragment)
