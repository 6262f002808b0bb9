"""The first pass of preparing: all rows of the source, checked and repaired, into buckets; it can be gone on with.

Between two episodes nothing is pending, so that counts, the log of episodes and the sizes of the buckets are all there
is to know of the rows so far. They are saved there every few seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from iql_ray import config
from iql_ray.data.episodes import EpisodeLog, link_next_observations, sections
from iql_ray.data.fixes import SURVEYED_RULES, Fixes, SurveyedFacts
from iql_ray.data.intake import Intake, WritingPlan, check_ids, numbered, survey, with_fields
from iql_ray.data.schema import Records, record_dtype
from iql_ray.data.shuffling import Buckets, ShuffledRows, num_buckets

ReadFrom = Callable[[int], Iterable[pa.Table]]
"""Reads the source's rows in order, from one of them on, in tables of any size."""

SAVE_SECONDS = 10.0
"""What was read in this time is read again after an interruption; a save takes milliseconds."""

BUCKETS_FOLDER, STATE_FILE, FACTS_FILE = "buckets", "first_pass.npz", "facts.json"


class FirstPass:
    """Where the first pass over the source stands: at its beginning, or where an earlier one was interrupted.

    Args:
        folder: keeps the buckets and the state; an earlier pass of the same plan may have left its own there.

    Raises:
        ValueError: a repair that these data give no footing, or damage to what an earlier pass left.
    """

    def __init__(self, plan: WritingPlan, folder: Path, read: ReadFrom) -> None:
        self._plan, self._folder, self._read = plan, folder, read
        layout = plan.source.layout
        self._dtype = record_dtype(layout.observation_dim, layout.action_dim)
        self.intake, self.fixes = Intake(plan), Fixes(plan.fixes, self._facts())
        self.log = EpisodeLog()
        """The episodes after the repairs."""
        self._as_logged = EpisodeLog() if plan.fixes else self.log
        self._sizes = np.zeros(num_buckets(plan.source.num_rows, self._dtype.itemsize), np.int64)
        self.is_whole = False
        if (folder / STATE_FILE).exists():
            self._load()

    @property
    def num_rows_read(self) -> int:
        """Rows of the source that are in their buckets or were left out."""
        return self._as_logged.num_rows

    def run(self) -> ShuffledRows:
        """Put all rows that are left into their buckets.

        Raises:
            ValueError: anything wrong with the rows.
        """
        if not self.is_whole:
            self._scatter()
            check_ids(self._as_logged, self._plan)
            self._save(is_whole=True)
        return ShuffledRows(self._folder / BUCKETS_FOLDER, self._dtype, self._sizes)

    def _facts(self) -> SurveyedFacts | None:
        """What the rules must know of all rows, found once."""
        path = self._folder / FACTS_FILE
        if self._plan.facts is not None or not set(self._plan.fixes) & set(SURVEYED_RULES):
            return self._plan.facts
        if not path.exists():
            config.save(survey(self._read(0), self._plan), path)
        return config.from_dict(SurveyedFacts, json.loads(path.read_text()), source=str(path))

    def _scatter(self) -> None:
        first_row, layout = self.num_rows_read, self._plan.source.layout
        blocks = self.intake.records(self._read(first_row), first_row)
        (self._folder / BUCKETS_FOLDER).mkdir(exist_ok=True)
        with Buckets(self._folder / BUCKETS_FOLDER, self._dtype, seed=self._plan.seed, sizes=self._sizes) as buckets:
            self._saved_at = time.monotonic()
            for section in sections(blocks, has_ids=layout.has_episodes, is_due=self._is_due):
                for block in self._linked(section):
                    buckets.add(block)
                buckets.flush()
                self._sizes = buckets.sizes.copy()
                self._save(is_whole=False)

    def _is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= SAVE_SECONDS

    def _linked(self, section: Iterator[Records]) -> Iterator[Records]:
        blocks = numbered(section, self.intake, self.log, self._as_logged, self.fixes)
        plain = (block if block.dtype == self._dtype else with_fields(block, self._dtype) for block in blocks)
        return plain if self._plan.source.layout.has_next_observations else link_next_observations(plain)

    def _save(self, is_whole: bool) -> None:
        self.is_whole = is_whole
        changes = [(each.num_rows, each.num_episodes) for each in self.fixes.changes.values()]
        arrays = {
            "sizes": self._sizes,
            "num_clipped_actions": np.array(self.intake.num_clipped_actions),
            "changes": np.array(changes, np.int64).reshape(-1, 2),
            "is_whole": np.array(is_whole),
        }
        for name, log in self._logs().items():
            arrays |= {f"{name}_{part}": array for part, array in log.arrays().items()}
        partial = self._folder / f"partial-{STATE_FILE}"
        np.savez(partial, **arrays)
        partial.replace(self._folder / STATE_FILE)
        self._saved_at = time.monotonic()

    def _load(self) -> None:
        with np.load(self._folder / STATE_FILE) as arrays:
            self._sizes, self.is_whole = arrays["sizes"], bool(arrays["is_whole"])
            self.intake.num_clipped_actions = int(arrays["num_clipped_actions"])
            for changes, counts in zip(self.fixes.changes.values(), arrays["changes"].tolist(), strict=True):
                changes.num_rows, changes.num_episodes = counts
            for name, log in self._logs().items():
                log.restore({part: arrays[f"{name}_{part}"] for part in log.arrays()})

    def _logs(self) -> dict[str, EpisodeLog]:
        return {"log": self.log, "as_logged": self._as_logged} if self._plan.fixes else {"log": self.log}
