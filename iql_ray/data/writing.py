"""From tables in order to a prepared dataset: checked, linked, shuffled once, written whole or not at all.

One pass over the source, one over the shuffled rows; memory holds a few blocks, a bucket and a shard.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iql_ray import config
from iql_ray.data.actions import BoxActions
from iql_ray.data.episodes import EpisodeLog, link_next_observations
from iql_ray.data.fixes import Fixes
from iql_ray.data.intake import Intake, WritingPlan, numbered, with_fields
from iql_ray.data.lineage import git_commit, package_version
from iql_ray.data.prepared import MANIFEST_FILE, Manifest, Provenance, Shard, SourceFile, is_prepared
from iql_ray.data.schema import FLOAT_COLUMNS, Records, record_dtype, table_from_records
from iql_ray.data.shuffling import gather, num_buckets, scatter
from iql_ray.data.sources.files import SourceFile as SourceLocation
from iql_ray.data.sources.source import Layout
from iql_ray.data.statistics import RunningStatistics, summarize
from iql_ray.experience import Spaces

ROWS_PER_GROUP = 65_536


class Tally:
    """What is said in the manifest of the rows as they are written."""

    def __init__(self) -> None:
        self.columns = {name: RunningStatistics() for name in FLOAT_COLUMNS}
        self.num_terminations = 0
        self.num_truncations = 0
        self._hash = hashlib.sha256()

    def add(self, records: Records) -> None:
        """Take the next rows in shuffled order."""
        for name, statistics in self.columns.items():
            statistics.add(records[name])
        self.num_terminations += int(records["terminations"].sum())
        self.num_truncations += int(records["truncations"].sum())
        self._hash.update(np.ascontiguousarray(records).view(np.uint8).data)

    def digest(self, spaces: Spaces) -> str:
        """sha256 of the rows so far and of the spaces that they live in."""
        spaces_text = json.dumps(asdict(spaces), sort_keys=True)
        return hashlib.sha256(f"{self._hash.hexdigest()} {spaces_text}".encode()).hexdigest()


def write_dataset(tables: Iterable[pa.Table], plan: WritingPlan) -> Manifest:
    """Write the whole prepared dataset into `plan.destination`.

    Args:
        tables: the source's rows in order, in blocks of any size.

    Raises:
        ValueError: anything wrong with the rows or with the destination; then nothing is left behind or overwritten.
    """
    layout = plan.source.layout
    dtype = record_dtype(layout.observation_dim, layout.action_dim)
    with replacing(plan.destination, plan.overwrite) as folder:
        staging = folder / "staging"
        staging.mkdir()
        intake, log, fixes, tally = Intake(plan), EpisodeLog(), Fixes(plan.fixes, plan.facts), Tally()
        blocks = _linked(numbered(tables, intake, log, fixes), dtype, plan)
        buckets = num_buckets(plan.source.num_rows, dtype.itemsize)
        num_rows = scatter(blocks, dtype, staging, seed=plan.seed, buckets=buckets)
        if num_rows == 0:
            raise ValueError(f"source '{plan.source.spec}' has no row with a next observation; nothing to learn from")
        pieces = cut(gather(staging, dtype), balanced_sizes(num_rows, plan.rows_per_shard))
        shards = tuple(_write_shard(folder, index, piece, tally) for index, piece in enumerate(pieces))
        staging.rmdir()
        manifest = _manifest(plan, intake, log, fixes, tally, shards)
        config.save(manifest, folder / MANIFEST_FILE)
    return manifest


def check_destination(destination: Path, overwrite: bool) -> None:
    """Refuse to write where something else is.

    Raises:
        ValueError: a file, a folder that holds something else, or a prepared dataset without `overwrite`.
    """
    if destination.is_dir() and is_prepared(destination):
        if not overwrite:
            raise ValueError(f"{destination} already holds a prepared dataset; choose another --out, or --overwrite it")
    elif destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise ValueError(f"{destination} holds something that is no prepared dataset; choose another --out")


@contextmanager
def replacing(destination: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside the destination that takes its place at the end; an error leaves all as it was."""
    destination = destination.absolute()
    check_destination(destination, overwrite)
    destination.parent.mkdir(parents=True, exist_ok=True)
    suffix = uuid.uuid4().hex[:8]
    folder = destination.with_name(f".{destination.name}.partial-{suffix}")
    folder.mkdir()
    try:
        yield folder
        check_destination(destination, overwrite)
        if destination.exists() and overwrite:
            destination.rename(destination.with_name(f".{destination.name}.replaced-{suffix}"))
        folder.rename(destination)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(destination.with_name(f".{destination.name}.replaced-{suffix}"), ignore_errors=True)


def balanced_sizes(num_rows: int, rows_per_shard: int) -> list[int]:
    """As few shards as hold the rows, whose sizes differ by one at most: 10 rows by at most 4 are 4, 3 and 3."""
    num_shards = -(-num_rows // rows_per_shard)
    return [num_rows // num_shards + (index < num_rows % num_shards) for index in range(num_shards)]


def cut(pieces: Iterable[Records], sizes: Sequence[int]) -> Iterator[Records]:
    """The same rows in pieces of exactly these sizes."""
    stream = iter(pieces)
    held: list[Records] = []
    num_held = 0
    for size in sizes:
        while num_held < size:
            held.append(next(stream))
            num_held += len(held[-1])
        rows = np.concatenate(held)
        yield rows[:size]
        held, num_held = [rows[size:]], num_held - size


def _linked(blocks: Iterator[Records], dtype: np.dtype[Any], plan: WritingPlan) -> Iterator[Records]:
    plain = (block if block.dtype == dtype else with_fields(block, dtype) for block in blocks)
    return plain if plan.source.layout.has_next_observations else link_next_observations(plain)


def _write_shard(folder: Path, index: int, records: Records, tally: Tally) -> Shard:
    path = folder / f"shard-{index:05d}.parquet"
    tally.add(records)
    pq.write_table(
        table_from_records(records), path, row_group_size=ROWS_PER_GROUP, compression="zstd", use_dictionary=False
    )
    return Shard(file=path.name, num_rows=len(records), num_bytes=path.stat().st_size, sha256=file_sha256(path))


def file_sha256(path: SourceLocation) -> str:
    """The hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(
    plan: WritingPlan, intake: Intake, log: EpisodeLog, fixes: Fixes, tally: Tally, shards: tuple[Shard, ...]
) -> Manifest:
    columns = {name: statistics.result() for name, statistics in tally.columns.items()}
    spaces = plan.actions.spaces(plan.source.layout.observation_dim, int(columns["actions"].max[0]))
    num_rows = sum(shard.num_rows for shard in shards)
    return Manifest(
        spaces=spaces,
        environment_id=plan.environment_id or plan.source.recorded.environment_id,
        num_rows=num_rows,
        num_episodes=len(log.returns),
        num_dropped_rows=log.num_rows - num_rows,
        num_terminations=tally.num_terminations,
        num_truncations=tally.num_truncations,
        shards=shards,
        digest=tally.digest(spaces),
        columns=columns,
        episode_returns=summarize(log.returns),
        episode_lengths=summarize(log.lengths),
        licence=plan.licence or plan.source.recorded.licence,
        provenance=_provenance(plan, intake, log, fixes),
    )


def _named_columns(layout: Layout) -> dict[str, tuple[str, ...]]:
    return {**layout.columns, "time": layout.time} if layout.time else layout.columns


def _provenance(plan: WritingPlan, intake: Intake, log: EpisodeLog, fixes: Fixes) -> Provenance:
    source = plan.source
    return Provenance(
        source=source.spec,
        files=tuple(
            SourceFile(name=path.name, num_bytes=path.stat().st_size, sha256=file_sha256(path)) for path in source.files
        ),
        columns={canonical: ",".join(group) for canonical, group in _named_columns(source.layout).items()},
        action_bounds=plan.action_bounds,
        are_action_bounds_assumed=isinstance(plan.actions, BoxActions) and plan.actions.is_assumed,
        num_clipped_actions=intake.num_clipped_actions,
        are_truncations_recorded=source.layout.has_truncations,
        num_derived_truncations=log.num_derived_truncations,
        seed=plan.seed,
        recorded=source.recorded.details,
        iql_ray_version=package_version(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        git_commit=git_commit(),
        fixes=fixes.applied(),
    )
