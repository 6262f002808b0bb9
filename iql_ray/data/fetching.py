"""A prepared dataset behind a URI as a folder of this machine: fetched once, verified, one copy for all processes.

    CACHE/datasets/KEY           the dataset; KEY is of its manifest, which holds the sha256 of every shard
    CACHE/datasets/KEY.partial   while it is fetched: what lies in it is whole, and stays for the next attempt
    CACHE/datasets/KEY.lock      held by the process that fetches; the others wait

What lies behind a URI must not change; what is in the cache can be deleted whenever nothing runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iql_ray.data.locations import is_uri
from iql_ray.redaction import redacted

if TYPE_CHECKING:
    from pyarrow import fs

CACHE_VARIABLE = "IQL_RAY_CACHE_FOLDER"
"""Environment variable: where fetched datasets are kept, on each node its own; ~/.cache/iql_ray by default."""
MANIFEST_FILE = "manifest.json"
CHUNK_BYTES = 2**22


def local_folder(dataset: str | Path) -> Path:
    """The folder of a dataset on this machine; one behind a URI is fetched, unless it is there.

    Raises:
        ValueError: it cannot be reached, is no prepared dataset, or a shard is not what its manifest says.
    """
    return _fetched(str(dataset)) if is_uri(dataset) else Path(dataset)


def cache_folder() -> Path:
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "iql_ray")


@cache
def _fetched(uri: str) -> Path:
    """Once a process: what lies behind a URI does not change."""
    from iql_ray.data.sources.files import resolve  # with pyarrow, too slow for whoever reads folders alone

    try:
        filesystem, root = resolve(uri)
        with filesystem.open_input_file(f"{root}/{MANIFEST_FILE}") as file:
            manifest = file.read()
        return _in_cache(filesystem, root, manifest, cache_folder() / "datasets")
    except FileNotFoundError as error:
        raise ValueError(
            f"dataset {redacted(uri)} has no {MANIFEST_FILE}; expected the URI of a folder made by `iql-ray prepare`, "
            "copied there whole"
        ) from error
    except OSError as error:
        raise ValueError(
            f"dataset {redacted(uri)} cannot be fetched: {error}; check the address, the network, the credentials of "
            f"this node, and the room on the disk of {cache_folder()} ({CACHE_VARIABLE} names another folder)"
        ) from error


def _in_cache(filesystem: fs.FileSystem, root: str, manifest: bytes, datasets: Path) -> Path:
    folder = datasets / hashlib.sha256(manifest).hexdigest()[:32]
    datasets.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            partial.mkdir(exist_ok=True)
            for shard in _shards(manifest, root):
                if not (partial / shard["file"]).exists():
                    _fetch(filesystem, root, shard, partial)
            (partial / MANIFEST_FILE).write_bytes(manifest)
            partial.rename(folder)
    return folder


def _shards(manifest: bytes, root: str) -> list[dict[str, Any]]:
    """The shards that a manifest lists, by names that stay in its folder."""
    try:
        shards = json.loads(manifest)["shards"]
        if all(Path(shard["file"]).name == shard["file"] and shard["sha256"] for shard in shards):
            return shards
    except (ValueError, LookupError, TypeError):
        pass
    raise ValueError(f"{root}/{MANIFEST_FILE} is no manifest of a prepared dataset; use iql-ray prepare")


def _fetch(filesystem: fs.FileSystem, root: str, shard: dict[str, Any], folder: Path) -> None:
    """One shard, under its name once it is what the manifest says."""
    digest = hashlib.sha256()
    arriving = folder / f".{shard['file']}"
    with filesystem.open_input_stream(f"{root}/{shard['file']}") as source, arriving.open("wb") as target:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != shard["sha256"]:
        raise ValueError(
            f"{root}/{shard['file']} is not the shard that its manifest lists (sha256 {digest.hexdigest()}, expected "
            f"{shard['sha256']}); copy the dataset there again, whole"
        )
    arriving.rename(folder / shard["file"])
