"""Shards: the dataset in order, cut into equal parts, each one read-only matrix in the object store."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from iql_ray.data.prepared import read_manifest
from iql_ray.data.transforms import TransformConfig, Transforms
from iql_ray.distributed.shards import packed_shards, resident_rows
from tests.distributed.examples import all_rows, tiny_dataset

NUM_ROWS = 125


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of 41 or 42 rows, whose bounds are those of no shard."""
    return tiny_dataset(tmp_path_factory.mktemp("data"), num_rows=NUM_ROWS)


@pytest.fixture(scope="module")
def transforms(dataset: Path) -> Transforms:
    config = TransformConfig(reward_scale=3.0, reward_shift=-1.0, normalize_observations=True)
    return Transforms.fit(config, read_manifest(dataset))


@pytest.mark.parametrize("num_shards", [1, 2, 3])
def test_shards_one_after_the_other_are_the_transformed_dataset(
    ray_session: None, dataset: Path, transforms: Transforms, num_shards: int
):
    shards = [ray.get(each) for each in packed_shards(dataset, read_manifest(dataset), transforms, num_shards)]
    sizes = [len(shard) for shard in shards]
    assert len(shards) == num_shards
    assert max(sizes) - min(sizes) <= 1
    assert np.array_equal(np.concatenate(shards), all_rows(dataset, transforms))


def test_a_shard_is_mapped_and_not_copied(ray_session: None, dataset: Path, transforms: Transforms):
    """Two looks at it see one place in the object store's memory, and neither may write there."""
    (shard,) = packed_shards(dataset, read_manifest(dataset), transforms, 1)
    first, second = (resident_rows(shard, torch.device("cpu")) for _ in range(2))
    assert first.data_ptr() == second.data_ptr()
    assert (first.dtype, first.shape) == (torch.float32, (NUM_ROWS, 7))
    assert not ray.get(shard).flags.writeable


def test_shards_do_not_depend_on_where_they_are_read_from(
    ray_session: None, dataset: Path, transforms: Transforms, monkeypatch: pytest.MonkeyPatch
):
    """A relative path means the driver's folder, wherever the workers run."""
    monkeypatch.chdir(dataset.parent)
    relative = Path(os.path.relpath(dataset))
    (shard,) = packed_shards(relative, read_manifest(relative), transforms, 1)
    assert len(ray.get(shard)) == NUM_ROWS
