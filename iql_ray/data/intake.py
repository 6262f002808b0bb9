"""From a source's tables to checked and repaired records in numbered episodes: the first half of preparing.

Nothing here writes a file. Rows come in blocks, and memory holds a few of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from iql_ray.data.actions import Actions, BoxActions
from iql_ray.data.episodes import EpisodeLog, UnfinishedEpisodes, number_episodes
from iql_ray.data.fixes import SUCCESS, Changes, Fixes, Rule, Survey, SurveyedFacts, clip_actions, nonfinite_rows
from iql_ray.data.schema import FLOAT_COLUMNS, Records, check_finite, records_from_table
from iql_ray.data.sources import Source

ROWS_PER_BLOCK = 65_536
"""Larger tables are cut to this, so that memory is bounded whatever arrives."""


@dataclass(frozen=True, kw_only=True)
class WritingPlan:
    """Everything about a preparation but the rows."""

    source: Source
    actions: Actions
    destination: Path
    environment_id: str | None = None
    licence: str | None = None
    action_bounds: tuple[float, float] | None = None
    seed: int = 0
    rows_per_shard: int = 131_072
    unfinished_episodes: UnfinishedEpisodes = "error"
    fixes: tuple[Rule, ...] = ()
    facts: SurveyedFacts | None = None
    """What `survey` found, where a rule of `fixes` asks for it."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        if "clip-actions" in self.fixes and not isinstance(self.actions, BoxActions):
            raise ValueError("--fix clip-actions is for actions in a box, and these are discrete choices; leave it out")


class Intake:
    """Tables in, checked records out; remembers what it met on the way."""

    def __init__(self, plan: WritingPlan) -> None:
        self.plan = plan
        self.num_clipped_actions = 0

    def records(self, tables: Iterable[pa.Table], first_row: int = 0) -> Iterator[Records]:
        """Blocks of finite values, unless rows of others are to be dropped.

        Args:
            first_row: the source's number of the first row that comes.

        Raises:
            ValueError: NaN or infinity, with the source's row.
        """
        num_rows = first_row
        for table in tables:
            for start in range(0, table.num_rows, ROWS_PER_BLOCK):
                block = self._read(table.slice(start, ROWS_PER_BLOCK))
                self._check_finite(block, num_rows)
                num_rows += len(block)
                yield block

    def in_units(self, blocks: Iterable[Records], clipped: Changes | None, first_row: int) -> Iterator[Records]:
        """The same rows with actions in the environment's units.

        Args:
            clipped: counts the rows whose actions were clipped to their box; None: there they are refused.
            first_row: the source's number of the first row that comes.

        Raises:
            ValueError: an action out of its bounds, with the source's row.
        """
        num_rows = first_row
        for block in blocks:
            if clipped is not None:
                clip_actions(block, self._box(), clipped)
            block["actions"], num_clipped = self.plan.actions.apply(block["actions"], num_rows, self.plan.source.locate)
            self.num_clipped_actions += num_clipped
            num_rows += len(block)
            yield block

    def _box(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        box = self.plan.actions
        assert isinstance(box, BoxActions), "a plan that clips has a box"
        return box.data_low, box.data_high

    def _read(self, piece: pa.Table) -> Records:
        """The rows as records; where the source has a success column, with that field beside the schema's."""
        layout = self.plan.source.layout
        if SUCCESS not in piece.column_names:
            return records_from_table(piece, layout.observation_dim, layout.action_dim)
        plain = records_from_table(piece.drop_columns([SUCCESS]), layout.observation_dim, layout.action_dim)
        block = with_fields(plain, np.dtype([*plain.dtype.descr, (SUCCESS, "?")]))
        block[SUCCESS] = piece.column(SUCCESS).to_numpy()
        return block

    def _check_finite(self, block: Records, first_row: int) -> None:
        layout = self.plan.source.layout
        if "drop-nonfinite-rows" in self.plan.fixes:
            block["actions"][nonfinite_rows(block)] = np.nan  # such a row goes, so its action need not fit a box
            return
        columns = tuple(name for name in FLOAT_COLUMNS if name in layout.columns)
        check_finite(block, columns, first_row, self.plan.source.locate)


def numbered(
    blocks: Iterable[Records], intake: Intake, log: EpisodeLog, as_logged: EpisodeLog, fixes: Fixes
) -> Iterator[Records]:
    """A section's records as repaired rows in numbered episodes.

    Args:
        log: takes these episodes as they are after the repairs.
        as_logged: takes them as they were before; where there are no repairs, the same object.
    """
    rows = _number_as_logged(blocks, intake.plan, as_logged)
    rows = intake.in_units(rows, fixes.changes.get("clip-actions"), first_row=as_logged.num_rows)
    return _renumbered(fixes.apply(rows), log, as_logged) if fixes.rules else rows


def _renumbered(blocks: Iterator[Records], log: EpisodeLog, as_logged: EpisodeLog) -> Iterator[Records]:
    """What the repairs left, numbered anew; where they took an episode's end away, it was cut."""
    yield from number_episodes(blocks, log, has_ids=True, has_truncations=True, unfinished="truncate", locate=str)
    log.num_derived_truncations = as_logged.num_derived_truncations


def survey(tables: Iterable[pa.Table], plan: WritingPlan) -> SurveyedFacts:
    """Read all rows once for what some rules must know before they change the first; `plan.facts` takes it.

    Raises:
        ValueError: anything wrong with the rows.
    """
    seen, log = Survey(), EpisodeLog()
    for block in _number_as_logged(Intake(plan).records(tables), plan, log):
        seen.add(block)
    check_ids(log, plan)
    return seen.facts()


def check_ids(as_logged: EpisodeLog, plan: WritingPlan) -> None:
    """Refuse an episode id of the source that comes back, once all rows were numbered.

    Raises:
        ValueError: names the rows where the episode stopped and where it came back.
    """
    if plan.source.layout.has_episodes:
        as_logged.check_contiguous(plan.source.locate)


def _number_as_logged(blocks: Iterable[Records], plan: WritingPlan, log: EpisodeLog) -> Iterator[Records]:
    """The source's rows in numbered episodes, with nothing changed yet."""
    layout = plan.source.layout
    return number_episodes(
        blocks,
        log,
        has_ids=layout.has_episodes,
        has_truncations=layout.has_truncations,
        unfinished=plan.unfinished_episodes,
        locate=plan.source.locate,
    )


def with_fields(records: Records, dtype: np.dtype[Any]) -> Records:
    """A copy with the fields of another record type; those that the records do not have are zero."""
    copy = np.zeros(len(records), dtype)
    for name in set(dtype.names or ()) & set(records.dtype.names or ()):
        copy[name] = records[name]
    return copy
