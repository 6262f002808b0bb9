"""Shards: the dataset in order, cut into equal parts, each one read-only matrix in the object store; or a stream."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch

from iql_ray.data.packed import RowLayout
from iql_ray.data.packing import pack
from iql_ray.data.prepared import read_manifest, shard_paths
from iql_ray.data.selection import RowSelection, select_rows
from iql_ray.data.streaming import StreamedRows
from iql_ray.data.transforms import TransformConfig, Transforms
from iql_ray.distributed.shards import learner_rows, learner_shards, packed_shards, resident_rows
from tests.data.examples import example, prepare_here, write_npz
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


def selected_rows(dataset: Path, transforms: Transforms, selection: RowSelection) -> np.ndarray:
    """The rows of a selection in order, chosen and packed in this process as one table."""
    table = pa.concat_tables([pq.read_table(path) for path in shard_paths(dataset)])
    chosen, next_actions = select_rows(dataset, read_manifest(dataset), selection).choose(table)
    return pack(chosen, transforms, next_actions)


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


def test_shards_of_a_selection_are_equal_parts_of_what_it_leaves(
    ray_session: None, dataset: Path, transforms: Transforms
):
    """Seven of the thirteen episodes of ten rows (the last one has five); a cut one loses its last row."""
    selection = RowSelection(top_episode_share=0.5, with_next_actions=True)
    expected = selected_rows(dataset, transforms, selection)
    shards = packed_shards(dataset, read_manifest(dataset), transforms, 3, selection)
    parts = [ray.get(each) for each in shards]
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert np.array_equal(np.concatenate(parts), expected)
    assert 58 <= len(expected) <= 70


def test_every_row_of_a_shard_ends_with_its_next_action(ray_session: None, tmp_path: Path):
    """A row a file. Observations 0, 1, 2 | 10, 11 did -1, -0.5, 0 | 0.5, 1; after 2 it is over, after 11 is unknown."""
    prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a", rows_per_shard=1)
    selection = RowSelection(with_next_actions=True)
    transforms = Transforms(action_low=(-2.0,), action_high=(2.0,))
    (shard,) = packed_shards(tmp_path / "a", read_manifest(tmp_path / "a"), transforms, 1, selection)
    batch = RowLayout(observation_dim=2, action_dim=1, has_next_actions=True).split(torch.tensor(ray.get(shard)))
    assert batch.next_actions is not None
    found = zip(batch.observations[:, 0].tolist(), batch.next_actions[:, 0].tolist(), strict=True)
    assert dict(found) == {0: -0.25, 1: 0, 2: 0, 10: 0.5}


def test_files_of_which_nothing_is_left_are_no_hindrance(ray_session: None, tmp_path: Path):
    """A row a file, and two of five rows left for two learners: those of the better episode."""
    prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a", rows_per_shard=1)
    selection = RowSelection(top_episode_share=0.5)
    shards = packed_shards(tmp_path / "a", read_manifest(tmp_path / "a"), Transforms(), 2, selection)
    assert sorted(float(row[3]) for shard in shards for row in ray.get(shard)) == [4, 5]
    assert [ray.get(shard).shape for shard in shards] == [(1, 7), (1, 7)]


def test_a_selection_that_leaves_a_learner_without_rows_is_refused(tmp_path: Path):
    """Before anything is asked of Ray."""
    prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a")
    manifest, selection = read_manifest(tmp_path / "a"), RowSelection(top_episode_share=0.5, with_next_actions=True)
    with pytest.raises(ValueError, match=r"a has 1 of its 5 rows left to learn from, for 2 learners; .*lower"):
        packed_shards(tmp_path / "a", manifest, Transforms(), 2, selection)


def test_without_windows_a_learner_has_its_matrix(ray_session: None, dataset: Path, transforms: Transforms):
    (shard,) = learner_shards(dataset, read_manifest(dataset), transforms, 1)
    rows = learner_rows(shard, torch.device("cpu"))
    assert isinstance(rows, torch.Tensor)
    assert np.array_equal(rows.numpy(), all_rows(dataset, transforms))


def test_with_windows_every_learner_has_the_stream_and_one_table_of_next_actions(
    ray_session: None, dataset: Path, transforms: Transforms
):
    """The files have 42, 42 and 41 rows, six of them the last of a cut episode; the table is mapped, not copied."""
    selection = RowSelection(with_next_actions=True)
    shards = learner_shards(dataset, read_manifest(dataset), transforms, 2, selection, 2)
    first, second = (learner_rows(shard, torch.device("cpu")) for shard in shards)
    assert isinstance(first, StreamedRows)
    assert isinstance(second, StreamedRows)
    assert (first.groups_per_window, first.num_learners, first.device) == (2, 2, torch.device("cpu"))
    assert sum(group.num_rows for group in first.groups) == NUM_ROWS - 6
    assert first.selected is not None
    assert second.selected is not None
    assert first.selected.actions is not None
    assert second.selected.actions is not None
    assert first.selected.actions.ctypes.data == second.selected.actions.ctypes.data


def test_a_streamed_selection_that_leaves_a_learner_without_rows_is_refused(tmp_path: Path):
    prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a")
    manifest, selection = read_manifest(tmp_path / "a"), RowSelection(top_episode_share=0.5, with_next_actions=True)
    with pytest.raises(ValueError, match=r"a has 1 of its 5 rows left to learn from, for 2 learners; .*lower"):
        learner_shards(tmp_path / "a", manifest, Transforms(), 2, selection, 1)
