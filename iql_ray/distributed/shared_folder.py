"""Whether every node that will be used sees the folders that a run relies on; asked before anything is spent.

A node writes beside what the driver wrote, and the driver reads that: learners write checkpoints which the driver's
node evaluates. Nodes that join later are not asked.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from iql_ray.data.fetching import MANIFEST_FILE
from iql_ray.data.locations import is_uri

ANSWER_SECONDS = 60.0
"""How long nodes have to answer; one that does not is passed over, for it may be leaving."""


def check_shared(storage: str | Path, dataset: str | None, needs: Mapping[str, float]) -> None:
    """Have every node look for itself; nothing is asked where there is one node alone.

    Args:
        storage: the folder of all runs, made if need be.
        dataset: folder of a prepared dataset, which every node with a CPU reads; a URI is not looked for.
        needs: what a node must have to write into the storage, for example {"CPU": 1, "iql_learner": 0.001}.

    Raises:
        ValueError: names each node that does not see one of them, the path, and the fix.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    here = ray.get_runtime_context().get_node_id()
    elsewhere = [node for node in nodes if node["NodeID"] != here]
    if not elsewhere:
        return
    token = Path(storage) / f".seen-by-all-{uuid.uuid4().hex}"
    token.parent.mkdir(parents=True, exist_ok=True)
    token.write_text(token.name)
    try:
        questions = {
            _look.options(**_on(node)).remote(needed_files(node, token, dataset, needs), token): node
            for node in elsewhere
        }
        answered, _ = ray.wait(list(questions), num_returns=len(questions), timeout=ANSWER_SECONDS)
        found = {_name(questions[answer]): _unseen(answer) for answer in answered}
    finally:
        for path in token.parent.glob(f"{token.name}*"):
            path.unlink(missing_ok=True)
    missing = [f"node {name} {reason}" for name, reasons in found.items() for reason in reasons]
    if missing:
        raise ValueError(
            f"{'; '.join(missing)}. Runs and datasets must lie in a folder that all of these nodes see, under the same "
            "path: mount a shared file system there (NFS, EFS, Filestore) and give folders in it as --storage and "
            "--dataset; a dataset may be a URI instead (s3://, gs://), which each node fetches"
        )


def needed_files(node: Mapping[str, Any], token: Path, dataset: str | None, needs: Mapping[str, float]) -> list[Path]:
    """What a node must see."""
    works_on_runs = all(node["Resources"].get(name, 0) >= amount for name, amount in needs.items())
    manifest = [Path(dataset) / MANIFEST_FILE] if dataset and not is_uri(dataset) else []
    return [token] * works_on_runs + manifest


def _on(node: Mapping[str, Any]) -> dict[str, Any]:
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)}


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"


def _unseen(answer: ray.ObjectRef) -> Sequence[str]:
    with contextlib.suppress(RayError):  # the node has gone
        return ray.get(answer)
    return []


@ray.remote(num_cpus=0, max_retries=0)
def _look(files: list[Path], token: Path) -> list[str]:
    """What is wrong with them on the node where this runs."""
    return look(files, token)


def look(files: Sequence[Path], token: Path) -> list[str]:
    """Read each, and write beside the token; what is wrong, for each that fails."""
    wrong = []
    for path in files:
        try:
            with path.open("rb") as file:
                file.read(1)
            if path == token:
                path.with_name(f"{path.name}-{uuid.uuid4().hex}").write_text("")
        except OSError as error:
            wrong.append(f"does not see {path.parent}, or may not write there ({error.strerror or error})")
    return wrong
