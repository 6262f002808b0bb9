"""What every source is: ordered, picklable fragments with one way to read them, and what it says of itself."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import pyarrow as pa

from iql_ray.experience import Spaces

ROWS_PER_TABLE = 32_768
"""How many rows a fragment yields at a time, so that reading is bounded by this and not by the file."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which canonical columns a source fills, how wide they are, and under which names it keeps them."""

    observation_dim: int
    action_dim: int
    is_discrete: bool
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Canonical name to the source's own column or columns; what is not here the source does not have."""

    def width(self, canonical: str) -> int:
        """How many numbers a row of a canonical column has."""
        widths = {"observations": self.observation_dim, "next_observations": self.observation_dim}
        return {**widths, "actions": self.action_dim}.get(canonical, 1)

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
    """A piece of a source that any process can read alone: the rows `start:stop` of one file's own unit.

    The unit is rows (npz, hdf5), row groups (parquet) or episodes (minari).
    """

    path: str
    start: int
    stop: int
    first_row: int
    """The row number within the file of the fragment's first row."""
    num_rows: int

    def name_row(self, offset: int) -> str:
        """Where the fragment's row at `offset` lies, in the user's words."""
        return f"row {self.first_row + offset} of {Path(self.path).name}"


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a source says of itself beyond its rows."""

    spaces: Spaces | None = None
    environment_id: str | None = None
    licence: str | None = None
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Source:
    """An opened source: read its fragments in order and the rows come in order."""

    spec: str
    layout: Layout
    fragments: tuple[Fragment, ...]
    files: tuple[Path, ...]
    """The files whose names, sizes and hashes make the provenance."""
    read_fragment: Callable[[Fragment, Layout], Iterator[pa.Table]]
    recorded: Recorded = Recorded()

    @property
    def num_rows(self) -> int:
        return sum(fragment.num_rows for fragment in self.fragments)

    def read(self, fragment: Fragment) -> Iterator[pa.Table]:
        """Tables of at most about `ROWS_PER_TABLE` rows in canonical names and types."""
        return self.read_fragment(fragment, self.layout)

    def locate(self, row: int) -> str:
        """Where a row of the whole source lies, in the user's words."""
        firsts = list(accumulate((fragment.num_rows for fragment in self.fragments), initial=0))
        index = bisect.bisect_right(firsts, row) - 1
        return self.fragments[index].name_row(row - firsts[index])


def existing_file(kind: str, location: str) -> Path:
    """The path of a source that is one file.

    Raises:
        ValueError: there is no such file.
    """
    path = Path(location).expanduser()
    if not path.is_file():
        raise ValueError(f"source '{kind}:{location}': there is no file {path}; check the path")
    return path


def ranges(total: int, size: int) -> list[tuple[int, int]]:
    """[0, total) cut into pieces of `size`, the last one shorter."""
    return [(start, min(start + size, total)) for start in range(0, total, size)]
