"""How much each learner may take by default, and what a limit makes of a run; no Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iql_ray.data.memory import GIB
from iql_ray.data.prepared import read_manifest
from iql_ray.distributed.checking import check
from iql_ray.distributed.data_memory import default_memory_limit, groups_per_window, learner_data
from iql_ray.distributed.train_config import TrainConfig
from tests.distributed.examples import NUM_STREAMED_ROWS, SMALL_LIMIT, tiny_dataset, train_config

NUM_ROWS = NUM_STREAMED_ROWS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three thousand rows of 28 bytes, in shards of fifty."""
    return tiny_dataset(tmp_path_factory.mktemp("data"), num_rows=NUM_ROWS)


def node(object_store_gib: float, num_cpus: int, num_gpus: int = 0, is_alive: bool = True) -> dict[str, Any]:
    """As Ray lists it; a node without GPUs does not name them."""
    resources = {"object_store_memory": object_store_gib * GIB, "CPU": float(num_cpus)}
    return {"Alive": is_alive, "Resources": {**resources, **({"GPU": float(num_gpus)} if num_gpus else {})}}


def default(*nodes: dict[str, Any], device: str = "cpu", **settings: Any) -> float:
    return default_memory_limit(TrainConfig(dataset="d", batch_size=240, **settings), device, nodes)


def test_one_learner_has_half_of_the_object_store():
    assert default(node(10, num_cpus=4)) == 5


def test_learners_of_a_node_share_it():
    """Four learners of two CPUs: two fit on the node of five."""
    assert default(node(10, num_cpus=8), num_learners=2) == 2.5
    assert default(node(10, num_cpus=5), num_learners=4, cpus_per_learner=2) == 2.5


def test_the_node_that_gives_a_learner_least_decides():
    """6 GiB over one learner, 20 over the four there is room for."""
    assert default(node(6, num_cpus=1), node(20, num_cpus=4), num_learners=4) == 2.5


def test_nodes_without_room_for_a_learner_do_not_count():
    nodes = [node(1, num_cpus=0), node(1, num_cpus=4, is_alive=False), node(10, num_cpus=4)]
    assert default(*nodes) == 5
    assert default(*nodes, node(40, num_cpus=8, num_gpus=2), num_learners=2, device="cuda") == 10


def test_no_node_with_room_is_refused():
    with pytest.raises(ValueError, match=r"no node .* room for a learner of 8 CPUs on cpu; lower --cpus-per-learner"):
        default(node(10, num_cpus=4), node(10, num_cpus=4), cpus_per_learner=8)


def test_a_learners_data_are_its_share_of_rows_and_batch(dataset: Path):
    """Two observations twice, an action, a reward, a termination; three thousand rows for seven."""
    config = train_config(dataset, num_learners=7, batch_size=14, seeds=(1, 2))
    data = learner_data(config, read_manifest(dataset), NUM_ROWS)
    assert (data.num_rows, data.row_width, data.num_seeds, data.batch_size) == (429, 7, 2, 2)
    sarsa = replace(config, critics=("sarsa",))
    assert learner_data(sarsa, read_manifest(dataset), NUM_ROWS).row_width == 8


def test_a_share_that_fits_is_held_a_larger_one_is_streamed(dataset: Path):
    """84,000 bytes over two learners."""
    manifest, config = read_manifest(dataset), train_config(dataset, num_learners=2)
    assert groups_per_window(config, manifest, NUM_ROWS, 42_000 / GIB) is None
    assert groups_per_window(config, manifest, NUM_ROWS, 41_999 / GIB) is not None
    assert groups_per_window(replace(config, num_learners=1), manifest, NUM_ROWS, 42_000 / GIB) is not None
    assert groups_per_window(config, manifest, NUM_ROWS, SMALL_LIMIT) == 3


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_no_amount_of_memory_is_refused(limit: float):
    with pytest.raises(ValueError, match=r"memory_limit = .*: expected a positive number of GiB"):
        TrainConfig(dataset="d", memory_limit=limit)


def test_a_limit_too_small_to_stream_is_refused_before_ray_starts(dataset: Path):
    with pytest.raises(ValueError, match=r"limit of 1e-06 GiB a learner is too small for dataset .*tiny-0"):
        check(train_config(dataset, memory_limit=1e-6))
    assert check(train_config(dataset, memory_limit=SMALL_LIMIT)).num_rows == NUM_ROWS
