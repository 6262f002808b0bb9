"""The folder in which a dataset is made, beside its destination: the same command finds it again after an interruption.

Its name says what it is for: the destination, and a fingerprint of everything that decides the dataset's bytes. Only
one process works in it. What lies in it is the matter of `first_pass` and `writing`.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from iql_ray.data.intake import WritingPlan
from iql_ray.data.lineage import code_version
from iql_ray.data.prepared import FORMAT_VERSION, is_prepared
from iql_ray.data.sources.files import RemoteFile, SourceFile

Say = Callable[[str], None]
"""Takes a line for the user."""

DATASET_FOLDER = "dataset"
"""Within the work folder, what becomes the destination; where it is missing, nothing can be gone on with."""

LOCK_FILE = "lock"


def check_destination(destination: Path, overwrite: bool) -> None:
    """Refuse to write where something else is.

    Raises:
        ValueError: a file, a folder that holds something else, or a prepared dataset without `overwrite`.
    """
    if destination.is_dir() and is_prepared(destination):
        if not overwrite:
            raise ValueError(f"{destination} already holds a prepared dataset; choose another --out, or --overwrite it")
    elif destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise ValueError(f"{destination} holds something that is no prepared dataset; choose another --out")


@contextmanager
def work_folder(plan: WritingPlan, say: Say) -> Iterator[Path]:
    """A folder whose `DATASET_FOLDER` takes the destination's place at the end.

    Bad data remove the folder and leave all as it was. Whatever else ends the work keeps it, for the next time.

    Raises:
        ValueError: the destination holds something else, or another process is making the same dataset.
    """
    destination = plan.destination.absolute()
    check_destination(destination, plan.overwrite)
    destination.parent.mkdir(parents=True, exist_ok=True)
    folder = destination.with_name(f".{destination.name}.preparing-{fingerprint(plan)}")
    _remove_others(destination, folder, say)
    folder.mkdir(exist_ok=True)
    with _locked(folder) as is_free:
        if not is_free:
            raise ValueError(f"another `iql-ray prepare` is making {destination} right now; wait for it to end")
        _begin(folder, can_go_on=bool(plan.source.files))
        try:
            yield folder
            _place(folder, destination, plan.overwrite)
        except ValueError as error:
            if _is_unreachable(error, plan.source.files):
                say(_kept(folder))
            else:
                _remove(folder)
            raise
        except BaseException:
            say(_kept(folder))
            raise
        _remove(folder)


def fingerprint(plan: WritingPlan) -> str:
    """Twelve letters that differ where another dataset, to the byte, would come out."""
    source = plan.source
    files = [(str(file), *_size_and_time(file)) for file in source.files]
    return _short_hash(
        (source.spec, source.layout, source.fragments, source.recorded, files),
        (plan.actions, plan.environment_id, plan.licence, plan.action_bounds, plan.seed, plan.rows_per_shard),
        (plan.unfinished_episodes, plan.fixes, plan.facts),
        (FORMAT_VERSION, code_version(), pa.__version__),
    )


def _short_hash(*values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]


def _size_and_time(file: SourceFile) -> tuple[int, int | None]:
    """What changes when a file does; of a remote one, its size."""
    status = file.stat()
    return status.st_size, getattr(status, "st_mtime_ns", None)


def _begin(folder: Path, *, can_go_on: bool) -> None:
    """Leave what an interrupted run left, if it can be used: rows that lie in memory may be others the next time."""
    if can_go_on and (folder / DATASET_FOLDER).is_dir():
        return
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_FILE:
            path.unlink()
    (folder / DATASET_FOLDER).mkdir()


def _place(folder: Path, destination: Path, overwrite: bool) -> None:
    check_destination(destination, overwrite)
    if destination.exists() and overwrite:
        destination.rename(folder / "replaced")
    (folder / DATASET_FOLDER).rename(destination)


def _remove(folder: Path) -> None:
    """At once by name, then from the disk: half a folder is never found again."""
    shutil.rmtree(folder.rename(folder.with_name(f"{folder.name}-done")), ignore_errors=True)


def _remove_others(destination: Path, own: Path, say: Say) -> None:
    """Work on the same destination that nobody will go on with: other data, settings or code."""
    for other in sorted(destination.parent.glob(f".{glob.escape(destination.name)}.preparing-*")):
        if other == own:
            continue
        with _locked(other) as is_free:
            if is_free:
                _remove(other)
        said = "removed {}: left by an interrupted run of other data, settings or code"
        busy = "another `iql-ray prepare` is at work in {}, with other data, settings or code"
        say((said if is_free else busy).format(other))


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether the folder is ours now; the lock goes with the process, however it ends."""
    with (folder / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _is_unreachable(error: ValueError, files: tuple[SourceFile, ...]) -> bool:
    """Whether the network may be at fault, and not the data."""
    return isinstance(error.__cause__, OSError) and any(isinstance(file, RemoteFile) for file in files)


def _kept(folder: Path) -> str:
    return f"interrupted; the same command goes on from {folder}"
