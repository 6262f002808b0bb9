"""Send what the store has not got of a run, or of all runs: `iql-ray sync --run RUN_ID [--tracking-uri URI]`.

For runs whose tracking server was away until they ended, or that were killed; and to copy a run's record to another
store. A run that is still going sends for itself, and is refused.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iql_ray import run_folder
from iql_ray.tracking.store import ADDRESS_FILE
from pipelines import command_line

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SyncConfig:
    """Send the records that lie in runs' spool files to their tracking store."""

    run: str | None = None
    """The run's id, or the path of its folder."""
    all: bool = False
    """Every run in the storage instead of one."""
    storage: Path = Path("runs")
    """The folder of all runs."""
    tracking_uri: str | None = None
    """The store; the one that the run began with if not given. Another one gets the whole record."""

    def __post_init__(self) -> None:
        if (self.run is None) != self.all:
            raise ValueError("sync needs either --run RUN_ID or --all, and not both")


def run_folders(config: SyncConfig) -> list[Path]:
    """The folders to send from.

    Raises:
        ValueError: there is none.
    """
    if config.run is not None:
        # Its address is enough: a run that died before its configuration was saved can still be sent.
        return [run_folder.find_run(config.storage, config.run, must_hold=ADDRESS_FILE)]
    found = sorted(path.parent for path in config.storage.glob(f"*/{ADDRESS_FILE}"))
    if not found:
        raise ValueError(f"{config.storage} holds no run; check --storage")
    return found


def execute(config: SyncConfig) -> dict[str, Any]:
    """Send; the counts by run.

    Raises:
        ValueError: no such run, an unusable store, or a single run that is still going.
        StoreUnavailableError: a store is away; what it has not taken waits in the spool.
    """
    from iql_ray.tracking.synchronization import synchronize

    results: list[dict[str, Any]] = []
    for folder in run_folders(config):
        try:
            results.append(synchronize(folder, config.tracking_uri))
        except ValueError as error:
            if not config.all:
                raise
            logger.warning("%s is left out: %s", folder, error)
            results.append({"run_id": folder.name, "error": str(error)})
    return {"sent": sum(result.get("sent", 0) for result in results), "runs": results}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command_line.main(SyncConfig, execute, argv, description=SyncConfig.__doc__)


if __name__ == "__main__":
    sys.exit(main())
