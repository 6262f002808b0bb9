"""A dataset behind a URI: fetched once whoever asks, whole or not at all, and the same to every reader."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from iql_ray.data import fetching
from iql_ray.data.fetching import CACHE_VARIABLE, local_folder
from iql_ray.data.locations import absolute, is_uri, last_name
from iql_ray.data.prepared import read_columns, read_manifest, shard_paths
from tests.distributed.examples import tiny_dataset


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    fetching._fetched.cache_clear()
    return tiny_dataset(tmp_path / "with space")


def in_cache(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "datasets").iterdir())


def test_readers_find_behind_a_uri_what_they_find_in_the_folder(dataset: Path):
    uri = dataset.as_uri()
    assert read_manifest(uri) == read_manifest(dataset)
    assert [path.name for path in shard_paths(uri)] == [path.name for path in shard_paths(dataset)]
    assert list(read_columns(uri, "rewards")) == list(read_columns(dataset, "rewards"))
    assert local_folder(dataset) == dataset


def test_what_was_fetched_once_needs_the_uri_no_more(dataset: Path, tmp_path: Path):
    before = local_folder(dataset.as_uri())
    dataset.rename(tmp_path / "gone")
    assert local_folder(dataset.as_uri()) == before
    fetching._fetched.cache_clear()  # another process: its manifest says what it would be
    with pytest.raises(ValueError, match=r"has no manifest\.json; expected the URI of a folder"):
        local_folder(dataset.as_uri())


def test_another_uri_of_the_same_dataset_is_the_same_copy(dataset: Path, tmp_path: Path):
    first = local_folder(dataset.as_uri())
    moved = dataset.rename(tmp_path / "moved")
    assert local_folder(moved.as_uri()) == first
    assert [name for name in in_cache(tmp_path) if not name.endswith(".lock")] == [first.name]


def test_a_shard_that_is_not_what_the_manifest_lists_is_refused_and_the_others_are_kept(dataset: Path, tmp_path: Path):
    last = shard_paths(dataset)[-1]
    content = last.read_bytes()
    last.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{last.name} is not the shard that its manifest lists"):
        local_folder(dataset.as_uri())
    (partial,) = (tmp_path / "cache" / "datasets").glob("*.partial")
    whole = [path.name for path in shard_paths(dataset)[:-1]]
    assert sorted(path.name for path in partial.glob("shard-*")) == whole
    untouched = (partial / whole[0]).stat().st_mtime_ns
    last.write_bytes(content)
    assert (local_folder(dataset.as_uri()) / whole[0]).stat().st_mtime_ns == untouched


def test_a_manifest_cannot_name_files_elsewhere(dataset: Path, tmp_path: Path):
    manifest = json.loads((dataset / "manifest.json").read_text())
    manifest["shards"][0]["file"] = "../../stolen"
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="is no manifest of a prepared dataset"):
        local_folder(dataset.as_uri())
    assert not list(tmp_path.rglob("stolen"))


def test_those_who_ask_at_once_share_one_fetch(dataset: Path, monkeypatch: pytest.MonkeyPatch):
    """On threads here; the lock is of an open file, and so between processes the same."""
    fetch, fetched, start = fetching._fetch, [], threading.Barrier(3, timeout=30)

    def noted(filesystem: Any, root: str, shard: dict[str, Any], folder: Path) -> None:
        fetched.append(shard["file"])
        fetch(filesystem, root, shard, folder)

    def ask(_: int) -> Path:
        start.wait()
        return local_folder(dataset.as_uri())

    monkeypatch.setattr(fetching, "_fetch", noted)
    with ThreadPoolExecutor(3) as threads:
        assert len(set(threads.map(ask, range(3)))) == 1
    assert sorted(fetched) == [path.name for path in shard_paths(dataset)]


@pytest.mark.parametrize(
    ("location", "name"),
    [("data/pen", "pen"), ("s3://bucket/logs/pen/?region=eu-west-1", "pen"), ("gs://bucket", "bucket")],
)
def test_the_last_name_of_a_location(location: str, name: str):
    assert last_name(location) == name


def test_a_uri_is_absolute_as_it_is():
    assert absolute("s3://bucket/pen") == "s3://bucket/pen"
    assert [is_uri(each) for each in ("gs://b", "C:/data", "data/pen")] == [True, False, False]
    assert absolute("data") == str(Path("data").absolute())
