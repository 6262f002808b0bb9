"""Whether the cluster has room for a run: asked before anything begins, and waited for where it may grow."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Sequence

import ray
from ray.autoscaler.sdk import request_resources
from ray.experimental.internal_kv import _internal_kv_get

from iql_ray.distributed.roles import Node, Role, lacking, refusal, waiting_line

Say = Callable[[str], None]

AUTOSCALER_VARIABLE = "IQL_RAY_AUTOSCALER"
"""1 or 0 where this cannot be seen from the cluster."""
AUTOSCALER_STATUS = b"__autoscaling_status"
"""Where Ray's monitor tells what it does."""
NODE_OF_NO_TYPE = re.compile("node_[0-9a-f]+")
"""How the monitor of a cluster that nobody scales names its nodes."""
NODE_TYPE_LABEL = "ray.io/node-group"
POLL_SECONDS, WATCH_SECONDS = 1.0, 10.0
SECONDS_BETWEEN_LINES = 60.0


def alive_nodes() -> list[Node]:
    """Of the cluster that this process has joined, the driver's own first."""
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    here = ray.get_runtime_context().get_node_id()
    listed = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != here)
    return [
        Node(address=node["NodeManagerAddress"], total=node["Resources"], free=free.get(node["NodeID"], {}))
        for node in listed
    ]


def may_grow() -> bool:
    """Whether an autoscaler may add nodes, as far as the cluster tells."""
    told = os.environ.get(AUTOSCALER_VARIABLE)
    if told is not None:
        return told == "1"
    status = json.loads(_internal_kv_get(AUTOSCALER_STATUS) or "{}")
    types = (status.get("autoscaler_report") or {}).get("active_nodes") or {}
    has_types = any(not NODE_OF_NO_TYPE.fullmatch(name) for name in types)
    return has_types or any(node["Alive"] and (node.get("Labels") or {}).get(NODE_TYPE_LABEL) for node in ray.nodes())


class RoomWatch:
    """Says, now and then, that a run has lost its room: a node is gone, and no other one has taken its place."""

    def __init__(self, roles: Sequence[Role], say: Say) -> None:
        self._roles, self._say = roles, say
        self._looked_at = self._told_at = -SECONDS_BETWEEN_LINES

    def look(self, now: float) -> None:
        """To be called often; looks every few seconds.

        Args:
            now: of a clock that only goes forward, in seconds.
        """
        if now - self._looked_at < WATCH_SECONDS:
            return
        self._looked_at = now
        missing = lacking(self._roles, nodes := alive_nodes())
        if missing and now - self._told_at >= SECONDS_BETWEEN_LINES:
            self._told_at = now
            for role in missing:
                self._say(waiting_line(role, nodes, may_grow()))


def await_room(roles: Sequence[Role], say: Say) -> list[Node]:
    """The nodes, once they would have room for everything that must run, were they empty.

    Raises:
        ValueError: they have not, and nothing will bring another one.
    """
    told_at, is_asked = -SECONDS_BETWEEN_LINES, False
    while missing := lacking(roles, nodes := alive_nodes()):
        if not may_grow():
            raise ValueError(refusal(missing[0], nodes))
        if not is_asked:
            request_resources(bundles=[dict(role.each) for role in roles for _ in range(role.minimum)])
            is_asked = True
        if time.monotonic() - told_at >= SECONDS_BETWEEN_LINES:
            for role in missing:
                say(waiting_line(role, nodes, is_growing=True))
            told_at = time.monotonic()
        time.sleep(POLL_SECONDS)
    if is_asked:
        request_resources(bundles=[])  # they are here; what is idle later may go
    return nodes
