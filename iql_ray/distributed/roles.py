"""What a run's processes ask of a cluster, and which nodes have it: arithmetic over lists of nodes. Imports no Ray.

A role is so many processes alike: learners, rollout workers, trials. Custom resources, which nodes are started with
(`ray start --resources '{"iql_rollout": 1}'`), keep them apart: `--learner-resources iql_learner=0.001`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OF_OTHER_FLAGS = {"CPU": "--cpus-per-learner", "GPU": "--device", "memory": "--memory-limit"}
SHARED_CPU = 0.001
"""Of a process that shares cores: nothing to speak of, and more than a head without CPUs has to give."""
QUANTUM = 1e-4
"""Ray counts resources in steps of this size."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """Processes that are placed alike."""

    name: str
    """In the singular."""
    count: int
    each: Mapping[str, float]
    """What one of them asks for: CPU, GPU, custom resources."""
    minimum: int
    """How many must have a place for the work to go on; the others join as they get theirs."""

    @property
    def words(self) -> str:
        """`2 learners (CPU 1, iql_learner 0.001)`."""
        asked = ", ".join(f"{name} {amount:g}" for name, amount in self.each.items() if amount)
        return f"{self.count} {self.name}{'s' * (self.count != 1)}" + (f" ({asked})" if asked else "")


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that is alive."""

    address: str
    total: Mapping[str, float]
    free: Mapping[str, float] = field(default_factory=dict)


def parse_resources(name: str, words: Sequence[str]) -> dict[str, float]:
    """`NAME=AMOUNT ...` as Ray takes it.

    Raises:
        ValueError: no such pair, an amount that Ray cannot count, or a resource with a setting of its own.
    """
    resources: dict[str, float] = {}
    for word in words:
        resource, _, amount = word.partition("=")
        try:
            resources[resource] = float(amount)
        except ValueError:
            resources[resource] = math.nan
        value = resources[resource]
        if not resource or not QUANTUM <= value < math.inf or (value > 1 and value % 1):
            raise ValueError(
                f"{name} = {word}: expected NAME=AMOUNT with an amount of {QUANTUM:g} to 1, or a whole number, such as "
                "iql_learner=0.001"
            )
        if resource in OF_OTHER_FLAGS:
            raise ValueError(f"{name} = {word}: {resource} is set by {OF_OTHER_FLAGS[resource]}")
    return resources


def slots(resources: Mapping[str, float], each: Mapping[str, float]) -> float:
    """How many processes resources are enough for; infinitely many that ask for nothing."""
    counts = [resources.get(name, 0.0) / amount + QUANTUM for name, amount in each.items() if amount]
    return math.floor(min(counts)) if counts else math.inf


def room(role: Role, nodes: Sequence[Node]) -> int:
    """Of so many there is place for, were the cluster empty."""
    return int(min(role.count, sum(slots(node.total, role.each) for node in nodes)))


def lacking(roles: Sequence[Role], nodes: Sequence[Node]) -> list[Role]:
    """Those that an empty cluster has too little for."""
    return [role for role in roles if room(role, nodes) < role.minimum]


def refusal(role: Role, nodes: Sequence[Node]) -> str:
    """Why the work can never begin on these nodes."""
    num_cpus = sum(node.total.get("CPU", 0.0) for node in nodes)
    if set(role.each) <= {"CPU"} and role.minimum * role.each.get("CPU", 0.0) > num_cpus:
        return (
            f"{role.count} {role.name}s of {role.each['CPU']:g} CPUs need more than the {num_cpus:g} CPUs that the "
            "cluster has; lower --num-learners or --cpus-per-learner, or add nodes"
        )
    missing = [name for name, amount in role.each.items() if not _is_offered(name, amount, nodes)]
    why = f"no node has {' or '.join(missing)}" if missing else f"there is room for {room(role, nodes)}"
    offers = "; ".join(f"{node.address}: {_offer(node.total)}" for node in nodes)
    return (
        f"the cluster can never run {role.words}: {why}. Its nodes: {offers}. Start nodes that have it (ray start "
        f"--resources ...), or ask for less (--learner-resources, --rollout-resources, --num-learners)"
    )


def waiting_line(role: Role, nodes: Sequence[Node], is_growing: bool) -> str:
    """What a run says that may begin, or go on, when there is room.

    Args:
        is_growing: whether an autoscaler may bring it.
    """
    hope = "the autoscaler may bring a node" if is_growing else "start a node that has it (ray start --address ...)"
    has = f"the cluster's {len(nodes)} nodes have room for {room(role, nodes)}"
    return f"waiting for {role.words}: {has}; {hope}"


def placed(roles: Sequence[Role], nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """Where processes would go as nodes are now, role after role: on one node that holds all, or one filled after the
    other.

    Returns:
        Of each role its name, count, resources, `nodes` (how many at which address) and `waiting` (without a place).
    """
    free = [dict(node.free) for node in nodes]
    found = []
    for role in roles:
        left, where = role.count, {}
        pairs = list(zip(nodes, free, strict=True))
        for node, rest in sorted(pairs, key=lambda pair: slots(pair[1], role.each) < role.count):
            number = min(left, slots(rest, role.each))
            if number > 0:
                where[node.address] = int(number)
                left -= int(number)
                for name, amount in role.each.items():
                    rest[name] = rest.get(name, 0.0) - number * amount
        found.append(
            {"role": role.name, "count": role.count, "resources": dict(role.each), "nodes": where, "waiting": left}
        )
    return found


def in_words(found: Sequence[Mapping[str, Any]]) -> str:
    """A placement for people, a line for each role."""
    lines = []
    for each in found:
        role = Role(name=each["role"], count=each["count"], each=each["resources"], minimum=0)
        where = [f"{number} at {address}" for address, number in each["nodes"].items()]
        waiting = [f"{each['waiting']} would wait for room"] if each["waiting"] else []
        lines.append(f"{role.words}: {', '.join(where + waiting)}")
    return "\n".join(lines)


def has_idle_head(nodes: Sequence[Node]) -> bool:
    """Whether some node is to run no work: it has no CPUs."""
    return any(not node.total.get("CPU") for node in nodes)


def worker_cpus(learners: Role, num_workers: int, resources: Mapping[str, float], nodes: Sequence[Node]) -> float:
    """What each of some workers asks for beside the learners: a CPU where there are enough; otherwise they share.

    Args:
        resources: custom ones, of each worker.
    """
    after = placed([learners], nodes)[0]["nodes"]
    free = [
        {name: amount - after.get(node.address, 0) * learners.each.get(name, 0.0) for name, amount in node.free.items()}
        for node in nodes
    ]
    if sum(slots(each, {"CPU": 1.0, **resources}) for each in free) >= num_workers:
        return 1.0
    return SHARED_CPU if has_idle_head(nodes) else 0.0


def _is_offered(name: str, amount: float, nodes: Sequence[Node]) -> bool:
    return not amount or any(node.total.get(name, 0.0) + QUANTUM >= amount for node in nodes)


def _offer(total: Mapping[str, float]) -> str:
    """What a node has that roles ask for."""
    told = {name: amount for name, amount in total.items() if not name.startswith(("node:", "memory", "object_store"))}
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(told.items())) or "no CPUs"
