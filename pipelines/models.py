"""iql-ray models                       what is registered: versions, aliases, scores with intervals, dataset, age
iql-ray models show pendulum@champion   where one version comes from, from data to decision

Parse, call, print.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from pipelines import command_line

USAGE = "expected nothing, or: show NAME@champion, show NAME/VERSION"
DIGEST_LENGTH = 12


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """List the registered models, or show the lineage of one version."""

    what: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Nothing for the list; `show NAME@ALIAS` or `show NAME/VERSION` for a lineage."""
    name: str | None = None
    """List the versions of this model alone."""
    storage: Path = Path("runs")
    """The folder of all runs."""
    tracking_uri: str | None = None
    """The store; MLFLOW_TRACKING_URI, then the one beside the runs, if not given."""

    def __post_init__(self) -> None:
        if self.what and (len(self.what) != 2 or self.what[0] != "show"):
            raise ValueError(f"'{' '.join(self.what)}' is not understood; {USAGE}")
        if self.what and self.name is not None:
            raise ValueError("--name is of the list; leave it out, or leave `show` out")


def models(config: ModelsConfig) -> dict[str, Any]:
    """List or show; a table on stderr for people.

    Raises:
        ValueError: no such store, model or version.
        StoreUnavailableError: the store does not answer.
    """
    from iql_ray.tracking.listing import lineage, list_versions
    from iql_ray.tracking.reaching import answering
    from iql_ray.tracking.store import open_client, require_store, resolve_tracking_uri

    uri = resolve_tracking_uri(config.tracking_uri, config.storage)
    require_store(uri)
    with answering(uri):
        client = open_client(uri)
        if config.what:
            shown = lineage(client, config.what[1])
            print("\n".join(lineage_lines(shown)), file=sys.stderr)
            return shown
        rows = list_versions(client, config.name)
    _print_table(rows)
    return {"versions": rows}


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        print("no model is registered", file=sys.stderr)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("model", "aliases", "score, 95% interval", "by", "dataset", "age"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        table.add_row(*cells(row))
    # A job's log has no width; what does not fit a terminal is cut there.
    console = Console(stderr=True, highlight=False)
    console = console if console.is_terminal else Console(stderr=True, highlight=False, width=200)
    console.print(table)


def cells(row: Mapping[str, Any]) -> list[str]:
    """A version as the words of its line."""
    return [
        f"{row['name']}/{row['version']}",
        ", ".join(f"@{alias}" for alias in row["aliases"]),
        score_in_words(row["score"], row["score_ci"]),
        " ".join(filter(None, [row["method"], row["environment"]])),
        (row["dataset_sha256"] or "")[:DIGEST_LENGTH],
        age_in_words(row["age_seconds"]),
    ]


def score_in_words(score: float | None, interval: Sequence[float] | None) -> str:
    """`-146.3 [-164.3, -127.9]`; without an interval the number alone."""
    if score is None:
        return ""
    return f"{score:.5g} [{interval[0]:.5g}, {interval[1]:.5g}]" if interval else f"{score:.5g}"


def age_in_words(seconds: float) -> str:
    """In its largest whole unit: `3 d`."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def lineage_lines(shown: Mapping[str, Any]) -> Iterator[str]:
    """A lineage in the order in which things came about; what is not recorded is left out."""
    row = shown["model"]
    yield " ".join([f"{row['name']}/{row['version']}", *(f"@{alias}" for alias in row["aliases"])])
    for title in ("dataset", "run", "policy"):
        yield from _section(title, shown[title] or {})
    record = shown["promotion"]
    if record is None:
        yield "  decision     never proposed: iql-ray promote"
    elif "score" in record:
        yield from _section("decision", _decision(record))
        yield from (f"    warning      {each['message']}" for each in record["warnings"])
    if shown["rollback"]:
        yield from _section("rollback", shown["rollback"])
    if shown["unfinished"]:
        yield "  a promotion of this name was cut off; the next promote or rollback finishes it"


def _section(title: str, values: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {title}"
    for key, value in values.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {each}" for name, each in value.items())
        if value not in (None, ""):
            yield f"    {key:<12} {value}"


def _decision(record: Mapping[str, Any]) -> dict[str, Any]:
    protocol = record["protocol"]
    against = f"version {record['compared_with']}"
    return {
        "verdict": record["decision"],
        "because": record["reason"],
        "at": record["at"],
        "score": score_in_words(record["score"], record["score_ci"]),
        against: score_in_words(record["champion_score"], record["champion_score_ci"]),
        "difference": score_in_words(record["difference"], record["difference_ci"]),
        "method": " ".join(filter(None, [protocol["method"], protocol["environment"]])),
        "episodes": protocol["num_episodes"],
        "protocol": record["protocol_sha256"],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(ModelsConfig, models, argv, description=ModelsConfig.__doc__)


if __name__ == "__main__":
    sys.exit(main())
