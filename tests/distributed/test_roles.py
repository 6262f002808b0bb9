"""What a run asks of a cluster, and which nodes have it."""

from __future__ import annotations

from typing import Any

import pytest

from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.roles import (
    Node,
    Role,
    in_words,
    lacking,
    parse_resources,
    placed,
    refusal,
    room,
    waiting_line,
    worker_cpus,
)
from iql_ray.distributed.run_roles import finetune_roles, learner_role, least_roles, train_roles
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.train_config import TrainConfig


def node(address: str, **resources: float) -> Node:
    return Node(address=address, total=resources, free=resources)


HEAD = node("10.0.0.1")
LEARNER = node("10.0.0.2", CPU=4, GPU=1, iql_learner=1)
ROLLOUT = node("10.0.0.3", CPU=8, iql_rollout=1)
CLUSTER = [HEAD, LEARNER, ROLLOUT]


def role(count: int = 1, name: str = "learner", **each: float) -> Role:
    return Role(name=name, count=count, each=each, minimum=count)


def test_resources_are_pairs_as_ray_takes_them():
    assert parse_resources("learner_resources", ("iql_learner=0.001", "node:10.0.0.2=1")) == {
        "iql_learner": 0.001,
        "node:10.0.0.2": 1.0,
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("iql_learner", r"learner_resources = iql_learner: expected NAME=AMOUNT"),
        ("iql_learner=some", "expected NAME=AMOUNT"),
        ("iql_learner=0", "expected NAME=AMOUNT with an amount of 0.0001 to 1, or a whole number"),
        ("iql_learner=1.5", "a whole number"),
        ("iql_learner=nan", "a whole number"),
        ("=1", "expected NAME=AMOUNT"),
        ("CPU=2", "CPU is set by --cpus-per-learner"),
        ("GPU=1", "GPU is set by --device"),
    ],
)
def test_a_resource_that_ray_does_not_take_is_refused_by_the_configuration(word: str, message: str):
    with pytest.raises(ValueError, match=message):
        TrainConfig(dataset="d", learner_resources=(word,))


def test_a_search_has_no_rollout_workers_to_place():
    with pytest.raises(ValueError, match=r"a trial steps its environments by itself; .* --learner-resources"):
        SearchConfig(dataset="d", rollout_resources=("iql_rollout=1",))


def test_room_is_counted_in_the_scarcest_resource():
    assert room(role(9, CPU=3), CLUSTER) == 1 + 2
    assert room(role(9, CPU=1, GPU=0.25), CLUSTER) == 4
    assert room(role(9, CPU=1, iql_rollout=0.001), CLUSTER) == 8
    assert room(role(9), CLUSTER) == 9, "what asks for nothing goes anywhere"


def test_a_thousand_thousandths_are_one():
    assert room(role(2000, iql_rollout=0.001), [ROLLOUT]) == 1000


def test_roles_are_lacking_where_an_empty_cluster_has_too_little():
    small, large = role(1, CPU=4), role(4, CPU=4)
    assert lacking([small, large], CLUSTER) == [large]


def test_a_refusal_names_what_no_node_has_and_what_they_have():
    said = refusal(role(2, CPU=1, iql_gpu=1), CLUSTER)
    assert "the cluster can never run 2 learners (CPU 1, iql_gpu 1): no node has iql_gpu" in said
    assert "10.0.0.1: no CPUs; 10.0.0.2: CPU 4, GPU 1, iql_learner 1; 10.0.0.3: CPU 8, iql_rollout 1" in said


def test_a_refusal_counts_where_nodes_have_it_but_not_often_enough():
    assert "there is room for 1." in refusal(role(2, CPU=1, iql_learner=1), CLUSTER)
    assert "3 learners of 8 CPUs need more than the 12 CPUs" in refusal(role(3, CPU=8), CLUSTER)


def test_who_waits_says_for_what_and_what_would_help():
    said = waiting_line(role(2, CPU=1, iql_learner=1), CLUSTER, is_growing=True)
    assert said.startswith("waiting for 2 learners (CPU 1, iql_learner 1): the cluster's 3 nodes have room for 1; ")
    assert said.endswith("the autoscaler may bring a node")
    by_hand = waiting_line(role(2), CLUSTER, is_growing=False)
    assert by_hand.endswith("start a node that has it (ray start --address ...)")


def test_roles_are_placed_one_after_the_other():
    roles = [role(1, CPU=4, iql_learner=0.001), role(9, "rollout worker", CPU=1), role(1, "evaluation worker", CPU=1)]
    learners, rollouts, evaluation = placed(roles, CLUSTER)
    assert (learners["nodes"], learners["waiting"]) == ({"10.0.0.2": 1}, 0)
    assert (rollouts["nodes"], rollouts["waiting"]) == ({"10.0.0.3": 8}, 1)
    assert (evaluation["nodes"], evaluation["waiting"]) == ({}, 1)
    assert in_words([learners, rollouts]).splitlines() == [
        "1 learner (CPU 4, iql_learner 0.001): 1 at 10.0.0.2",
        "9 rollout workers (CPU 1): 8 at 10.0.0.3, 1 would wait for room",
    ]


def test_a_node_that_holds_all_of_a_role_comes_first():
    (learners,) = placed([role(6, CPU=1)], CLUSTER)
    assert learners["nodes"] == {"10.0.0.3": 6}


def test_workers_have_a_cpu_each_beside_the_learners_or_share_and_stay_off_an_idle_head():
    learners = role(1, CPU=3)
    assert worker_cpus(learners, 9, {}, CLUSTER) == 1.0
    assert worker_cpus(learners, 10, {}, CLUSTER) == 0.001, "Ray would put what asks for nothing on the head, too"
    assert worker_cpus(learners, 10, {}, [LEARNER, ROLLOUT]) == 0.0
    assert worker_cpus(learners, 9, {"iql_rollout": 0.001}, CLUSTER) == 0.001


def online(**settings: Any) -> FinetuneConfig:
    return FinetuneConfig(run="r", env="E-v0", num_rollout_workers=4, rollout_resources=("iql_rollout=1",), **settings)


def test_rollout_workers_in_step_are_all_needed_others_join():
    learner = TrainConfig(dataset="d", rollout_resources=("iql_rollout=1",))
    roles = finetune_roles(online(), learner, "cpu", CLUSTER)
    assert [each.name for each in lacking(least_roles(roles, CLUSTER), CLUSTER)] == ["rollout worker"]
    roles = finetune_roles(online(mode="asynchronous"), learner, "cpu", CLUSTER)
    assert lacking(least_roles(roles, CLUSTER), CLUSTER) == []


def test_learners_ask_for_what_their_configuration_says():
    config = TrainConfig(dataset="d", env="E-v0", num_learners=2, cpus_per_learner=3, learner_resources=("a=0.5",))
    assert dict(learner_role(config, "cuda").each) == {"CPU": 3.0, "GPU": 1.0, "a": 0.5}
    assert [each.name for each in train_roles(config, "cpu", CLUSTER)] == ["learner", "evaluation worker"]
    from_data = TrainConfig(dataset="d")
    assert [each.name for each in train_roles(from_data, "cpu", CLUSTER)] == ["learner"]
