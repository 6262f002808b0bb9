"""Room in a cluster: refused at once where it can never be, waited for where an autoscaler may bring it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from iql_ray.distributed import cluster_room
from iql_ray.distributed.cluster_room import RoomWatch, await_room, may_grow
from iql_ray.distributed.roles import Node, Role

SMALL = Node(address="10.0.0.1", total={"CPU": 1.0})
LARGE = Node(address="10.0.0.2", total={"CPU": 8.0})
LEARNERS = Role(name="learner", count=2, each={"CPU": 2.0}, minimum=2)


class Cluster:
    """What Ray would be asked, and told."""

    def __init__(self) -> None:
        self.views: Iterator[list[Node]] = iter([])
        self.requests: list[list[dict[str, float]]] = []
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(cluster_room, "alive_nodes", lambda: next(cluster.views))
    monkeypatch.setattr(cluster_room, "request_resources", lambda bundles: cluster.requests.append(bundles))
    monkeypatch.setattr(cluster_room.time, "monotonic", lambda: cluster.seconds)
    monkeypatch.setattr(cluster_room.time, "sleep", cluster.sleep)
    return cluster


def test_room_that_is_there_is_not_asked_for(cluster: Cluster):
    cluster.views = iter([[SMALL, LARGE]])
    assert await_room([LEARNERS], pytest.fail) == [SMALL, LARGE]
    assert cluster.requests == []


def test_what_nobody_will_bring_is_refused_at_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IQL_RAY_AUTOSCALER", "0")
    cluster.views = iter([[SMALL]])
    with pytest.raises(ValueError, match=r"2 learners of 2 CPUs need more than the 1 CPUs that the cluster has"):
        await_room([LEARNERS], pytest.fail)


def test_what_an_autoscaler_may_bring_is_asked_for_once_and_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("IQL_RAY_AUTOSCALER", "1")
    cluster.views = iter([[SMALL]] * 130 + [[SMALL, LARGE]])
    lines: list[str] = []
    assert await_room([LEARNERS], lines.append) == [SMALL, LARGE]
    assert cluster.requests == [[{"CPU": 2.0}, {"CPU": 2.0}], []], "and given up when it is there"
    assert len(lines) == 3, "at once, and every minute of the 130 seconds"
    assert "waiting for 2 learners (CPU 2): the cluster's 1 nodes have room for 0" in lines[0]


def test_a_run_that_lost_its_node_says_so_now_and_then(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IQL_RAY_AUTOSCALER", "0")
    cluster.views = iter([[LARGE]] + [[SMALL]] * 9)
    lines: list[str] = []
    watch = RoomWatch([LEARNERS], lines.append)
    for second in range(100):
        watch.look(float(second))
    assert len(lines) == 2
    assert "start a node that has it" in lines[0]


def says(monkeypatch: pytest.MonkeyPatch, types: dict[str, int], labels: dict[str, str]) -> bool:
    """Whether a cluster whose monitor reports these types of nodes, one with labels, may grow."""
    monkeypatch.delenv("IQL_RAY_AUTOSCALER", raising=False)
    status = json.dumps({"autoscaler_report": {"active_nodes": types}}).encode()
    monkeypatch.setattr(cluster_room, "_internal_kv_get", lambda key: status)
    monkeypatch.setattr(cluster_room.ray, "nodes", lambda: [{"Alive": True, "Labels": labels}])
    return may_grow()


def test_an_autoscaler_is_known_by_the_types_of_its_nodes(monkeypatch: pytest.MonkeyPatch):
    """As Ray 2.60's monitor reports them, of nodes that were started by hand and of a launcher's."""
    assert not says(monkeypatch, {"node_113e8aade510847ee07a4f650b764761121515e89e8c79c1adca1437": 1}, {})
    assert says(monkeypatch, {"node_113e8aade510847e": 1, "ray.head.default": 1}, {})
    assert says(monkeypatch, {}, {"ray.io/node-group": "rollout"})


def test_a_session_without_a_monitor_does_not_grow(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("IQL_RAY_AUTOSCALER", raising=False)
    monkeypatch.setattr(cluster_room, "_internal_kv_get", lambda key: None)
    monkeypatch.setattr(cluster_room.ray, "nodes", lambda: [{"Alive": True, "Labels": {"ray.io/node-id": "a"}}])
    assert not may_grow()
