"""Where logged data comes from: a `kind:location` specification becomes ordered fragments of canonical tables.

One module per format; each says how to `describe` a location (cheaply, from headers) and how to `read` a fragment
of it in any process. Nothing here knows Ray, checks values, or links one row to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from iql_ray.config import unknown_key
from iql_ray.data.sources import hdf5, minari, npz, parquet
from iql_ray.data.sources.columns import CANONICAL, canonical_schema, parse_columns
from iql_ray.data.sources.source import Fragment, Layout, Recorded, Source

__all__ = ["KINDS", "Fragment", "Layout", "Recorded", "Source", "canonical_schema", "open_source", "parse_columns"]

KINDS: dict[str, ModuleType] = {"npz": npz, "hdf5": hdf5, "parquet": parquet, "minari": minari}


def open_source(spec: str, columns: Mapping[str, str] | None = None) -> Source:
    """Look at a source's headers, not at its rows.

    Args:
        spec: `npz:PATH`, `hdf5:PATH`, `parquet:FILE|FOLDER|GLOB` or `minari:ID_OR_PATH`.
        columns: canonical name to the source's own name, or to several scalar columns joined by commas.

    Raises:
        ValueError: unknown kind, missing or damaged file, missing column, wrong dtype or shape, no rows.
    """
    kind, _, location = spec.partition(":")
    if kind not in KINDS or not location:
        raise ValueError(f"source '{spec}' is not KIND:LOCATION with a kind of {', '.join(KINDS)}; e.g. npz:data.npz")
    columns = dict(columns or {})
    for name in columns:
        if name not in CANONICAL:
            raise ValueError(f"--columns: {unknown_key(name, list(CANONICAL))}")
    try:
        source = KINDS[kind].describe(spec, location, columns)
    except OSError as error:
        raise ValueError(
            f"source '{spec}' cannot be read: {error}; it must be whole and readable, so fetch or write it again"
        ) from error
    if source.num_rows == 0:
        raise ValueError(f"source '{spec}' has zero rows; expected at least one transition")
    return source
