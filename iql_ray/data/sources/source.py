"""What every source is: ordered, picklable fragments with one way to read them, and what it says of itself."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

import pyarrow as pa

from iql_ray.data.sources.files import SourceFile, naming, source_file
from iql_ray.experience import ObservationPart, Spaces

ROWS_PER_TABLE = 32_768
"""How many rows a fragment yields at a time, so that reading is bounded by this and not by the file."""

NEVER = "(never)"
"""Stands for a column that is false in every row, where the user or the format says that it never happens."""

WHERE_TIME_RESTARTS = "(where time restarts)"
"""Stands for an episode column that is counted from a column of times."""

DERIVED = (NEVER, WHERE_TIME_RESTARTS)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which canonical columns a source fills, how wide they are, and under which names it keeps them."""

    observation_dim: int
    action_dim: int
    is_discrete: bool
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Canonical name to the source's own column or columns; what is not here the source does not have."""
    success: tuple[str, ...] = ()
    """The source's own column that says where the task is solved; empty if it does not say. It is no column of the
    tables, unless asked for with `Source.with_success`."""
    time: tuple[str, ...] = ()
    """The source's own column of times; with it, every row's place in time was checked when the source was opened."""

    def width(self, canonical: str) -> int:
        """How many numbers a row of a canonical column has."""
        widths = {"observations": self.observation_dim, "next_observations": self.observation_dim}
        return {**widths, "actions": self.action_dim}.get(canonical, 1)

    @property
    def own_columns(self) -> list[str]:
        """What has to be read to fill the tables, under the source's own names, each once."""
        groups = [*self.columns.values(), self.time if self.is_episode_from_time else ()]
        return list(dict.fromkeys(name for group in groups for name in group if name not in DERIVED))

    @property
    def is_episode_from_time(self) -> bool:
        return self.columns.get("episode") == (WHERE_TIME_RESTARTS,)

    @property
    def has_next_observations(self) -> bool:
        return "next_observations" in self.columns

    @property
    def has_truncations(self) -> bool:
        return "truncations" in self.columns

    @property
    def has_episodes(self) -> bool:
        return "episode" in self.columns


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """A piece of a source that any process can read alone: the units `start:stop` of one file.

    The unit is rows (npz, ogbench, hdf5, csv), row groups (parquet), episodes (minari) or lines (rllib's JSON).
    """

    path: str
    """On this machine, or a URI."""
    start: int
    stop: int
    first_row: int
    """The row number within the file of the fragment's first row."""
    num_rows: int
    first_episode: int = 0
    """Where episodes are counted from times: the number of the episode that the first row belongs to."""

    def name_row(self, offset: int) -> str:
        """Where the fragment's row at `offset` lies, in the user's words."""
        return f"row {self.first_row + offset} of {self.file_name}"

    @property
    def file_name(self) -> str:
        """The file as messages name it; a Minari dataset, whose folder is always called data, by the folder above."""
        file = source_file(self.path)
        return f"{file.parent.name}/data" if isinstance(file, Path) and file.name == "data" else file.name


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a source says of itself beyond its rows."""

    spaces: Spaces | None = None
    environment_id: str | None = None
    licence: str | None = None
    details: dict[str, str] = field(default_factory=dict)
    observation_parts: tuple[ObservationPart, ...] = ()
    """Where observations were nested: what the vector is made of, in order."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """An opened source: read its fragments in order and the rows come in order."""

    spec: str
    layout: Layout
    fragments: tuple[Fragment, ...]
    files: tuple[SourceFile, ...]
    """The files whose names, sizes and hashes make the provenance."""
    read_fragment: Callable[[Fragment, Layout], Iterator[pa.Table]]
    recorded: Recorded = Recorded()

    @property
    def num_rows(self) -> int:
        return sum(fragment.num_rows for fragment in self.fragments)

    @property
    def has_success(self) -> bool:
        """Whether `with_success` can be asked for."""
        return bool(self.layout.success)

    def with_success(self) -> Source:
        """The same source whose tables have one more column, `success`: true where the task is solved.

        It is for looking at the data; a table with it is none that a dataset is written from.

        Raises:
            ValueError: the source does not say where the task is solved.
        """
        if not self.has_success:
            raise ValueError(f"source '{self.spec}' does not say where the task is solved; check `has_success` first")
        columns = {**self.layout.columns, "success": self.layout.success}
        return replace(self, layout=replace(self.layout, columns=columns))

    def read(self, fragment: Fragment) -> Iterator[pa.Table]:
        """Tables of at most about `ROWS_PER_TABLE` rows in canonical names and types.

        Raises:
            ValueError: the file is damaged or gone, or holds what the canonical types cannot: names file and row.
        """
        with naming(fragment.path, known_by=fragment.file_name):
            yield from self.read_fragment(fragment, self.layout)

    def locate(self, row: int) -> str:
        """Where a row of the whole source lies, in the user's words."""
        firsts = list(accumulate((fragment.num_rows for fragment in self.fragments), initial=0))
        index = bisect.bisect_right(firsts, row) - 1
        return self.fragments[index].name_row(row - firsts[index])


def ranges(total: int, size: int) -> list[tuple[int, int]]:
    """[0, total) cut into pieces of `size`, the last one shorter."""
    return [(start, min(start + size, total)) for start in range(0, total, size)]
