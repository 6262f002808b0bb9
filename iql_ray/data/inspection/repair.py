"""The `iql-ray prepare` that makes a dataset again with the repairs that its findings name."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from iql_ray.data.inspection.finding import Finding
from iql_ray.data.prepared import Manifest, Provenance
from iql_ray.data.sources.source import NEVER, WHERE_TIME_RESTARTS

KINDS_WITH_COLUMNS = ("npz", "hdf5", "parquet", "csv")
"""Sources whose columns the user names; the other formats have names of their own."""


def repairing_command(folder: Path, manifest: Manifest, findings: Sequence[Finding]) -> list[str]:
    """The command's pieces, a flag with its values each; empty where no finding has a rule that repairs it.

    It is put together from what the manifest keeps of the first preparation.
    """
    rules = [finding.rule for finding in findings if finding.rule]
    if not rules:
        return []
    before = [fix.rule for fix in manifest.provenance.fixes]
    fixes = shlex.join(["--fix", *dict.fromkeys([*before, *rules])])
    return ["iql-ray prepare", *_same_as_before(manifest), fixes, shlex.join(["--out", str(folder)]), "--overwrite"]


def _same_as_before(manifest: Manifest) -> list[str]:
    provenance = manifest.provenance
    is_end_missing = provenance.are_truncations_recorded or "episode" not in provenance.columns
    flags = {
        "--source": [provenance.source],
        "--columns": _columns(provenance),
        "--env": [manifest.environment_id] if manifest.environment_id and not provenance.recorded else [],
        "--action-bounds": [f"{bound:g}" for bound in provenance.action_bounds or ()],
        "--licence": [manifest.licence] if manifest.licence else [],
        "--unfinished-episodes": ["truncate"] if provenance.num_derived_truncations and is_end_missing else [],
        "--seed": [str(provenance.seed)] if provenance.seed else [],
    }
    return [shlex.join([flag, *values]) for flag, values in flags.items() if values]


def _columns(provenance: Provenance) -> list[str]:
    """The columns whose names may be chosen and are not the canonical ones."""
    if provenance.source.partition(":")[0] not in KINDS_WITH_COLUMNS:
        return []
    named = {ours: "never" if theirs == NEVER else theirs for ours, theirs in provenance.columns.items()}
    return [f"{ours}={theirs}" for ours, theirs in named.items() if theirs not in (ours, WHERE_TIME_RESTARTS)]
