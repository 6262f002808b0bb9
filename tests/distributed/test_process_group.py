"""Learners on several nodes talk over the addresses that Ray knows the nodes by."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from iql_ray.distributed import process_group
from iql_ray.distributed.process_group import (
    INTERFACE_VARIABLE,
    NodeAddressConfig,
    choose_interface,
    interface_of,
)

INTERFACES = {
    "lo": [SimpleNamespace(address="127.0.0.1")],
    "eth1": [SimpleNamespace(address="fe80::1"), SimpleNamespace(address="10.0.0.7")],
}


def test_the_interface_is_the_one_with_the_nodes_address():
    assert interface_of("10.0.0.7", INTERFACES) == "eth1"
    assert interface_of("127.0.0.1", INTERFACES) == "lo"
    assert interface_of("192.0.2.1", INTERFACES) is None


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(process_group.ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: INTERFACES)
    monkeypatch.setenv(INTERFACE_VARIABLE, "")
    monkeypatch.delenv(INTERFACE_VARIABLE)
    return monkeypatch


def test_it_is_chosen_unless_the_user_has_chosen(here: pytest.MonkeyPatch):
    choose_interface()
    assert os.environ[INTERFACE_VARIABLE] == "eth1"
    here.setenv(INTERFACE_VARIABLE, "bond0")
    choose_interface()
    assert os.environ[INTERFACE_VARIABLE] == "bond0"


class Group:
    """Of workers at these addresses; remembers what they executed."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.executed: list[Any] = []

    def execute(self, function: Any) -> list[str]:
        self.executed.append(function)
        return self.addresses


@pytest.mark.parametrize(("addresses", "is_chosen"), [(("10.0.0.7",) * 2, False), (("10.0.0.7", "10.0.0.8"), True)])
def test_on_one_node_gloo_is_left_alone(monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...], is_chosen: bool):
    started: list[Any] = []
    backend: Any = NodeAddressConfig(backend="gloo").backend_cls
    monkeypatch.setattr(backend.__mro__[1], "on_start", lambda self, group, config: started.append(group))
    group = Group(*addresses)
    backend().on_start(group, NodeAddressConfig(backend="gloo"))
    assert (choose_interface in group.executed) is is_chosen
    assert started == [group]
