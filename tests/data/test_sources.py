"""Formats: the same columns come out of each, and what is missing or misshapen is named."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import gymnasium
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iql_ray.data.sources import open_source, parse_columns
from iql_ray.data.sources.files import find_files
from tests.data import examples
from tests.data.examples import changed, example, tables_of, write_hdf5, write_minari, write_npz, write_parquet


@pytest.fixture(autouse=True)
def minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def canonical(spec: str, columns: dict[str, str] | None = None) -> dict[str, list]:
    return pa.concat_tables(list(tables_of(open_source(spec, columns)))).to_pydict()


def test_four_formats_give_one_table(tmp_path: Path) -> None:
    values = example()
    expected = {name: column.tolist() for name, column in values.items()}
    assert canonical(write_npz(tmp_path / "a.npz", values)) == expected
    assert canonical(write_hdf5(tmp_path / "a.hdf5", values)) == expected
    assert canonical(write_parquet(tmp_path / "a", values)) == expected
    from_minari = canonical(write_minari("test/line-v0", values))
    assert from_minari.pop("episode") == [0, 0, 0, 1, 1]
    assert from_minari == expected


def test_a_source_and_its_fragments_can_be_pickled_and_read_elsewhere(tmp_path: Path) -> None:
    source = open_source(write_parquet(tmp_path / "a", example()))
    copy = pickle.loads(pickle.dumps(source))
    assert [table.to_pydict() for table in tables_of(copy)] == [table.to_pydict() for table in tables_of(source)]


def test_a_row_is_located_by_its_file_and_row(tmp_path: Path) -> None:
    source = open_source(write_parquet(tmp_path / "a", example()))
    assert source.locate(3) == "row 1 of part-1.parquet"
    assert source.locate(4) == "row 0 of part-2.parquet"


def test_a_row_of_a_later_row_group_is_located_by_its_row_in_the_file(tmp_path: Path) -> None:
    pq.write_table(examples.parquet_table(example()), tmp_path / "a.parquet", row_group_size=2)
    source = open_source(f"parquet:{tmp_path / 'a.parquet'}")
    assert len(source.fragments) == 3
    assert source.locate(4) == "row 4 of a.parquet"


def test_parquet_files_are_read_in_the_natural_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("part-10", "part-2", "_temporary-1", ".hidden"):
        (tmp_path / f"{name}.parquet").touch()
    assert [Path(str(path)).stem for path in find_files("", str(tmp_path), (".parquet",), "Parquet")] == [
        "part-2",
        "part-10",
    ]


def test_a_glob_selects_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a", example())
    assert open_source(f"parquet:{tmp_path}/a/part-[01].parquet").num_rows == 4


def test_columns_are_mapped_and_scalar_columns_make_a_vector(tmp_path: Path) -> None:
    values = example()
    x, y = values.pop("observations").T
    renamed = {"x": x, "y": y, "dones": values.pop("terminations"), **values}
    mapping = parse_columns(["observations=x,y", "terminations=dones"])
    for spec in (write_parquet(tmp_path / "a", renamed), write_npz(tmp_path / "a.npz", renamed)):
        assert canonical(spec, mapping)["observations"] == example()["observations"].tolist()


def test_integer_scalars_are_discrete_actions(tmp_path: Path) -> None:
    values = changed(actions=np.array([0, 1, 2, 1, 0]))
    for spec in (write_parquet(tmp_path / "a", values), write_npz(tmp_path / "a.npz", values)):
        assert open_source(spec).layout.is_discrete
        assert canonical(spec)["actions"] == [[0.0], [1.0], [2.0], [1.0], [0.0]]


def test_flags_may_be_numbers(tmp_path: Path) -> None:
    spec = write_npz(tmp_path / "a.npz", changed(terminations=examples.TERMINAL.astype(np.float64)))
    assert canonical(spec)["terminations"] == examples.TERMINAL.tolist()


def test_a_scalar_column_may_be_a_column_vector(tmp_path: Path) -> None:
    spec = write_npz(tmp_path / "a.npz", changed(rewards=example()["rewards"][:, None]))
    assert canonical(spec)["rewards"] == [1, 2, 3, 4, 5]


def test_an_array_in_fortran_order_is_read_by_rows(tmp_path: Path) -> None:
    spec = write_npz(tmp_path / "a.npz", changed(observations=np.asfortranarray(example()["observations"])))
    assert canonical(spec)["observations"] == example()["observations"].tolist()


def test_episode_ids_may_be_words(tmp_path: Path) -> None:
    spec = write_parquet(tmp_path / "a", changed(episode=np.array(["one", "one", "one", "two", "two"])))
    ids = canonical(spec)["episode"]
    assert ids[0] == ids[1] == ids[2] != ids[3] == ids[4]


def test_long_sources_come_in_several_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iql_ray.data.sources.npz.ROWS_PER_TABLE", 2)
    monkeypatch.setattr("iql_ray.data.sources.hdf5.ROWS_PER_TABLE", 2)
    monkeypatch.setattr("iql_ray.data.sources.hdf5.ROWS_PER_FRAGMENT", 3)
    for spec, sizes in (
        (write_npz(tmp_path / "a.npz", example()), [2, 2, 1]),
        (write_hdf5(tmp_path / "a.hdf5", example()), [2, 1, 2]),
    ):
        assert [table.num_rows for table in tables_of(open_source(spec))] == sizes
        assert canonical(spec)["rewards"] == [1, 2, 3, 4, 5]


def test_minari_is_cut_into_fragments_between_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iql_ray.data.sources.minari.ROWS_PER_FRAGMENT", 3)
    source = open_source(write_minari("line-v0", example()))
    cuts = [(fragment.start, fragment.stop, fragment.num_rows) for fragment in source.fragments]
    assert cuts == [(0, 1, 3), (1, 2, 2)]


def test_minari_is_found_by_path_and_says_its_spaces(minari_root: Path) -> None:
    write_minari("test/line-v0", example())
    source = open_source(f"minari:{minari_root / 'test' / 'line-v0'}")
    assert source.recorded.spaces is not None
    assert source.recorded.spaces.action_high == (1.0,)
    assert source.recorded.details["dataset_id"] == "test/line-v0"
    assert source.recorded.details["author"] == "A. Tester"


def test_minari_with_discrete_actions() -> None:
    values = changed(actions=np.array([0, 1, 2, 1, 0]))
    source = open_source(write_minari("choice-v0", values, gymnasium.spaces.Discrete(3)))
    assert source.recorded.spaces is not None
    assert source.recorded.spaces.num_actions == 3


def test_minari_with_nested_spaces_is_refused() -> None:
    values = changed(actions=np.zeros((5, 2), np.int64))
    with pytest.raises(ValueError, match=r"actions are MultiDiscrete.*expected a flat Box or Discrete from 0"):
        open_source(write_minari("nested-v0", values, gymnasium.spaces.MultiDiscrete([2, 2])))


def test_the_cartpole_logs_of_rllib() -> None:
    source = open_source(f"parquet:{examples.DATA_FILES / 'cartpole-rllib'}", examples.CARTPOLE_COLUMNS)
    assert (source.num_rows, source.layout.observation_dim, source.layout.is_discrete) == (4137, 4, True)
    assert sum(table.num_rows for table in tables_of(source)) == 4137


def test_the_d4rl_layout() -> None:
    source = open_source(f"hdf5:{examples.DATA_FILES / 'door-human-2-episodes.hdf5'}")
    assert (source.num_rows, source.layout.observation_dim, source.layout.action_dim) == (600, 39, 28)
    assert not source.layout.has_next_observations
    assert source.layout.columns["truncations"] == ("timeouts",)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tsv:a.tsv", "is not KIND:LOCATION with a kind of npz, hdf5, parquet, csv, minari, ogbench, rllib, umaze"),
        ("a.npz", "is not KIND:LOCATION"),
        ("npz:/nowhere/a.npz", "there is no file /nowhere/a.npz"),
        ("hdf5:/nowhere/a.hdf5", "there is no file /nowhere/a.hdf5"),
        ("parquet:/nowhere/*.parquet", "no Parquet file at /nowhere"),
        ("minari:nobody/nothing-v0", "no local Minari dataset.*minari download nobody/nothing-v0"),
    ],
)
def test_a_source_that_is_not_there(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(spec)


@pytest.mark.parametrize("kind", ["npz", "hdf5", "parquet"])
def test_a_file_of_another_format(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("this is text, long enough to look for a footer")
    with pytest.raises(ValueError, match=r"is not an? .*(npz|HDF5|Parquet) file"):
        open_source(f"{kind}:{path}")


@pytest.mark.parametrize("num_bytes", [1000, 4000])
def test_a_cut_hdf5_file_is_named_with_the_fix(num_bytes: int, tmp_path: Path) -> None:
    spec = write_hdf5(tmp_path / "a.hdf5", example())
    os.truncate(tmp_path / "a.hdf5", num_bytes)
    with pytest.raises(ValueError, match=r"a\.hdf5' cannot be read: .*truncated.*fetch or write the file again"):
        open_source(spec)


def test_a_damaged_hdf5_file_is_named_with_the_fix(tmp_path: Path) -> None:
    spec = write_hdf5(tmp_path / "a.hdf5", example())
    examples.overwrite(tmp_path / "a.hdf5", b"HEAP", b"heap")
    with pytest.raises(ValueError, match=r"a\.hdf5' is damaged: .*write the file again"):
        open_source(spec)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x93NUMPY", b"\x93BUMPY"),
        (b"{'descr'", b"{{{{{{{{"),  # no Python literal: numpy's reader of headers stumbles in its tokenizer
        (b"PK\x03\x04", b"PK\x03\x05"),
        (b"PK\x01\x02", b"PK\x01\x03"),
    ],
)
def test_a_damaged_npz_file_is_named_with_the_fix(old: bytes, new: bytes, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **example())  # pyright: ignore[reportArgumentType]
    examples.overwrite(tmp_path / "a.npz", old, new)
    with pytest.raises(ValueError, match=r"a\.npz' is damaged: .*write the file again"):
        open_source(f"npz:{tmp_path / 'a.npz'}")


def test_a_damaged_compressed_npz_file_is_named_with_the_fix(tmp_path: Path) -> None:
    spec = write_npz(tmp_path / "a.npz", example())
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[50:100] = bytes(255 for _ in range(50))
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz' is damaged: .*write the file again"):
        open_source(spec)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (changed(rewards=None), "no column rewards; it has actions, .* with --columns rewards=NAME"),
        (changed(rewards=np.zeros(4)), "different numbers of rows"),
        (changed(observations=np.zeros((5, 2, 2))), r"column observations has rows of shape \(2, 2\), expected flat"),
        (changed(next_observations=np.zeros((5, 3))), "next_observations has 3 numbers a row, expected 2"),
        (changed(rewards=np.zeros((5, 2))), "rewards has 2 numbers a row, expected 1"),
        (changed(rewards=np.array(["a"] * 5)), "column rewards has dtype <U1, expected numbers for rewards"),
        ({name: column[:0] for name, column in example().items()}, "has zero rows"),
    ],
)
def test_bad_columns_are_named_before_any_row_is_read(
    columns: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(write_npz(tmp_path / "a.npz", columns))


def test_a_mapping_to_a_column_that_is_not_there(tmp_path: Path) -> None:
    spec = write_npz(tmp_path / "a.npz", example())
    with pytest.raises(ValueError, match="has no column 'eps_id' for episode; it has actions"):
        open_source(spec, {"episode": "eps_id"})
    with pytest.raises(ValueError, match="unknown key 'observation'; did you mean 'observations'"):
        open_source(spec, {"observation": "observations"})


@pytest.mark.parametrize("pairs", [["observations"], ["=obs"], ["rewards=a", "rewards=b"]])
def test_columns_that_are_no_pairs(pairs: list[str]) -> None:
    with pytest.raises(ValueError, match=r"--columns: .*(expected CANONICAL=THEIRS|given twice)"):
        parse_columns(pairs)


def test_flags_that_are_no_flags_are_named_by_row(tmp_path: Path) -> None:
    source = open_source(write_npz(tmp_path / "a.npz", changed(terminations=np.array([0, 0, 2, 0, 0]))))
    with pytest.raises(ValueError, match=r"terminations has 2 at row 2 of a\.npz; expected true and false"):
        list(tables_of(source))


def test_lists_of_different_lengths_and_nulls_are_named_by_row(tmp_path: Path) -> None:
    table = examples.parquet_table(example())
    ragged = table.set_column(0, "observations", pa.array([[0.0, 0.0], [1.0, 1.0], [2.0], [3.0, 3.0], [4.0, 4.0]]))
    pq.write_table(ragged, tmp_path / "ragged.parquet")
    with pytest.raises(ValueError, match=r"observations has a list of 1 at row 2 of ragged\.parquet, expected 2"):
        list(tables_of(open_source(f"parquet:{tmp_path / 'ragged.parquet'}")))
    holes = table.set_column(2, "rewards", pa.array([1.0, None, 3.0, 4.0, 5.0]))
    pq.write_table(holes, tmp_path / "holes.parquet")
    with pytest.raises(ValueError, match=r"column rewards is null at row 1 of holes\.parquet"):
        list(tables_of(open_source(f"parquet:{tmp_path / 'holes.parquet'}")))


def test_parquet_files_of_different_schemas_are_refused(tmp_path: Path) -> None:
    spec = write_parquet(tmp_path / "a", example())
    pq.write_table(examples.parquet_table(changed(rewards=None)), tmp_path / "a" / "part-1.parquet")
    with pytest.raises(ValueError, match=r"part-1\.parquet lacks columns \['rewards'\] that part-0\.parquet has"):
        open_source(spec)
