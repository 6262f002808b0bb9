"""iql-ray rollback --name pendulum

The champion before this one becomes the champion again, and this one the one before. Parse, call, print.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iql_ray.tracking.names import check_model_name
from pipelines import command_line


@dataclass(frozen=True, kw_only=True)
class RollbackConfig:
    """Swap @champion and @previous-champion of a registered model, and write on both that it was done."""

    name: str
    """The registered model."""
    reason: str | None = None
    """Why, for whoever reads it later."""
    storage: Path = Path("runs")
    """The folder of all runs."""
    tracking_uri: str | None = None
    """The store; MLFLOW_TRACKING_URI, then the one beside the runs, if not given."""

    def __post_init__(self) -> None:
        check_model_name(self.name)


def rollback(config: RollbackConfig) -> dict[str, Any]:
    """Swap.

    Raises:
        ValueError: no such store or model, no champion, or none before it.
        StoreUnavailableError: the store does not answer.
    """
    from iql_ray.tracking.promotion import roll_back
    from iql_ray.tracking.reaching import answering
    from iql_ray.tracking.store import open_client, require_store, resolve_tracking_uri

    uri = resolve_tracking_uri(config.tracking_uri, config.storage)
    require_store(uri)
    with answering(uri):
        record = roll_back(open_client(uri), uri, config.name, config.reason)
    return {"name": config.name, "model_uri": f"models:/{config.name}@champion", **record}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(RollbackConfig, rollback, argv, description=RollbackConfig.__doc__)


if __name__ == "__main__":
    sys.exit(main())
