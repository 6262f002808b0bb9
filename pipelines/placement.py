"""What `--dry-run` says of a cluster: which nodes would take which processes. Other commands call it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from iql_ray.distributed.roles import Node, Role, in_words, lacking, placed, refusal
from iql_ray.distributed.train_config import Device


def show_placement(
    nodes: Sequence[Node], roles_of: Callable[[str, Sequence[Node]], Sequence[Role]], device: Device, num_learners: int
) -> dict[str, Any]:
    """Say where processes would go as nodes are now.

    Args:
        roles_of: from the kind of device and the nodes to what is to be placed.
        device: as configured; auto is a GPU where the cluster has one for each learner.
        num_learners: or trials at a time.

    Returns:
        device, `placement` as `roles.placed` has it, and `refusal`: why the run could never begin on these nodes, or
        null.
    """
    if device == "auto":
        num_gpus = sum(node.total.get("GPU", 0) for node in nodes)
        device = "cuda" if num_gpus >= num_learners else "cpu"
    roles = roles_of(device, nodes)
    found = placed(roles, nodes)
    print(in_words(found), file=sys.stderr)
    missing = lacking(roles, nodes)
    why = refusal(missing[0], nodes) if missing else None
    if why is not None:
        print(why, file=sys.stderr)
    return {"device": device, "placement": found, "refusal": why}
