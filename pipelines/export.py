"""iql-ray export --model models:/pendulum@champion --out pendulum-policy
iql-ray export --run RUN --format onnx --out pendulum-onnx

A policy for where neither this package nor MLflow is: a folder for numpy and safetensors, or an ONNX graph. Parse,
call, print.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines import command_line
from pipelines.storing import with_fetched_runs

ONNX_FILE = "policy.onnx"


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a policy for a place that has neither this package nor MLflow."""

    out: Path
    """Folder to write; it must not exist, or be empty."""
    format: Literal["numpy", "onnx"] = "numpy"
    """numpy: weights, description and the one file of code that acts with them, checked by their sha256; it needs
    numpy and safetensors. onnx: a graph of the action without noise."""
    run: str | None = None
    """The run's id, or the path of its folder. Either this or --model."""
    model: str | None = None
    """A registered or logged model: models:/NAME/VERSION, models:/NAME@ALIAS, runs:/RUN_ID/policy, or a folder."""
    checkpoint: Literal["last", "best"] | int = "last"
    """Which of the run's checkpoints: the last, the best by evaluation, or the one after N updates."""
    storage: str = "runs"
    """The folder of all runs."""
    tracking_uri: str | None = None
    """The store that knows the model; MLFLOW_TRACKING_URI, then the one beside the runs, if not given."""

    def __post_init__(self) -> None:
        if (self.run is None) == (self.model is None):
            raise ValueError("export needs either --run RUN or --model URI, and not both")
        if self.model is not None and self.checkpoint != "last":
            raise ValueError(f"--checkpoint {self.checkpoint} chooses within a run; a model is one policy: use --run")


def export(config: ExportConfig) -> dict[str, Any]:
    """Find the policy, write it in another form.

    Returns:
        `out`, `format`, `files`, `source`, and `policy_digest`, by which the registry knows the policy.

    Raises:
        ValueError: no such run, checkpoint or model, one that was changed, or a folder that holds something.
    """
    from iql_ray.tracking.saved_policy import policy_digest

    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise ValueError(f"--out {config.out} holds something; name a folder that does not exist")
    folder, source = _of_run(config) if config.run is not None else _of_model(config)
    digest = policy_digest(folder)
    write = _write_folder if config.format == "numpy" else _write_graph
    write(folder, config.out, {"source": source, "policy_digest": digest})
    files = sorted(path.name for path in config.out.iterdir())
    return {"out": config.out, "format": config.format, "files": files, "source": source, "policy_digest": digest}


def _of_run(config: ExportConfig) -> tuple[Path, str]:
    """Where a checkpoint keeps its policy, verified, and what it is called."""
    from iql_ray import checkpoint, run_folder

    config = with_fetched_runs(config)
    run = run_folder.find_run(config.storage, str(config.run))
    try:
        _, num_updates = checkpoint.load_policy(run, config.checkpoint)
    except checkpoint.CorruptCheckpointError as error:
        raise ValueError(f"{error}; choose another with --checkpoint") from error
    return checkpoint.policy_folder(run, num_updates), f"{run.name} after {num_updates} updates"


def _of_model(config: ExportConfig) -> tuple[Path, str]:
    from iql_ray.tracking.registry import download_policy
    from iql_ray.tracking.store import resolve_tracking_uri

    uri = str(config.model)
    return download_policy(uri, resolve_tracking_uri(config.tracking_uri, config.storage)), uri


def _write_folder(policy: Path, out: Path, metadata: dict[str, str]) -> None:
    from iql_ray.tracking.saved_policy import ship_policy

    ship_policy(policy, out)


def _write_graph(policy: Path, out: Path, metadata: dict[str, str]) -> None:
    from iql_ray.onnx_graph import to_onnx
    from iql_ray.policy import Policy

    graph = to_onnx(Policy.load(policy), metadata).SerializeToString()
    out.mkdir(parents=True, exist_ok=True)
    (out / ONNX_FILE).write_bytes(graph)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(ExportConfig, export, argv, description=ExportConfig.__doc__)


if __name__ == "__main__":
    sys.exit(main())
