"""The prepared dataset as its readers see it: a folder of Parquet shards and the manifest that describes them.

Writing one is `writing.py`; what the rows say is `inspection`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iql_ray import config
from iql_ray.data.fetching import MANIFEST_FILE, local_folder
from iql_ray.data.statistics import ColumnStatistics, Summary
from iql_ray.experience import Spaces

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_READ = 65_536

FORMAT = "iql_ray prepared dataset"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One Parquet file of the dataset, by name within its folder."""

    file: str
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file that the data came from."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class AppliedFix:
    """A rule of `prepare --fix` and what it did; a rule that found nothing to do says 0."""

    rule: str
    num_rows: int
    """Rows that were changed or left out."""
    num_episodes: int
    """Episodes, as the source has them, that such a row lay in."""
    description: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How the dataset was made; no part of its digest."""

    source: str
    files: tuple[SourceFile, ...]
    columns: dict[str, str]
    """Canonical column to the source's own name or names."""
    action_bounds: tuple[float, float] | None
    """What `--action-bounds` said; the actions were mapped from this box to the spaces' bounds."""
    are_action_bounds_assumed: bool
    """Nothing said what the box is, and [-1, 1] holds all actions."""
    num_clipped_actions: int
    """Numbers beyond their bound by no more than float noise."""
    are_truncations_recorded: bool
    num_derived_truncations: int
    """Episodes that ended without a flag in the source and count as cut."""
    seed: int
    recorded: dict[str, str]
    """What the source says of itself."""
    iql_ray_version: str
    created_at: str
    git_commit: str | None = None
    """Of this package where it runs from a checkout, `-dirty` after it where files differ from the commit."""
    fixes: tuple[AppliedFix, ...] = ()
    """What `prepare --fix` was told to repair, in the order in which it was done."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What there is to know about a prepared dataset without opening a shard.

    Actions are in the environment's own units, observations and rewards as logged. An episode's return and length
    count all its logged rows, also one that was dropped because nothing was observed after it.
    """

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    spaces: Spaces
    environment_id: str | None
    num_rows: int
    num_episodes: int
    num_dropped_rows: int
    num_terminations: int
    num_truncations: int
    shards: tuple[Shard, ...]
    digest: str
    """sha256 over spaces and rows in shuffled order; the same for any source format, shard size and machine."""
    columns: dict[str, ColumnStatistics]
    """Of observations, actions, rewards and next_observations."""
    episode_returns: Summary
    episode_lengths: Summary
    licence: str | None
    provenance: Provenance


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a prepared dataset whose shards are all there; one behind a URI is fetched first.

    Raises:
        ValueError: no such folder, no prepared dataset, another format version, a shard missing or of another size.
    """
    folder = local_folder(folder)
    if not folder.is_dir():
        raise ValueError(f"dataset {folder} does not exist; expected a folder made by `iql-ray prepare --out {folder}`")
    if not is_prepared(folder):
        raise ValueError(f"{folder} is no prepared dataset, it has no {MANIFEST_FILE} of ours; use iql-ray prepare")
    values = config.read(folder / MANIFEST_FILE)
    if values.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"dataset {folder} has format version {values.get('format_version')}, this version reads {FORMAT_VERSION};"
            " prepare it again"
        )
    manifest = config.from_dict(Manifest, values, source=str(folder / MANIFEST_FILE))
    for shard in manifest.shards:
        _check_shard(folder, shard)
    return manifest


def is_prepared(folder: Path) -> bool:
    """Whether the folder holds a manifest of ours, of any version."""
    try:
        values = json.loads((folder / MANIFEST_FILE).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.get("format") == FORMAT


def shard_paths(folder: str | Path) -> list[Path]:
    """The shards' absolute paths in order, checked as `read_manifest` does."""
    return [local_folder(folder).absolute() / shard.file for shard in read_manifest(folder).shards]


def read_columns(folder: str | Path, *columns: str) -> Iterator[pa.Table]:
    """These columns of all shards in order, at most `ROWS_PER_READ` rows at a time, checked as `read_manifest` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in shard_paths(folder):
        with pq.ParquetFile(path) as shard:
            for batch in shard.iter_batches(ROWS_PER_READ, columns=list(columns)):
                yield pa.Table.from_batches([batch])


def _check_shard(folder: Path, shard: Shard) -> None:
    path = folder / shard.file
    size = path.stat().st_size if path.is_file() else None
    if size != shard.num_bytes:
        found = "is missing" if size is None else f"has {size} bytes"
        raise ValueError(f"dataset {folder}: {shard.file} {found}, expected {shard.num_bytes} bytes; prepare it again")
