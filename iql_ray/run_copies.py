"""Runs behind a URI: worked on in a folder of this machine, copied up while they go on, fetched to be gone on with.

    WORK/NAME-HASH/RUN/   the working folder of one URI, and in it the folders of runs
    URI/RUN/              their copies: what `run_folder` and `checkpoint` read, file by file
    RUN/copy.json         how often a run was copied: of two states of a run it tells the newer one

Only folders of runs are copied: neither the embedded MLflow store beside them, nor what Ray Train and Tune write for
themselves. A checkpoint's seal goes up last and is deleted first, so half a checkpoint is never taken for one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from iql_ray.data.locations import last_name
from iql_ray.redaction import redacted
from iql_ray.run_folder import CONFIG_FILE, MEMBERS_FILE, read_lines

if TYPE_CHECKING:
    from pyarrow import fs

WORK_VARIABLE = "IQL_RAY_WORK_FOLDER"
"""Environment variable: where runs are worked on whose storage is a URI; ~/.cache/iql_ray/runs by default."""
COPY_SECONDS = 15.0
"""Between two looks for what has changed."""
OF_LIBRARIES = ("trainer", "tune")
SEAL_FILE, COPY_FILE = "state.sha256", "copy.json"
PARTIAL = ".partial"
"""Ends the name of what is not whole yet."""
OBJECT_STORES = ("s3", "gcs", "abfs")
"""File systems of pyarrow that have no folders, and need none made."""
CHUNK_BYTES = 2**22

Stamp = tuple[int, int]
"""Size and time of change of a file."""
Warn = Callable[[str], None]


def work_folder(uri: str) -> Path:
    """Where runs of this storage are worked on; the same on every node whose environment is the same."""
    root = Path(os.environ.get(WORK_VARIABLE) or Path.home() / ".cache" / "iql_ray" / "runs")
    return root.absolute() / f"{last_name(uri) or 'runs'}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"


def fetch_run(uri: str, run: str) -> list[str]:
    """Bring a run, and a search's members, into the working folder, unless what is there is as new.

    Returns:
        The runs that there are here now, of this one and its members; none where it is neither here nor there.

    Raises:
        ValueError: the storage cannot be reached.
    """
    with _reaching(uri):
        filesystem, root = _resolved(uri)
        _fetch_newer(filesystem, f"{root}/{run}", work_folder(uri) / run)
        lines = read_lines(work_folder(uri) / run / MEMBERS_FILE)
        members = list(dict.fromkeys(line["run_id"] for line in lines))
        for member in members:
            _fetch_newer(filesystem, f"{root}/{member}", work_folder(uri) / member)
    return [each for each in (run, *members) if (work_folder(uri) / each).is_dir()]


@contextmanager
def copied(uri: str, warn: Warn, resumed: tuple[str, ...] = ()) -> Iterator[Path]:
    """The working folder of a storage, whose changed runs are copied up during the block and once more at its end.

    Args:
        warn: takes a line for the user where the storage cannot be reached; the work goes on.
        resumed: runs of which it is not known what of them is behind the URI already.

    Raises:
        ValueError: the storage cannot be reached before anything has begun.
    """
    with _reaching(uri):
        copier = RunCopier(uri, resumed)
    is_over = threading.Event()

    def work() -> None:
        while not is_over.wait(COPY_SECONDS):
            _copy_or_warn(copier, warn)

    thread = threading.Thread(target=work, name="copies", daemon=True)
    thread.start()
    try:
        yield copier.folder
    finally:
        is_over.set()
        thread.join()
        _copy_or_warn(copier, warn)


def _copy_or_warn(copier: RunCopier, warn: Warn) -> None:
    try:
        copier.copy()
    except OSError as error:
        warn(f"storage {redacted(copier.uri)} takes no copies ({error}); until it does, they are in {copier.folder}")


class RunCopier:
    """What of the runs in a working folder is behind its URI, and what is not.

    Args:
        resumed: as for `copied`; other runs that are there already are taken to be copied as they are.
    """

    def __init__(self, uri: str, resumed: tuple[str, ...] = ()) -> None:
        self.uri, self.folder = uri, work_folder(uri)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._filesystem, self._root = _resolved(uri)
        _check_writable(self._filesystem, self._root)
        there = {run: _stamps(run) for run in self._runs()}
        self._copied: dict[Path, dict[str, Stamp]] = {run: {} if run.name in resumed else there[run] for run in there}

    def copy(self) -> None:
        """Copy what has changed since the last time.

        Raises:
            OSError: the storage cannot be reached; what was copied by then is not copied again.
        """
        for run in self._runs():
            self._copy_run(run, self._copied.setdefault(run, {}))

    def _runs(self) -> list[Path]:
        found = sorted(path.parent for path in self.folder.glob(f"*/{CONFIG_FILE}"))
        return [run for run in found if run.suffix != PARTIAL]

    def _copy_run(self, run: Path, known: dict[str, Stamp]) -> None:
        stamps = _stamps(run)
        changed = sorted((name for name in stamps if known.get(name) != stamps[name]), key=_order)
        gone = sorted(set(known) - set(stamps), key=_order, reverse=True)
        if not changed and not gone:
            return
        there = f"{self._root}/{run.name}"
        for name in changed:
            with suppress(FileNotFoundError):  # a checkpoint that was pruned meanwhile
                _upload(self._filesystem, run / name, f"{there}/{name}")
                known[name] = stamps[name]
        for name in gone:
            with suppress(FileNotFoundError):
                self._filesystem.delete_file(f"{there}/{name}")
            del known[name]
        (run / COPY_FILE).write_text(json.dumps({"num_copies": _num_copies(run) + 1}))
        _upload(self._filesystem, run / COPY_FILE, f"{there}/{COPY_FILE}")


def _stamps(run: Path) -> dict[str, Stamp]:
    """Of every file that is copied, by its path within the run."""
    found = {}
    for folder, subfolders, files in os.walk(run):
        subfolders[:] = [each for each in subfolders if each not in OF_LIBRARIES and not each.endswith(PARTIAL)]
        for file in files:
            path = Path(folder) / file
            with suppress(FileNotFoundError):
                status = path.stat()
                found[path.relative_to(run).as_posix()] = status.st_size, status.st_mtime_ns
    found.pop(COPY_FILE, None)
    return found


def _order(name: str) -> bool:
    """Seals come last."""
    return name.endswith(SEAL_FILE)


def _num_copies(run: Path) -> int:
    path = run / COPY_FILE
    return json.loads(path.read_text())["num_copies"] if path.exists() else 0


def _fetch_newer(filesystem: fs.FileSystem, there: str, run: Path) -> None:
    """The run's copy, where it has been copied more often than the one here."""
    if filesystem.get_file_info(f"{there}/{COPY_FILE}").is_file:
        partial = run.with_name(run.name + PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        _download(filesystem, f"{there}/{COPY_FILE}", partial / COPY_FILE)
        if run.is_dir() and _num_copies(partial) <= _num_copies(run):
            shutil.rmtree(partial)
            return
        for name in _names(filesystem, there):
            _download(filesystem, f"{there}/{name}", partial / name)
        shutil.rmtree(run, ignore_errors=True)
        partial.rename(run)


def _names(filesystem: fs.FileSystem, there: str) -> list[str]:
    from pyarrow import fs

    found = filesystem.get_file_info(fs.FileSelector(there, recursive=True))
    return [info.path[len(there) :].lstrip("/") for info in found if info.is_file]


def _check_writable(filesystem: fs.FileSystem, root: str) -> None:
    """Now, and not after hours: the storage takes files, and lets them go again."""
    path = f"{root}/.writable-{uuid.uuid4().hex}"
    _make_folder(filesystem, root)
    with filesystem.open_output_stream(path) as target:
        target.write(b"iql-ray")
    filesystem.delete_file(path)


def _make_folder(filesystem: fs.FileSystem, folder: str) -> None:
    if filesystem.type_name not in OBJECT_STORES:
        filesystem.create_dir(folder, recursive=True)


def _upload(filesystem: fs.FileSystem, path: Path, there: str) -> None:
    with path.open("rb") as source:
        _make_folder(filesystem, there.rpartition("/")[0])
        with filesystem.open_output_stream(there) as target:
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)


def _download(filesystem: fs.FileSystem, there: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with filesystem.open_input_stream(there) as source, path.open("wb") as target:
        while chunk := source.read(CHUNK_BYTES):
            target.write(chunk)


def _resolved(uri: str) -> tuple[fs.FileSystem, str]:
    from iql_ray.data.sources.files import resolve  # with pyarrow, too slow for whoever has folders alone

    return resolve(uri)


@contextmanager
def _reaching(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"storage {redacted(uri)} cannot be reached: {error}; check the address, the network and the credentials "
            "of the node that runs this command"
        ) from error
