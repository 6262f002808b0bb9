"""What a finding is, and the facts that findings and suggestions are made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from iql_ray.data.fixes import Rule
from iql_ray.data.inspection.behaviour import Behaviour
from iql_ray.data.inspection.episodes import EpisodeFacts
from iql_ray.data.inspection.rows import RowFacts
from iql_ray.data.prepared import Manifest

Severity = Literal["problem", "warning", "note"]
"""Learning goes wrong with it; it may well; it is good to know."""

MAX_NAMED = 8


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that findings and suggestions are made from."""

    manifest: Manifest
    episodes: EpisodeFacts
    rows: RowFacts
    behaviour: Behaviour


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to know before spending on the data."""

    kind: str
    severity: Severity
    sentence: str
    evidence: dict[str, float | int | str] = field(default_factory=dict)
    examples: tuple[tuple[int, int], ...] = ()
    """(episode, step) of some rows that show it."""
    fix: str
    """What to do, with the option that does it."""
    rule: Rule | None = None
    """The rule of `prepare --fix` that repairs it, where there is one."""


def some(names: Iterable[str]) -> str:
    """The first few, and how many more there are."""
    every = list(names)
    rest = f" and {len(every) - MAX_NAMED} more" if len(every) > MAX_NAMED else ""
    return ", ".join(every[:MAX_NAMED]) + rest
