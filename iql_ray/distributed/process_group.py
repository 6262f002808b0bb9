"""How learners find each other: gloo listens at the address that Ray knows a node by.

Left alone it listens where the machine's own name leads, and on many machines `/etc/hosts` leads that to 127.0.0.1:
learners on other nodes are then refused ("Gloo connectFullMesh failed").
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig

INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"

_Backend: Any = TorchConfig().backend_cls


class NodeAddressBackend(_Backend):
    """Ray's own, in whose processes gloo's interface is chosen first where learners are on several nodes."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        addresses = worker_group.execute(ray.util.get_node_ip_address)
        if len(set(addresses)) > 1:
            worker_group.execute(choose_interface)
        super().on_start(worker_group, backend_config)


@dataclass
class NodeAddressConfig(TorchConfig):
    """A process group over the addresses of nodes."""

    @property
    def backend_cls(self) -> type:
        return NodeAddressBackend


def choose_interface() -> None:
    """In a learner's process; what its environment already says stays."""
    interface = interface_of(ray.util.get_node_ip_address(), psutil.net_if_addrs())
    if interface is not None:
        os.environ.setdefault(INTERFACE_VARIABLE, interface)


def interface_of(address: str, interfaces: Mapping[str, Sequence[Any]]) -> str | None:
    """The one that has this address, of those that psutil lists; None where it is no interface's, as behind NAT."""
    return next((name for name, each in interfaces.items() if address in [one.address for one in each]), None)
