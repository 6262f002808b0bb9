"""npz files: one array per column, one row per transition, streamed out of the archive without loading it whole."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from iql_ray.data.sources.columns import (
    EXTRA,
    layout_from_headers,
    refuse_time,
    resolve_columns,
    resolve_extra,
    row_count,
)
from iql_ray.data.sources.files import existing_file, naming, openable
from iql_ray.data.sources.source import ROWS_PER_TABLE, Fragment, Layout, Source, ranges
from iql_ray.data.sources.tables import tables_from_blocks

END_BYTES, COUNT_IS_ELSEWHERE = 22, 0xFFFF
"""The record that ends a zip file without a comment; from 65,535 members on, their number is in another one."""

ArrayHeaders = dict[str, tuple[np.dtype, tuple[int, ...]]]


class ArrayStream:
    """One array of an npz archive, read front to back.

    An array stored in Fortran order cannot be cut by rows as it streams, so that one is held whole.
    """

    def __init__(self, path: str, name: str) -> None:
        self._archive = zipfile.ZipFile(openable(path))
        member = f"{name}.npy"
        self._file = self._archive.open(member)
        version = np.lib.format.read_magic(self._file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self._is_fortran, self.dtype = header(self._file)
        num_bytes = self._archive.getinfo(member).file_size - self._file.tell()
        if num_bytes != int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize:
            raise ValueError(f"array {name} has {num_bytes} bytes, which are not {self.shape} of {self.dtype}")
        self._whole: np.ndarray | None = None
        self._position = 0

    def take(self, num_rows: int) -> np.ndarray:
        """The next `num_rows` rows."""
        if self._is_fortran and len(self.shape) > 1:
            return self._take_from_whole(num_rows)
        shape = (num_rows, *self.shape[1:])
        num_bytes = int(np.prod(shape)) * self.dtype.itemsize
        return np.frombuffer(self._file.read(num_bytes), self.dtype).reshape(shape)

    def _take_from_whole(self, num_rows: int) -> np.ndarray:
        if self._whole is None:
            self._whole = np.frombuffer(self._file.read(), self.dtype).reshape(self.shape, order="F")
        self._position += num_rows
        return self._whole[self._position - num_rows : self._position]

    def close(self) -> None:
        self._file.close()
        self._archive.close()


def describe(spec: str, location: str, chosen: dict[str, str]) -> Source:
    """Open an npz file by its arrays' headers.

    Raises:
        ValueError: not an npz file, a damaged one, or a column is missing or of the wrong kind.
    """
    refuse_time(spec, chosen)
    file = existing_file("npz", location)
    headers = array_headers(spec, str(file))
    columns = resolve_columns(spec, headers, chosen)
    num_rows = row_count(spec, columns, headers)
    flag_columns = [name for name, (_, shape) in headers.items() if shape in ((num_rows,), (num_rows, 1))]
    success = resolve_extra(spec, "success", headers if "success" in chosen else flag_columns, chosen, EXTRA["success"])
    return Source(
        spec=spec,
        layout=layout_from_headers(spec, columns, headers, success=success),
        fragments=(Fragment(path=str(file), start=0, stop=num_rows, first_row=0, num_rows=num_rows),),
        files=(file,),
        read_fragment=read,
    )


def read(fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
    """The whole file, a table at a time."""
    return tables_from_blocks(read_arrays(fragment, layout.own_columns), layout, fragment)


def read_arrays(fragment: Fragment, names: list[str]) -> Iterator[dict[str, np.ndarray]]:
    """Some arrays, a block at a time, front to back: a compressed archive has no way in but its start."""
    streams: dict[str, ArrayStream] = {}
    try:
        with naming(fragment.path, known_by=fragment.path):
            for name in names:
                streams[name] = ArrayStream(fragment.path, name)
            for start, stop in ranges(fragment.num_rows, ROWS_PER_TABLE):
                yield {name: stream.take(stop - start) for name, stream in streams.items()}
    finally:
        for stream in streams.values():
            stream.close()


def array_headers(spec: str, path: str) -> ArrayHeaders:
    """Dtype and shape of every array, without its values.

    Raises:
        ValueError: not an npz file, or a damaged one.
    """
    if not zipfile.is_zipfile(openable(path)):
        raise ValueError(f"source '{spec}' is not an npz file (a zip of arrays, as numpy.savez writes)")
    headers: ArrayHeaders = {}
    with naming(f"source '{spec}'", known_by=spec):
        with zipfile.ZipFile(openable(path)) as archive:
            _check_directory(archive)
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        for name in names:
            stream = ArrayStream(path, name)
            headers[name] = (stream.dtype, stream.shape)
            stream.close()
    return headers


def _check_directory(archive: zipfile.ZipFile) -> None:
    """Find members whose damaged entry in the archive's directory would make them pass unseen.

    Raises:
        zipfile.BadZipFile: a member's name is not the one before its data, or there are fewer than the end counts.
    """
    for member in archive.infolist():
        archive.open(member).close()
    assert archive.fp is not None, "an open archive has a file"
    archive.fp.seek(-END_BYTES, os.SEEK_END)
    end = archive.fp.read(END_BYTES)
    count = int.from_bytes(end[10:12], "little")
    if end.startswith(b"PK\5\6") and count not in (len(archive.infolist()), COUNT_IS_ELSEWHERE):
        raise zipfile.BadZipFile(f"its directory lists {len(archive.infolist())} arrays where its end counts {count}")
