"""Where a dataset comes from, on whatever is made of it: the code that prepared it, and the tags that name it.

The manifest is the record; runs and registered models carry these tags, so that each leads back to it.
"""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from iql_ray.data.prepared import Manifest

GIT_TIMEOUT_SECONDS = 5.0
HERE = Path(__file__).parent


def package_version() -> str:
    """The installed version; a checkout that was never installed has none."""
    try:
        return version("iql-ray")
    except PackageNotFoundError:
        return "not installed"


def git_commit(folder: Path = HERE) -> str | None:
    """The commit that this package's files are at, `-dirty` after it where some differ; None outside a checkout.

    Args:
        folder: of the package. A virtual environment in somebody else's repository is no checkout of ours: git must
            track the package's own files.
    """
    if not _git(folder, "ls-files", "--", "."):
        return None
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def code_version() -> str:
    """Version and commit on one line: `0.1.0`, or `0.1.0 at 1f1df25...-dirty`."""
    commit = git_commit()
    return f"{package_version()} at {commit}" if commit else package_version()


def lineage_tags(manifest: Manifest) -> dict[str, str]:
    """What a run and a registered model say of their data and their code, as flat text."""
    provenance = manifest.provenance
    prepared_by = provenance.iql_ray_version
    if provenance.git_commit:
        prepared_by = f"{prepared_by} at {provenance.git_commit}"
    return {
        "dataset.sha256": manifest.digest,
        "dataset.source": provenance.source,
        "dataset.licence": manifest.licence or "not said",
        "dataset.fixes": ", ".join(f"{fix.rule} ({fix.num_rows} rows)" for fix in provenance.fixes) or "none",
        "dataset.prepared_by": prepared_by,
        "iql_ray.code_version": code_version(),
    }


def _git(folder: Path, *words: str) -> str | None:
    """What git says, None where it fails, is not there, or takes too long."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=GIT_TIMEOUT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
