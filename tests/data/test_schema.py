"""Records and tables are two forms of the same rows; values that are no numbers are named."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from iql_ray.data.schema import check_finite, record_dtype, records_from_table, table_from_records, transition_schema


def records() -> np.ndarray:
    rows = np.zeros(3, record_dtype(2, 1))
    rows["observations"] = [[0, 1], [2, 3], [4, 5]]
    rows["rewards"] = [7, 8, 9]
    rows["truncations"] = [False, False, True]
    rows["episode"] = 2**40
    return rows


def test_records_become_a_table_of_the_schema_and_come_back() -> None:
    table = table_from_records(records())
    assert table.schema == transition_schema(2, 1)
    assert table.column("observations").to_pylist() == [[0, 1], [2, 3], [4, 5]]
    assert (records_from_table(table, 2, 1) == records()).all()


def test_a_table_in_chunks_and_slices_gives_the_same_records() -> None:
    table = table_from_records(records())
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1, 2)])
    assert (records_from_table(chunked, 2, 1) == records()).all()
    assert (records_from_table(table.slice(1, 2), 2, 1) == records()[1:]).all()


def test_a_column_of_another_type_is_refused() -> None:
    table = table_from_records(records())
    with pytest.raises(ValueError, match=r"column observations has type fixed_size_list.*2.* expected .*3"):
        records_from_table(table, 3, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_column_row_and_element(value: float) -> None:
    rows = records()
    rows["observations"][1, 0] = value
    with pytest.raises(ValueError, match=f"observations has {value} at row 11, element 0; expected finite"):
        check_finite(rows, ("rewards", "observations"), 10, lambda row: f"row {row}")


def test_finite_values_pass() -> None:
    check_finite(records(), ("observations", "rewards"), 0, str)
