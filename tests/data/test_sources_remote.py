"""Sources behind URIs: the same rows as from a path, provenance with hashes, one message when out of reach."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs

from iql_ray.data.sources import files, open_source
from iql_ray.data.sources.files import RemoteFile, find_files
from tests.data.examples import prepare_here, tables_of
from tests.data.source_examples import LINKED, WHOLE, episodes, mapping_for

KINDS = sorted({*WHOLE, *LINKED} - {"minari"})


def as_uri(spec: str) -> str:
    kind, _, path = spec.partition(":")
    return f"{kind}:{Path(path).as_uri()}"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> fs.FileSystem:
    """A bucket in memory, in the place of gs://bucket."""
    filesystem = fs._MockFileSystem()
    filesystem.create_dir("bucket")
    monkeypatch.setattr(files, "_root", lambda scheme, authority, query: (filesystem, authority))
    return filesystem


def put(filesystem: fs.FileSystem, path: str, content: bytes = b"") -> None:
    filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_uri_gives_the_rows_of_the_path(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "with space" / "a"
    folder.mkdir(parents=True)
    columns = episodes(terminates=kind not in LINKED)
    spec, mapping = {**WHOLE, **LINKED}[kind](folder, columns), mapping_for(kind, columns)
    local, remote = open_source(spec, mapping), open_source(as_uri(spec), mapping)
    assert pa.concat_tables(tables_of(remote)).equals(pa.concat_tables(tables_of(local)))
    assert [file.name for file in remote.files] == [file.name for file in local.files]
    assert remote.locate(14) == local.locate(14)


def test_the_provenance_of_a_remote_file_is_that_of_the_file(tmp_path: Path) -> None:
    spec = WHOLE["npz"](tmp_path, episodes())
    (file,) = prepare_here(as_uri(spec), tmp_path / "a").provenance.files
    content = (tmp_path / "a.npz").read_bytes()
    assert (file.name, file.num_bytes) == ("a.npz", len(content))
    assert file.sha256 == hashlib.sha256(content).hexdigest()


def test_a_bucket_is_read_as_a_folder(bucket: fs.FileSystem, tmp_path: Path) -> None:
    spec = WHOLE["parquet"](tmp_path, episodes())
    for path in sorted(tmp_path.glob("*.parquet")):
        put(bucket, f"bucket/logs/{path.name}", path.read_bytes())
    source = open_source("parquet:gs://bucket/logs")
    assert pa.concat_tables(tables_of(source)).equals(pa.concat_tables(tables_of(open_source(spec))))
    assert source.files[0] == RemoteFile("gs://bucket/logs/part-0.parquet")


def test_remote_files_come_in_natural_order_without_hidden_ones(bucket: fs.FileSystem) -> None:
    for name in ("part-10.csv", "part-2.csv", "_temporary/part-1.csv", ".part-0.csv", "notes.txt"):
        put(bucket, f"bucket/logs/{name}")
    found = find_files("", "gs://bucket/logs/?project=mine", (".csv",), "CSV")
    assert list(map(str, found)) == [f"gs://bucket/logs/part-{number}.csv?project=mine" for number in (2, 10)]


def test_a_remote_star_stays_in_its_folder(bucket: fs.FileSystem) -> None:
    for name in ("a/1.csv", "a/2.csv", "b/1.csv", "a/deep/1.csv"):
        put(bucket, f"bucket/{name}")
    for pattern, names in (("a/*.csv", ["a/1.csv", "a/2.csv"]), ("*/1.csv", ["a/1.csv", "b/1.csv"])):
        found = find_files("", f"gs://bucket/{pattern}", (".csv",), "CSV")
        assert list(map(str, found)) == [f"gs://bucket/{name}" for name in names]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("npz:file:///nowhere/a.npz", "there is no file file:///nowhere/a.npz; check the path"),
        ("parquet:file:///nowhere/a", r"no Parquet file at file:///nowhere/a \(a file, a folder"),
        ("csv:file:///nowhere/*.csv", r"no CSV file at file:///nowhere/\*\.csv"),
        ("csv:nonsense://bucket/a.csv", "'nonsense://bucket' is no place that pyarrow can open"),
        ("minari:s3://bucket/D4RL/door", "Minari reads this machine's files only; copy the dataset's folder here"),
    ],
)
def test_a_uri_that_leads_nowhere(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(spec)


def test_a_bucket_out_of_reach_is_one_message(bucket: fs.FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: Could not connect to server")

    monkeypatch.setattr(files, "_listed", refuse)
    with pytest.raises(
        ValueError,
        match=r"^source 'parquet:s3://b/\*' cannot be read: AWS Error .*check the address, the network",
    ):
        open_source("parquet:s3://b/*")
