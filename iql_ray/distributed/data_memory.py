"""A training run's data against the memory of its learners: is it held or streamed, and how much may it take?

Arithmetic over the configuration, the manifest and what a cluster says of its nodes; starts nothing, imports no Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iql_ray.data import memory
from iql_ray.data.memory import GIB, LearnerData
from iql_ray.data.packed import RowLayout
from iql_ray.data.prepared import Manifest, shard_paths
from iql_ray.data.row_groups import stored_groups
from iql_ray.distributed.roles import slots
from iql_ray.distributed.run_roles import learner_role
from iql_ray.distributed.train_config import TrainConfig

OBJECT_STORE_SHARE = 0.5
"""Of a node's object store: while rows are packed it holds them twice."""


def learner_data(config: TrainConfig, manifest: Manifest, num_rows: int) -> LearnerData:
    """The size of a learner's data, of `num_rows` that all learn from together."""
    selection = config.selection
    return LearnerData(
        num_rows=-(-num_rows // config.num_learners),
        row_width=RowLayout.of(manifest.spaces, selection.with_next_actions).width,
        num_seeds=len(config.population.seeds),
        batch_size=config.batch_size // config.num_learners,
        tables_bytes=memory.selection_bytes(manifest, selection),
    )


def groups_per_window(config: TrainConfig, manifest: Manifest, num_rows: int, limit: float) -> int | None:
    """How many row groups each learner has in memory at a time, at most `limit` GiB; None where its share fits.

    Raises:
        ValueError: the limit is too small to stream, either.
    """
    data = learner_data(config, manifest, num_rows)
    name = f"dataset {config.dataset}"
    return memory.groups_per_window(data, limit * GIB, lambda: stored_groups(shard_paths(config.dataset)), name)


def default_memory_limit(config: TrainConfig, device: str, nodes: Sequence[Mapping[str, Any]]) -> float:
    """GiB a learner: half of a node's object store over the learners it has room for, where that is least.

    Args:
        device: cpu or cuda.
        nodes: as `ray.nodes()` lists them.

    Raises:
        ValueError: no node has room for one learner.
    """
    limits = []
    for node in nodes:
        resources = node["Resources"]
        room = min(config.num_learners, slots(resources, learner_role(config, device).each))
        if node["Alive"] and room:
            limits.append(OBJECT_STORE_SHARE * resources.get("object_store_memory", 0) / room)
    if not limits:
        raise ValueError(
            f"no node of the cluster has room for a learner of {config.cpus_per_learner} CPUs on {device}; lower "
            "--cpus-per-learner"
        )
    return float(f"{min(limits) / GIB:.3g}")
