"""Through Ray Data, rows come in order, in pieces, and a bad file gives one message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from iql_ray.data.sources import open_source
from tests.data.examples import changed, example, write_npz, write_parquet


@pytest.fixture(autouse=True)
def ray(ray_session: None) -> None:
    """Every test here needs it."""


def read(spec: str, first_row: int = 0) -> pa.Table:
    from iql_ray.distributed.preparation import read_in_order

    return pa.concat_tables(list(read_in_order(open_source(spec), first_row)))


def test_many_fragments_come_in_order(tmp_path: Path) -> None:
    num_rows = 200
    columns = {
        "observations": np.arange(num_rows, dtype=np.float32)[:, None],
        "actions": np.zeros((num_rows, 1)),
        "rewards": np.arange(num_rows),
        "terminations": np.zeros(num_rows, bool),
    }
    spec = write_parquet(tmp_path / "a", columns, rows_per_file=7)
    assert len(open_source(spec).fragments) == 29
    assert read(spec).column("rewards").to_pylist() == list(range(num_rows))
    assert read(spec, first_row=60).column("rewards").to_pylist() == list(range(60, num_rows))


def test_what_comes_is_what_the_source_reads(tmp_path: Path) -> None:
    table = read(write_npz(tmp_path / "a.npz", example()))
    assert table.to_pydict() == {name: values.tolist() for name, values in example().items()}
    assert table.schema.field("observations").type == pa.list_(pa.float32(), 2)


def test_a_long_fragment_comes_in_several_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from iql_ray.distributed import preparation

    monkeypatch.setattr(preparation, "BLOCK_BYTES", 2**20)
    num_rows = 150_000
    columns = {
        "observations": np.zeros((num_rows, 4), np.float32),
        "actions": np.zeros((num_rows, 1), np.float32),
        "rewards": np.arange(num_rows),
        "terminations": np.zeros(num_rows, bool),
    }
    source = open_source(write_npz(tmp_path / "a.npz", columns))
    tables = list(preparation.read_in_order(source))
    assert len(tables) > 1
    assert pa.concat_tables(tables).column("rewards").to_numpy().tolist() == list(range(num_rows))


def test_a_bad_fragment_is_one_message_without_a_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spec = write_parquet(tmp_path / "a", changed(terminations=np.array([0, 0, 2, 0, 0])))
    message = r"terminations has 2 at row 0 of part-1\.parquet; expected true and false"
    with pytest.raises(ValueError, match=message) as error:
        read(spec)
    assert "\n" not in str(error.value)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    from iql_ray.distributed.preparation import read_in_order

    source = open_source(write_parquet(tmp_path / "a", example()))
    (tmp_path / "a" / "part-1.parquet").unlink()
    with pytest.raises(ValueError, match=r"part-1\.parquet"):
        list(read_in_order(source))
