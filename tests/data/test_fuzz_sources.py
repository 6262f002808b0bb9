"""Readers under random damage: the rows that were written, or one ValueError that names the file; nothing else.

Which of the two depends on the format. A zip archive and Parquet's pages carry checksums, so a changed byte is noticed
or does not matter. HDF5, CSV, JSON and a Parquet footer do not: there a changed byte may give another number, and what
is asked is that the reader gives whole tables of the promised types, or refuses.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iql_ray.data.sources import canonical_schema, open_source
from tests.data.examples import prepare_here, tables_of
from tests.data.source_examples import WHOLE, Columns, as_npz, csv_text, episodes, mapping_for, scalar_columns

FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
COLUMNS = episodes()


def as_one_csv(folder: Path, columns: Columns) -> str:
    (folder / "a.csv").write_text(csv_text(scalar_columns(columns)[0]))
    return f"csv:{folder / 'a.csv'}"


def as_checked_parquet(folder: Path, columns: Columns) -> str:
    arrays = {name: list(values) if values.ndim > 1 else values for name, values in columns.items()}
    pq.write_table(pa.table(arrays), folder / "a.parquet", write_page_checksum=True, row_group_size=15)
    return f"parquet:{folder / 'a.parquet'}"


WRITERS = {**WHOLE, "csv": as_one_csv, "parquet": as_checked_parquet}
DAMAGED_FILES = {"rllib-parquet": "part-1.parquet", "minari": "main_data.hdf5"}

damages = st.lists(
    st.tuples(st.sampled_from(["change", "cut", "insert", "end"]), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=3,
)


def damaged(content: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, new in edits:
        at = int(place * (len(content) - 1))
        rest = {"change": at + len(new), "cut": at + 16 * len(new), "insert": at, "end": len(content)}[kind]
        content = content[:at] + (b"" if kind in ("cut", "end") else new) + content[rest:]
    return content


@pytest.fixture(params=list(WRITERS))
def written(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, Path]:
    """A format, a source of it, and the file of it that is to be damaged."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    spec = WRITERS[request.param](tmp_path, COLUMNS)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    name = DAMAGED_FILES.get(request.param, files[0].name)
    return request.param, spec, next(file for file in files if file.name == name)


def is_named(spec: str, message: str) -> bool:
    """A message names the source, or the file in its folder."""
    return any(
        name in message for name in (spec.rpartition("/")[2], "part-1.parquet", "output-0.json", "episodes.parq")
    )


def read(kind: str, spec: str) -> pa.Table | None:
    """All rows, or None where the source is refused by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged header may make numpy or gymnasium warn before they refuse
        try:
            source = open_source(spec, mapping_for(kind, COLUMNS))
            table = pa.concat_tables(tables_of(source)) if source.num_rows else None
        except ValueError as refusal:
            if not is_named(spec, str(refusal)):
                raise
            return None
    assert table is not None
    assert table.schema == canonical_schema(source.layout)
    assert table.num_rows == source.num_rows
    return table


@FUZZ
@given(edits=damages)
def test_damaged_bytes(written: tuple[str, str, Path], edits: list[tuple[str, float, bytes]]) -> None:
    kind, spec, file = written
    content = file.read_bytes()
    file.write_bytes(damaged(content, edits))
    try:
        table = read(kind, spec)
    finally:
        file.write_bytes(content)
    if table is not None and kind in ("npz", "ogbench"):
        assert table.select(sorted(table.column_names)).equals(expected(table))


def expected(like: pa.Table) -> pa.Table:
    """The rows that were written, in the columns and types of a table."""
    arrays = [pa.array(COLUMNS[name].tolist(), like.schema.field(name).type) for name in sorted(like.column_names)]
    return pa.table(arrays, names=sorted(like.column_names))


@FUZZ
@given(edits=damages)
def test_damaged_parquet_pages_are_noticed(tmp_path: Path, edits: list[tuple[str, float, bytes]]) -> None:
    """Checksums cover the pages, so the damage is kept off the footer, which has none."""
    spec = as_checked_parquet(tmp_path, COLUMNS)
    content = (tmp_path / "a.parquet").read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    edits = [(kind if kind != "end" else "change", place, new) for kind, place, new in edits]
    (tmp_path / "a.parquet").write_bytes(damaged(content[:-footer], edits) + content[-footer:])
    table = read("parquet", spec)
    assert table is None or table.select(sorted(table.column_names)).equals(expected(table))


values = st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1.0, 0.5, 2.0, 1e-320, 0.0])
places = st.tuples(st.sampled_from(sorted(COLUMNS)), st.integers(0, 39), st.integers(0, 2), values)


@FUZZ
@pytest.mark.parametrize("kind", ["npz", "hdf5", "parquet", "csv", "rllib-json"])
@given(edits=st.lists(places, min_size=1, max_size=3))
def test_damaged_values(kind: str, tmp_path: Path, edits: list[tuple[str, int, int, float]]) -> None:
    """Whatever the numbers, the table has them as float32, or the file is refused; and so is what is prepared."""
    columns = {name: values.astype(np.float64) for name, values in COLUMNS.items()}
    for name, row, element, value in edits:
        columns[name].reshape(40, -1)[row, element % columns[name].reshape(40, -1).shape[1]] = value
    spec = WRITERS[kind](tmp_path, columns)
    table = read(kind, spec)
    if table is not None:
        for name, found in zip(table.column_names, table.columns, strict=True):
            if kind == "csv" and name == "episode":  # ids with a point are words there: the same rows are together
                assert first_places(found.to_pylist()) == first_places(columns[name].tolist())
                continue
            with np.errstate(over="ignore"):
                wanted = columns[name].astype(COLUMNS[name].dtype)
            np.testing.assert_array_equal(np.array(found.to_pylist(), wanted.dtype), wanted, name)
    with refused_by_name(spec):
        manifest = prepare_here(spec, tmp_path / "prepared", mapping_for(kind, COLUMNS), overwrite=True)
        assert table is not None
        assert manifest.num_rows == 40
        assert all(np.isfinite(column.mean).all() for column in manifest.columns.values())


def first_places(ids: Sequence[object]) -> list[int]:
    """For each row, the first one of the same id."""
    words = [str(each) for each in ids]
    return [words.index(word) for word in words]


@contextlib.contextmanager
def refused_by_name(spec: str) -> Iterator[None]:
    try:
        yield
    except ValueError as refusal:
        if not is_named(spec, str(refusal)):
            raise


shapes = st.tuples(
    st.sampled_from(sorted(COLUMNS)),
    st.sampled_from([(40,), (40, 1), (39,), (40, 2), (40, 2, 2), (0,), (), (40, 0)]),
    st.sampled_from(["f4", "f8", "f2", "i8", "u1", "?", "S3", "U3", "c8", "M8[s]", "O"]),
)


@FUZZ
@given(edits=st.lists(shapes, min_size=1, max_size=2))
def test_arrays_of_other_shapes_and_types(tmp_path: Path, edits: list[tuple[str, tuple[int, ...], str]]) -> None:
    columns = {**COLUMNS, **{name: np.zeros(shape, dtype) for name, shape, dtype in edits}}
    with refused_by_name("npz:/a.npz"):
        prepare_here(as_npz(tmp_path, columns), tmp_path / "prepared", overwrite=True)
