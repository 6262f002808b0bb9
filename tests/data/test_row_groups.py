"""Row groups: what a dataset is read by, whatever its files look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iql_ray.data import row_groups
from iql_ray.data.packing import pack
from iql_ray.data.prepared import read_manifest, shard_paths
from iql_ray.data.row_groups import RowGroup, packed_blocks, selected_groups, stored_groups
from iql_ray.data.selection import RowSelection, SelectedRows, select_rows
from iql_ray.data.transforms import Transforms
from tests.data.examples import example, prepare_here, write_npz

TRANSFORMS = Transforms(reward_scale=2.0, action_low=(-2.0,), action_high=(2.0,))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The example's five rows in shards of three and two."""
    prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a", rows_per_shard=3)
    return tmp_path / "a"


def stored(dataset: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in shard_paths(dataset)])


def packed(groups: tuple[RowGroup, ...], selected: SelectedRows | None = None) -> np.ndarray:
    return np.concatenate([block for group in groups for block in packed_blocks(group, TRANSFORMS, selected)])


def test_groups_one_after_the_other_are_the_packed_dataset(dataset: Path):
    groups = stored_groups(shard_paths(dataset))
    assert [(Path(group.path).name, group.index, group.num_rows) for group in groups] == [
        ("shard-00000.parquet", 0, 3),
        ("shard-00001.parquet", 0, 2),
    ]
    assert np.array_equal(packed(groups), pack(stored(dataset), TRANSFORMS))


def test_a_file_of_several_groups_is_read_a_group_at_a_time(dataset: Path):
    """All five rows in one file, in groups of two, two and one."""
    path = str(dataset / "one.parquet")
    table = stored(dataset)
    pq.write_table(table, path, row_group_size=2)
    groups = tuple(RowGroup(path=path, index=index, num_rows=size) for index, size in enumerate((2, 2, 1)))
    assert np.array_equal(packed(groups[1:2]), pack(table.slice(2, 2), TRANSFORMS))
    assert np.array_equal(packed(groups), pack(table, TRANSFORMS))


def test_a_large_group_comes_in_blocks(dataset: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(row_groups, "ROWS_PER_READ", 2)
    blocks = list(packed_blocks(stored_groups(shard_paths(dataset))[0], TRANSFORMS, None))
    assert [block.shape for block in blocks] == [(2, 7), (1, 7)]
    assert {block.dtype.name for block in blocks} == {"float32"}


@pytest.mark.parametrize(
    "selection",
    [
        RowSelection(top_episode_share=0.5),
        RowSelection(with_next_actions=True),
        RowSelection(top_episode_share=0.5, with_next_actions=True),
    ],
)
def test_a_selection_is_what_it_is_of_the_whole_dataset(dataset: Path, selection: RowSelection):
    selected = select_rows(dataset, read_manifest(dataset), selection)
    groups = selected_groups(stored_groups(shard_paths(dataset)), selected)
    chosen, next_actions = selected.choose(stored(dataset))
    assert sum(group.num_rows for group in groups) == chosen.num_rows
    assert np.array_equal(packed(groups, selected), pack(chosen, TRANSFORMS, next_actions))


def test_a_group_of_which_nothing_is_kept_is_gone(tmp_path: Path):
    """A row a file; the better episode has two rows, 4 and 5."""
    prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a", rows_per_shard=1)
    selected = select_rows(tmp_path / "a", read_manifest(tmp_path / "a"), RowSelection(top_episode_share=0.5))
    groups = selected_groups(stored_groups(shard_paths(tmp_path / "a")), selected)
    assert [group.num_rows for group in groups] == [1, 1]
    assert sorted(packed(groups, selected)[:, 3].tolist()) == [8, 10]


def test_a_file_that_went_away_is_named(dataset: Path):
    group = stored_groups(shard_paths(dataset))[1]
    Path(group.path).unlink()
    with pytest.raises(RuntimeError, match=r"row group 0 of .*shard-00001.parquet cannot be read"):
        packed((group,))


def test_a_damaged_file_is_named(dataset: Path):
    group = stored_groups(shard_paths(dataset))[0]
    content = Path(group.path).read_bytes()
    Path(group.path).write_bytes(content[: len(content) // 2])
    with pytest.raises(RuntimeError, match=r"row group 0 of .*shard-00000.parquet cannot be read"):
        packed((group,))


def test_a_file_with_other_rows_than_when_the_run_began_is_named(dataset: Path):
    group = stored_groups(shard_paths(dataset))[0]
    pq.write_table(stored(dataset), group.path)
    with pytest.raises(RuntimeError, match=r"has 5 rows to learn from, it had 3 when the run began"):
        packed((group,))
