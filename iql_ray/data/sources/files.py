"""Where a source's files lie: on this machine, or behind a URI that pyarrow's filesystems open (s3://, gs://, file://).

Finds files in their natural order, opens them, and turns whatever a damaged one makes its library raise into one
message. Formats are not known here.
"""

from __future__ import annotations

import glob
import io
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from iql_ray.data.locations import is_uri

DAMAGE = (
    OSError,
    pa.ArrowException,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    EOFError,
    RuntimeError,  # h5py's and zipfile's; NotImplementedError is one
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    SyntaxError,
    ValueError,
)
"""What the decoding libraries raise where bytes are cut or overwritten: each trusts what it finds in a file."""


@dataclass(frozen=True)
class RemoteStat:
    """The one field of `os.stat_result` that provenance needs."""

    st_size: int


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URI, with the part of `Path` that provenance needs: name, stat().st_size and open("rb")."""

    uri: str

    @property
    def name(self) -> str:
        return PurePosixPath(unquote(urlsplit(self.uri).path)).name

    def stat(self) -> RemoteStat:
        filesystem, path = resolve(self.uri)
        return RemoteStat(filesystem.get_file_info(path).size)

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The file for reading; `mode` is there because `Path.open` has it."""
        assert mode == "rb", mode
        return io.BufferedReader(openable(self.uri))

    def __str__(self) -> str:
        return self.uri


SourceFile = Path | RemoteFile


def source_file(location: str) -> SourceFile:
    """A location as a file, whether or not there is one; its path is absolute, for workers start in other folders."""
    return RemoteFile(location) if is_uri(location) else Path(location).expanduser().absolute()


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """A URI as pyarrow's filesystem and the path on it.

    Raises:
        ValueError: no URI that pyarrow knows.
        OSError: what it leads to cannot be reached.
    """
    parts = urlsplit(uri)
    filesystem, prefix = _root(parts.scheme, parts.netloc, parts.query)
    return filesystem, (prefix.rstrip("/") + unquote(parts.path)).rstrip("/")


@cache
def _root(scheme: str, authority: str, query: str) -> tuple[fs.FileSystem, str]:
    """One filesystem for all files of a bucket: finding a bucket's region asks the network."""
    uri = f"{scheme}://{authority or '/'}{'?' if query else ''}{query}"
    try:
        return fs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid as error:
        raise ValueError(f"'{uri}' is no place that pyarrow can open: {error}") from error


def openable(path: str) -> Any:
    """What pyarrow, h5py and zipfile open: the path of a local file, a seekable file behind a URI."""
    if not is_uri(path):
        return path
    filesystem, inner = resolve(path)
    return filesystem.open_input_file(inner)


def existing_file(kind: str, location: str) -> SourceFile:
    """The path of a source that is one file.

    Raises:
        ValueError: there is no such file.
    """
    file = source_file(location)
    is_file = _is_remote_file(file) if isinstance(file, RemoteFile) else file.is_file()
    if not is_file:
        raise ValueError(f"source '{kind}:{location}': there is no file {file}; check the path")
    return file


def _is_remote_file(file: RemoteFile) -> bool:
    filesystem, path = resolve(file.uri)
    return filesystem.get_file_info(path).type == fs.FileType.File


def find_files(spec: str, location: str, suffixes: tuple[str, ...], what: str) -> tuple[SourceFile, ...]:
    """The files of a location in natural order: `part-2` before `part-10`, as they were written.

    Args:
        location: a file, a folder whose files with these suffixes are taken, or a glob; on this machine or a URI.
        what: the format's name, for the message.

    Raises:
        ValueError: there is none.
    """
    found = _remote_files(location, suffixes) if is_uri(location) else _local_files(location, suffixes)
    if not found:
        ends = ", ".join(f"*{suffix}" for suffix in suffixes)
        where = source_file(location)
        raise ValueError(f"source '{spec}': no {what} file at {where} (a file, a folder of {ends}, or a glob)")
    return tuple(sorted(found, key=lambda file: [_natural(part) for part in PurePosixPath(str(file)).parts]))


def _local_files(location: str, suffixes: tuple[str, ...]) -> list[Path]:
    path = Path(location).expanduser().absolute()
    if path.is_dir():
        inside = [file for file in path.rglob("*") if file.name.endswith(suffixes) and file.is_file()]
        return [file for file in inside if not _is_hidden(file.relative_to(path).parts)]
    return [path] if path.is_file() else [Path(name) for name in glob.glob(str(path)) if Path(name).is_file()]


def _remote_files(uri: str, suffixes: tuple[str, ...]) -> list[RemoteFile]:
    """As `_local_files`; of patterns only `*` is known, because `?` begins a URI's query."""
    filesystem, path = resolve(uri)
    if "*" in path:
        folder = path.partition("*")[0].rpartition("/")[0]
        return [_sibling(uri, path, found) for found in _listed(filesystem, folder) if _matches(found, path)]
    if filesystem.get_file_info(path).type == fs.FileType.File:
        return [RemoteFile(uri)]
    inside = [found for found in _listed(filesystem, path) if found.endswith(suffixes)]
    shown = [found for found in inside if not _is_hidden(PurePosixPath(found).relative_to(path).parts)]
    return [_sibling(uri, path, found) for found in shown]


def _listed(filesystem: fs.FileSystem, folder: str) -> list[str]:
    infos = filesystem.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    return [info.path for info in infos if info.type == fs.FileType.File]


def _matches(path: str, pattern: str) -> bool:
    """As a shell does it: `*` stays within its part of the path."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _sibling(uri: str, path: str, other: str) -> RemoteFile:
    """The URI of another path on the same filesystem."""
    parts = urlsplit(uri)
    prefix = path[: len(path) - len(unquote(parts.path).rstrip("/"))]
    location = quote(other[len(prefix) :])
    return RemoteFile(urlunsplit((parts.scheme, parts.netloc, location, parts.query, "")))


def _is_hidden(parts: tuple[str, ...]) -> bool:
    return any(part.startswith((".", "_")) for part in parts)


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key in which digits compare as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


@contextmanager
def naming(label: str, known_by: str) -> Iterator[None]:
    """Whatever a damaged or unreachable file makes its library raise becomes a ValueError that names it.

    Args:
        label: how the message begins.
        known_by: a ValueError that holds this text names the file already, and stays as it is.
    """
    try:
        yield
    except DAMAGE as error:
        if type(error) is ValueError and known_by in str(error):
            raise
        what = "cannot be read" if isinstance(error, OSError) else "is damaged"
        reason = str(error) or type(error).__name__
        raise ValueError(f"{label} {what}: {reason}; {_advice(label)}") from error


def _advice(label: str) -> str:
    if "://" in label:
        return "check the address, the network, the credentials, and that the file is whole"
    return "it must be whole and readable, so fetch or write the file again"
