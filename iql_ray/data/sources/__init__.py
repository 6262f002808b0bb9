"""Where logged data comes from: a `kind:location` specification becomes ordered fragments of canonical tables.

One module per format; each says how to `describe` a location (from headers where the format has them) and how to `read`
a fragment of it in any process. Nothing here knows Ray, checks the order of rows or links one row to the next, except
where a column of times is to tell episodes apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from iql_ray.config import unknown_key
from iql_ray.data.sources import csv, hdf5, minari, npz, ogbench, parquet, rllib
from iql_ray.data.sources.columns import CANONICAL, EXTRA, parse_columns
from iql_ray.data.sources.files import naming
from iql_ray.data.sources.source import Fragment, Layout, Recorded, Source
from iql_ray.data.sources.tables import canonical_schema

__all__ = ["KINDS", "Fragment", "Layout", "Recorded", "Source", "canonical_schema", "open_source", "parse_columns"]

KINDS: dict[str, ModuleType] = {
    "npz": npz,
    "hdf5": hdf5,
    "parquet": parquet,
    "csv": csv,
    "minari": minari,
    "ogbench": ogbench,
    "rllib": rllib,
}
MADE_KIND = "umaze"
"""Known to `iql-ray prepare` alone: episodes that are drawn there, not read from anywhere."""


def open_source(spec: str, columns: Mapping[str, str] | None = None) -> Source:
    """Look at a source's headers; CSV, JSON and columns of times are read through once, their rows are not kept.

    Args:
        spec: `npz:PATH`, `hdf5:PATH`, `ogbench:PATH`, `parquet:FILE|FOLDER|GLOB`, `csv:FILE|FOLDER|GLOB`,
            `rllib:FILE|FOLDER|GLOB` or `minari:ID_OR_PATH`; all but minari also take a URI: `parquet:s3://BUCKET/KEY`.
        columns: canonical name to the source's own name, or to several scalar columns joined by commas; also `time`,
            which orders the rows and tells episodes apart (parquet, csv), `success`, and the word `never` for
            terminations or truncations.

    Raises:
        ValueError: unknown kind, missing, unreachable or damaged file, missing column, wrong dtype or shape, no rows.
    """
    kind, _, location = spec.partition(":")
    if kind not in KINDS or not location:
        kinds = ", ".join([*KINDS, MADE_KIND])
        raise ValueError(f"source '{spec}' is not KIND:LOCATION with a kind of {kinds}; e.g. npz:data.npz")
    columns = dict(columns or {})
    for name in columns:
        if name not in CANONICAL and name not in EXTRA:
            raise ValueError(f"--columns: {unknown_key(name, [*CANONICAL, *EXTRA])}")
    with naming(f"source '{spec}'", known_by=""):
        source = KINDS[kind].describe(spec, location, columns)
    if source.num_rows == 0:
        raise ValueError(f"source '{spec}' has zero rows; expected at least one transition")
    return source
