"""npz files: one array per column, one row per transition, streamed out of the archive without loading it whole."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from iql_ray.data.sources.columns import canonical_table, layout_from_headers, resolve_columns, row_count
from iql_ray.data.sources.source import ROWS_PER_TABLE, Fragment, Layout, Source, existing_file, ranges

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, tokenize.TokenError, ValueError)
"""What zipfile, zlib and numpy raise where an archive or an array's header is cut or overwritten."""


class ArrayStream:
    """One array of an npz archive, read front to back.

    An array stored in Fortran order cannot be cut by rows as it streams, so that one is held whole.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._archive = zipfile.ZipFile(path)
        self._file = self._archive.open(f"{name}.npy")
        version = np.lib.format.read_magic(self._file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self._is_fortran, self.dtype = header(self._file)
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
    path = existing_file("npz", location)
    headers = _headers(spec, path)
    columns = resolve_columns(spec, headers, chosen)
    num_rows = row_count(spec, columns, headers)
    return Source(
        spec=spec,
        layout=layout_from_headers(spec, columns, headers),
        fragments=(Fragment(path=str(path), start=0, stop=num_rows, first_row=0, num_rows=num_rows),),
        files=(path,),
        read_fragment=read,
    )


def read(fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
    """The whole file, a table at a time: a compressed archive has no way in but its start."""
    path = Path(fragment.path)
    streams = {name: ArrayStream(path, name) for group in layout.columns.values() for name in group}
    try:
        for start, stop in ranges(fragment.num_rows, ROWS_PER_TABLE):
            values = {name: stream.take(stop - start) for name, stream in streams.items()}
            yield canonical_table(values, layout, lambda row, start=start: fragment.name_row(start + row))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    finally:
        for stream in streams.values():
            stream.close()


def _headers(spec: str, path: Path) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Dtype and shape of every array, without its values.

    Raises:
        ValueError: not an npz file, or a damaged one.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"source '{spec}' is not an npz file (a zip of arrays, as numpy.savez writes)")
    headers = {}
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        for name in names:
            stream = ArrayStream(path, name)
            headers[name] = (stream.dtype, stream.shape)
            stream.close()
    except DAMAGE as error:
        raise ValueError(f"source '{spec}' is damaged: {error}; fetch or write the file again") from error
    return headers
