"""What the manifest says: of the rows as they were written, and of how the dataset was made."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime

import numpy as np

from iql_ray.data.actions import BoxActions
from iql_ray.data.first_pass import FirstPass
from iql_ray.data.intake import WritingPlan
from iql_ray.data.lineage import git_commit, package_version
from iql_ray.data.prepared import Manifest, Provenance, Shard, SourceFile
from iql_ray.data.reading import num_threads
from iql_ray.data.schema import FLOAT_COLUMNS, Records
from iql_ray.data.sources.files import SourceFile as SourceLocation
from iql_ray.data.sources.source import Layout
from iql_ray.data.statistics import RunningStatistics, summarize
from iql_ray.experience import Spaces
from iql_ray.redaction import redacted


class Tally:
    """Counts and statistics of rows; those of several pieces are merged in order."""

    def __init__(self) -> None:
        self.columns = {name: RunningStatistics() for name in FLOAT_COLUMNS}
        self.num_terminations = 0
        self.num_truncations = 0

    def add(self, records: Records) -> None:
        """Take the next rows."""
        for name, statistics in self.columns.items():
            statistics.add(records[name])
        self.num_terminations += int(records["terminations"].sum())
        self.num_truncations += int(records["truncations"].sum())

    def merge(self, later: Tally) -> None:
        """Take what another counted of the rows that come after."""
        for name, statistics in self.columns.items():
            statistics.merge(later.columns[name])
        self.num_terminations += later.num_terminations
        self.num_truncations += later.num_truncations


class ContentHash:
    """Of all rows in shuffled order, whatever the pieces they come in."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, records: Records) -> None:
        """Take the next rows."""
        self._hash.update(np.ascontiguousarray(records).view(np.uint8).data)

    def digest(self, spaces: Spaces) -> str:
        """sha256 of the rows so far and of the spaces that they live in."""
        values = asdict(spaces)
        del values["observation_parts"]  # names say nothing of the numbers, and older datasets have none
        spaces_text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(f"{self._hash.hexdigest()} {spaces_text}".encode()).hexdigest()


def describe(
    plan: WritingPlan, first_pass: FirstPass, shards: tuple[Shard, ...], tally: Tally, content: ContentHash
) -> Manifest:
    """The manifest of a dataset all of whose shards are written."""
    columns = {name: statistics.result() for name, statistics in tally.columns.items()}
    spaces = plan.actions.spaces(plan.source.layout.observation_dim, int(columns["actions"].max[0]))
    spaces = replace(spaces, observation_parts=plan.source.recorded.observation_parts)
    num_rows, log = sum(shard.num_rows for shard in shards), first_pass.log
    return Manifest(
        spaces=spaces,
        environment_id=plan.environment_id or plan.source.recorded.environment_id,
        num_rows=num_rows,
        num_episodes=log.num_episodes,
        num_dropped_rows=log.num_rows - num_rows,
        num_terminations=tally.num_terminations,
        num_truncations=tally.num_truncations,
        shards=shards,
        digest=content.digest(spaces),
        columns=columns,
        episode_returns=summarize(log.returns),
        episode_lengths=summarize(log.lengths),
        licence=plan.licence or plan.source.recorded.licence,
        provenance=_provenance(plan, first_pass),
    )


def file_sha256(path: SourceLocation) -> str:
    """The hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _named_columns(layout: Layout) -> dict[str, tuple[str, ...]]:
    return {**layout.columns, "time": layout.time} if layout.time else layout.columns


def _source_file(file: SourceLocation) -> SourceFile:
    return SourceFile(name=file.name, num_bytes=file.stat().st_size, sha256=file_sha256(file))


def _provenance(plan: WritingPlan, first_pass: FirstPass) -> Provenance:
    source = plan.source
    with ThreadPoolExecutor(num_threads()) as pool:
        files = tuple(pool.map(_source_file, source.files))
    return Provenance(
        source=redacted(source.spec),
        files=files,
        columns={canonical: ",".join(group) for canonical, group in _named_columns(source.layout).items()},
        action_bounds=plan.action_bounds,
        are_action_bounds_assumed=isinstance(plan.actions, BoxActions) and plan.actions.is_assumed,
        num_clipped_actions=first_pass.intake.num_clipped_actions,
        are_truncations_recorded=source.layout.has_truncations,
        num_derived_truncations=first_pass.log.num_derived_truncations,
        seed=plan.seed,
        recorded=source.recorded.details,
        iql_ray_version=package_version(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        git_commit=git_commit(),
        fixes=first_pass.fixes.applied(),
    )
