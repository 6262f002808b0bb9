"""What a reader is told of a dataset that is not whole, not ours, or not of this version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iql_ray import config
from iql_ray.data.prepared import MANIFEST_FILE, Manifest, read_manifest, shard_paths
from tests.data.examples import example, prepare_here, write_npz


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a", rows_per_shard=3)
    return tmp_path / "a"


def edit(folder: Path, **changes: object) -> None:
    values = {**json.loads((folder / MANIFEST_FILE).read_text()), **changes}
    config.write_json(values, folder / MANIFEST_FILE)


def test_a_manifest_is_read_as_it_was_written(dataset: Path, tmp_path: Path) -> None:
    again = prepare_here(f"npz:{tmp_path / 'a.npz'}", dataset, rows_per_shard=3, overwrite=True)
    assert read_manifest(dataset) == again
    assert isinstance(again, Manifest)


def test_shards_are_found_in_order(dataset: Path) -> None:
    assert shard_paths(dataset) == [dataset / "shard-00000.parquet", dataset / "shard-00001.parquet"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing does not exist; expected a folder made by `iql-ray prepare"):
        read_manifest(tmp_path / "nothing")


def test_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no prepared dataset"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST_FILE).write_text('{"format": "something else"}')
    with pytest.raises(ValueError, match="is no prepared dataset"):
        read_manifest(tmp_path)


def test_another_format_version(dataset: Path) -> None:
    edit(dataset, format_version=99)
    with pytest.raises(ValueError, match="has format version 99, this version reads 1; prepare it again"):
        read_manifest(dataset)


def test_an_unknown_key(dataset: Path) -> None:
    edit(dataset, num_row=5)
    with pytest.raises(ValueError, match=r"manifest\.json: unknown key 'num_row'; did you mean 'num_rows'"):
        read_manifest(dataset)


def test_a_shard_that_is_missing_or_cut_short(dataset: Path) -> None:
    shard = dataset / "shard-00001.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    sizes = f"has {len(content) - 1} bytes, expected {len(content)}"
    with pytest.raises(ValueError, match=rf"shard-00001\.parquet {sizes}"):
        read_manifest(dataset)
    shard.unlink()
    with pytest.raises(ValueError, match=r"shard-00001\.parquet is missing"):
        read_manifest(dataset)
