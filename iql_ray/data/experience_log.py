"""The experience of an online run on disk: Parquet segments, only ever added to, in the order it was collected.

    RUN/experience/000000000.parquet    rows 0 ..., in the environment's units
    RUN/experience/000004096.parquet    named by its first row

It is written with every checkpoint, so a checkpoint needs to say no more than how many rows it had. A segment is whole
or not there. Transforms are not applied; replay does that. Knows no Ray.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iql_ray.data.packing import column_values
from iql_ray.data.schema import MATRIX_COLUMNS, fixed_size_lists
from iql_ray.experience import Experience, Stand

EXPERIENCE_FOLDER = "experience"
_NONE = np.zeros((0, 0), np.float32)


class ExperienceLog:
    """What was collected: on disk up to the last `take`, in memory since then.

    Args:
        run: the run's folder.
        num_rows: how many rows there are; the next one follows them.
    """

    def __init__(self, run: Path, num_rows: int = 0) -> None:
        self._run = run
        self.num_rows = num_rows
        self._pending: list[Experience] = []

    def append(self, experience: Experience) -> None:
        self._pending.append(experience)
        self.num_rows += len(experience)

    def take(self) -> Callable[[], None]:
        """A function that writes what is in memory, for whichever thread does; it is on the disk when that returns."""
        pending, self._pending = self._pending, []
        first_row = self.num_rows - sum(map(len, pending))
        return lambda: write_segment(self._run, first_row, pending)


def write_segment(run: Path, first_row: int, parts: Sequence[Experience]) -> None:
    """Write rows as one segment, whole or not at all; nothing where there are none."""
    if not sum(map(len, parts)):
        return
    folder = run / EXPERIENCE_FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{first_row:09d}.parquet"
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        pq.write_table(experience_table(Experience.joined(parts)), file)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def experience_table(experience: Experience) -> pa.Table:
    """Experience as Arrow columns of the same names."""
    return pa.table(
        {
            name: fixed_size_lists(values) if name in MATRIX_COLUMNS else pa.array(values)
            for name, values in vars(experience).items()
        }
    )


def read_experience(run: Path, first_row: int = 0, last_row: int | None = None) -> Iterator[Experience]:
    """Rows from `first_row` to before `last_row` (None: all there are), in order, a segment at a time."""
    for start, path in _segments(run):
        if last_row is not None and start >= last_row:
            return
        if start + pq.read_metadata(path).num_rows <= first_row:
            continue
        experience = _read_segment(path)
        end = len(experience) if last_row is None else min(len(experience), last_row - start)
        yield experience.rows(slice(max(0, first_row - start), end))


def rows_on_disk(run: Path) -> int:
    """How many rows there are."""
    segments = _segments(run)
    return segments[-1][0] + pq.read_metadata(segments[-1][1]).num_rows if segments else 0


def discard_from(run: Path, num_rows: int) -> None:
    """Delete the segments that begin at that row or later: a run that goes on from before them makes them again."""
    for start, path in _segments(run):
        if start >= num_rows:
            path.unlink()


def with_actions(run: Path, stands: Sequence[Stand], num_rows: int) -> tuple[Stand, ...]:
    """The same stands with the actions of their unfinished episodes, as the first `num_rows` rows have them."""
    parts: dict[int, list[np.ndarray]] = {stand.environment: [] for stand in stands}
    sought = list(stands)
    for start, path in reversed(_segments(run)):
        if start >= num_rows or not sought:
            continue
        experience = _read_segment(path).rows(slice(num_rows - start))
        for stand in list(sought):
            own = experience.environments == stand.environment
            of_episode = own & (experience.episodes == stand.episode)
            parts[stand.environment].insert(0, experience.actions[of_episode])
            if own.sum() > of_episode.sum() or (experience.steps[of_episode] == 0).any():
                sought.remove(stand)  # nothing of the episode lies further back
    return tuple(replace(stand, actions=np.concatenate(parts[stand.environment] or [_NONE])) for stand in stands)


def newest_stands(run: Path, stands: Sequence[Stand], first_row: int) -> tuple[Stand, ...]:
    """The same stands, moved on by the rows from `first_row` on, which came after them."""
    newest = {stand.environment: stand for stand in stands}
    for experience in read_experience(run, first_row):
        is_over = experience.terminations | experience.truncations
        rows = zip(experience.environments.tolist(), experience.episodes.tolist(), is_over.tolist(), strict=True)
        for environment, episode, ends in rows:
            before = newest.get(environment, Stand(environment=environment))
            newest[environment] = replace(before, episode=episode + ends)
    return tuple(newest.values())


def finished_episodes(run: Path) -> tuple[list[int], list[float]]:
    """After how many rows of the run each episode ended, in order, and what it returned."""
    under_way: dict[int, float] = {}
    ends, returns, num_rows = [], [], 0
    for experience in read_experience(run):
        is_over = experience.terminations | experience.truncations
        rows = zip(experience.environments.tolist(), experience.rewards.tolist(), is_over.tolist(), strict=True)
        starts = experience.steps == 0
        for row, (environment, reward, ends_here) in enumerate(rows):
            before = 0.0 if starts[row] else under_way.get(environment, 0.0)
            under_way[environment] = before + reward
            if ends_here:
                ends.append(num_rows + row + 1)
                returns.append(under_way[environment])
        num_rows += len(experience)
    return ends, returns


def _read_segment(path: Path) -> Experience:
    table = pq.read_table(path)
    return Experience(**{each.name: column_values(table, each.name) for each in fields(Experience)})


def _segments(run: Path) -> list[tuple[int, Path]]:
    """First row and path of each, in order."""
    return sorted((int(path.stem), path) for path in (run / EXPERIENCE_FOLDER).glob("*.parquet"))
