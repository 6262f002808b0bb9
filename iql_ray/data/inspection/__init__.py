"""A look at a prepared dataset before spending on it: its facts, what looks wrong, and the settings it suggests.

Two passes over the shards, in memory that grows by 4 bytes a row and about 60 an episode. Nothing is changed, and
nothing is drawn: `report/inspection_page.py` does that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from iql_ray.data.inspection import column_findings, episode_findings
from iql_ray.data.inspection.behaviour import measure_behaviour
from iql_ray.data.inspection.episodes import read_episodes
from iql_ray.data.inspection.finding import Facts, Finding, Severity
from iql_ray.data.inspection.repair import repairing_command
from iql_ray.data.inspection.rows import Sample, read_rows, read_sample
from iql_ray.data.inspection.settings import Settings, suggest
from iql_ray.data.prepared import read_manifest

__all__ = ["Facts", "Finding", "Inspection", "Settings", "find", "inspect_dataset"]

SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")

CHECKS = (
    episode_findings.time_limit_as_termination,
    episode_findings.goes_on_after_success,
    episode_findings.next_does_not_follow,
    column_findings.actions_outside_bounds,
    episode_findings.nothing_to_learn,
    episode_findings.single_episode,
    episode_findings.nearly_deterministic,
    column_findings.narrow_actions,
    column_findings.scaled_actions,
    column_findings.outliers,
    column_findings.constant_columns,
    column_findings.duplicated_columns,
    episode_findings.duplicated_episodes,
    column_findings.saturated_actions,
    column_findings.unused_choices,
    column_findings.assumed_bounds,
    episode_findings.dropped_rows,
)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Everything that was seen in a dataset."""

    folder: Path
    facts: Facts
    sample: Sample
    findings: tuple[Finding, ...]
    """The worst first."""
    settings: Settings
    repair: list[str]
    """The command that prepares the data again with every rule that a finding names; empty where none does."""


def inspect_dataset(folder: str | Path) -> Inspection:
    """Look at a prepared dataset.

    Raises:
        ValueError: no prepared dataset is there, or a shard is missing or damaged.
    """
    manifest = read_manifest(folder)
    episodes, sample = read_episodes(folder, manifest), read_sample(folder)
    facts = Facts(
        manifest=manifest,
        episodes=episodes,
        rows=read_rows(folder, manifest, episodes, sample),
        behaviour=measure_behaviour(sample.observations, sample.actions, sample.episodes, manifest.spaces.num_actions),
    )
    findings = find(facts)
    return Inspection(
        folder=Path(folder),
        facts=facts,
        sample=sample,
        findings=findings,
        settings=suggest(facts),
        repair=repairing_command(Path(folder), manifest, findings),
    )


def find(facts: Facts) -> tuple[Finding, ...]:
    """Everything that looks wrong or odd, the worst first."""
    found = [finding for check in CHECKS if (finding := check(facts)) is not None]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))
