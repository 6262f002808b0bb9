"""iql-ray inspect data/pendulum

A look at a prepared dataset before spending on it: what looks wrong, the settings it suggests, and a page of pictures.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pipelines import command_line

if TYPE_CHECKING:
    from iql_ray.data.inspection import Finding, Inspection

PAGE_SUFFIX = "-inspection.html"
TEXT_WIDTH = 100


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Look at a prepared dataset and say what stands out."""

    dataset: Annotated[Path, tyro.conf.Positional]
    """Folder made by `iql-ray prepare`."""
    out: Path | None = None
    """Folder of the page DATASET-inspection.html, made if need be; by default the one that the dataset lies in."""


def inspect(config: InspectConfig) -> dict[str, Any]:
    """Look, print a summary, write the page; the dataset is not touched.

    Returns:
        `page`, counts, `findings` (kind, severity, sentence, evidence, examples, fix), `settings` by name, ...

    Raises:
        ValueError: no prepared dataset is there, it is damaged, or the page cannot be written.
    """
    from iql_ray.data.inspection import inspect_dataset
    from iql_ray.report.inspection_page import write_page

    inspection = inspect_dataset(config.dataset)
    folder = config.out or config.dataset.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = write_page(folder / f"{config.dataset.absolute().name}{PAGE_SUFFIX}", inspection)
    except OSError as error:
        raise ValueError(
            f"the page cannot be written to {folder}: {error}; choose another folder with --out"
        ) from error
    print("\n".join(summary(inspection, page)), file=sys.stderr)
    return _result(inspection, page)


def summary(inspection: Inspection, page: Path) -> Iterator[str]:
    """What a person reads on the terminal."""
    from iql_ray.report.inspection_page import verdict

    manifest, episodes = inspection.facts.manifest, inspection.facts.episodes
    returns, lengths = manifest.episode_returns, episodes.lengths
    share = episodes.is_terminated.mean()
    yield f"{inspection.folder}: {manifest.num_rows:,} rows in {manifest.num_episodes:,} episodes"
    yield f"  returns  {returns.mean:,.4g} on average, {returns.min:,.4g} to {returns.max:,.4g}"
    yield f"  lengths  {lengths.min():,} to {lengths.max():,} steps; {share:.0%} of the episodes terminated"
    yield f"\n{verdict(inspection.findings)}"
    for finding in inspection.findings:
        yield from _told(finding)
    if inspection.repair:
        yield f"  repair with\n    {' '.join(inspection.repair)}"
    yield f"\nSettings to start from (nearest recipe: {inspection.settings.recipe}):"
    for each in inspection.settings.suggestions:
        yield from _wrapped(f"  --{each.setting} {each.value}: ", each.reason)
    yield f"\nthe page  {page}"


def _told(finding: Finding) -> Iterator[str]:
    yield from _wrapped(f"  {finding.severity.upper()}  ", finding.sentence)
    yield from _wrapped("    -> ", finding.fix)


def _wrapped(start: str, text: str) -> list[str]:
    indent = " " * (len(start) - len(start.lstrip()) + 4)
    return textwrap.wrap(text, TEXT_WIDTH, initial_indent=start, subsequent_indent=indent)


def _result(inspection: Inspection, page: Path) -> dict[str, Any]:
    manifest, facts = inspection.facts.manifest, inspection.facts
    return {
        "dataset": str(inspection.folder),
        "page": str(page),
        "digest": manifest.digest,
        "num_rows": manifest.num_rows,
        "num_episodes": manifest.num_episodes,
        "return_mean": manifest.episode_returns.mean,
        "return_min": manifest.episode_returns.min,
        "return_max": manifest.episode_returns.max,
        "episode_length_min": int(facts.episodes.lengths.min()),
        "episode_length_max": int(facts.episodes.lengths.max()),
        "truncation_share": float(1 - facts.episodes.is_terminated.mean()),
        "unexplained_action_share": facts.behaviour.overall,
        "findings": [asdict(finding) for finding in inspection.findings],
        "repair": " ".join(inspection.repair) or None,
        "recipe": inspection.settings.recipe,
        "settings": {each.setting: each.value for each in inspection.settings.suggestions},
        "reasons": {each.setting: each.reason for each in inspection.settings.suggestions},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(InspectConfig, inspect, argv, description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
