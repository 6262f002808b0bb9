"""What is wrong with the rows is named by file and row, in every format that can hold it, and nothing is prepared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iql_ray.data.sources import open_source
from tests.data.examples import prepare_here, tables_of
from tests.data.source_examples import (
    LINKED,
    WHOLE,
    Columns,
    as_parquet,
    as_rllib_json,
    buffer,
    create_minari,
    episode_state,
    episodes,
    mapping_for,
    without,
    write_packed,
)

ROW = 30
"""Within the last episode; in the files of 13 rows (parquet, csv) it is row 4 of part-2."""

WRITERS = {**WHOLE, **LINKED}


@pytest.fixture(autouse=True)
def _minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def prepare(kind: str, columns: Columns, folder: Path) -> None:
    (folder / "logs").mkdir()
    prepare_here(WRITERS[kind](folder / "logs", columns), folder / "prepared", mapping_for(kind, columns))


def where(kind: str, extra_rows: int = 0) -> str:
    """How the row is named: in its own file where there are several."""
    if kind in ("parquet", "csv", "rllib-parquet"):
        return f"row {ROW - 26} of part-2"
    return f"row {ROW + extra_rows} of "


@pytest.mark.parametrize("kind", WRITERS)
def test_a_reward_that_is_no_number_is_named(kind: str, tmp_path: Path) -> None:
    columns = episodes(terminates=kind not in LINKED)
    columns["rewards"][ROW] = np.nan
    extra_rows = 2 if kind in LINKED else 0
    with pytest.raises(ValueError, match=f"rewards.* {where(kind, extra_rows)}"):
        prepare(kind, columns, tmp_path)
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize("kind", sorted(set(WHOLE) - {"rllib-episodes"}))
def test_a_reward_beyond_float32_is_named(kind: str, tmp_path: Path) -> None:
    columns = episodes()
    columns["rewards"] = columns["rewards"].astype(np.float64)
    columns["rewards"][ROW] = 1e308
    with pytest.raises(ValueError, match=f"rewards has inf at {where(kind)}.*expected finite float32"):
        prepare(kind, columns, tmp_path)
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize("kind", sorted(set(WHOLE) - {"csv"}))
@pytest.mark.parametrize("action", [-1, 2**40])
def test_an_action_that_is_no_choice_is_named(kind: str, action: int, tmp_path: Path) -> None:
    columns = episodes(is_discrete=True)
    columns["actions"][ROW] = action
    with pytest.raises(ValueError, match=f"action .* at {where(kind)}.* is no choice, expected (0|one of 0) "):
        prepare(kind, columns, tmp_path)


def test_an_action_beyond_the_spaces_of_a_minari_dataset_is_named(tmp_path: Path) -> None:
    columns = episodes(is_discrete=True)
    columns["actions"][ROW] = 3
    with pytest.raises(ValueError, match=f"action 3 at row {ROW} of .*is no choice, expected one of 0 to 2"):
        prepare("minari", columns, tmp_path)


@pytest.mark.parametrize("kind", ["npz", "parquet", "csv", "rllib-json", "rllib-parquet"])
def test_an_episode_id_that_comes_back_is_named(kind: str, tmp_path: Path) -> None:
    """The second episode is one row, row 17; the third takes the first one's id."""
    columns = episodes()
    columns["episode"][18:] = 0
    with pytest.raises(ValueError, match=r"episode id 0 stops at row (16|3) of .* and comes back at row (18|5) of"):
        prepare(kind, columns, tmp_path)


@pytest.mark.parametrize("kind", ["npz", "parquet", "csv", "rllib-json"])
def test_an_id_that_goes_on_after_its_flagged_end_is_named(kind: str, tmp_path: Path) -> None:
    columns = episodes()
    columns["episode"][:18] = 0
    with pytest.raises(ValueError, match=r"an episode goes on after row (16|3) of .*, which is flagged as its end"):
        prepare(kind, columns, tmp_path)


@pytest.mark.parametrize("kind", ["npz", "hdf5", "parquet", "csv", "rllib-parquet"])
def test_a_missing_column_is_named(kind: str, tmp_path: Path) -> None:
    columns = without(episodes(), "rewards")
    spec = WRITERS[kind](tmp_path, columns)
    with pytest.raises(ValueError, match=r"has no column rewards; it has actions.*--columns rewards=NAME"):
        open_source(spec, mapping_for(kind, columns))


@pytest.mark.parametrize("kind", ["npz", "hdf5", "ogbench", "rllib-parquet", "parquet"])
def test_words_where_numbers_belong_are_refused(kind: str, tmp_path: Path) -> None:
    columns = {**episodes(), "rewards": np.array(["1.0"] * 40, "S3" if kind == "hdf5" else "U3")}
    with pytest.raises(ValueError, match=r"column rewards has dtype .*, expected numbers for rewards"):
        open_source(WRITERS[kind](tmp_path, columns))


def change_file(folder: Path, name: str, column: str, values: pa.Array) -> str:
    table = pq.read_table(folder / name)
    pq.write_table(table.set_column(table.column_names.index(column), column, values), folder / name)
    return f"parquet:{folder}"


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("actions", pa.array([0.5] * 13), r"actions have dtype float64 at row 0 of part-1\.parquet, but were whole"),
        ("rewards", pa.array(["1"] * 13), r"rewards has dtype object at row 0 of part-1\.parquet, expected numbers"),
        ("rewards", pa.array([b"1"] * 13), r"column rewards has type binary at row 0 of part-1\.parquet"),
        ("rewards", pa.array([{"a": 1}] * 13), r"column rewards has type struct<a: int64> at row 0 of part-1"),
        ("observations", pa.array([[1.0, 2.0]] * 13), r"observations has 2 numbers a row at row 0 of part-1\.parquet"),
        ("observations", pa.array([[[1.0]]] * 13), r"column observations has type .* at row 0 of part-1.*flat lists"),
        ("observations", pa.array([[1.0, None, 2.0]] * 13), r"observations has a list with a null in it at row 0 of"),
    ],
)
def test_a_file_of_another_schema_is_named(column: str, values: pa.Array, message: str, tmp_path: Path) -> None:
    as_parquet(tmp_path, episodes(is_discrete=True))
    source = open_source(change_file(tmp_path, "part-1.parquet", column, values))
    with pytest.raises(ValueError, match=message):
        list(tables_of(source))


@pytest.mark.parametrize(
    ("width", "message"),
    [(0, "observations has 0 numbers a row, expected 1 to 100000"), (100_001, "has 100001 numbers a row")],
)
def test_vectors_of_no_or_absurd_length_are_refused(width: int, message: str, tmp_path: Path) -> None:
    columns = {**without(episodes(), "next_observations"), "observations": np.zeros((40, width), np.float32)}
    with pytest.raises(ValueError, match=message):
        open_source(WRITERS["npz"](tmp_path, columns))


def test_an_array_that_is_shorter_than_its_header_says_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **episodes())  # pyright: ignore[reportArgumentType]
    path.write_bytes(path.read_bytes().replace(b"'shape': (40, 3)", b"'shape': (90, 3)", 1))
    with pytest.raises(ValueError, match=r"a\.npz' is damaged: "):
        open_source(f"npz:{path}")


BAD_BATCHES = [
    ("{", "line 1 of output-0.json is no sample batch of RLlib's: Expecting property name"),
    ("[1]", "line 1 of .*it has no rewards"),
    (json.dumps({"type": "SampleBatch", "rewards": []}), "line 1 of .*it has no rows; leave the line out"),
    ({"obs": "BCJNGGhAQQ=="}, "line 1 of .*column obs is compressed by RLlib .*output_compress_columns"),
    ({"obs": [[1.0, 2.0, 3.0], [1.0]] * 4 + [[1.0]]}, "line 1 of .*column obs has rows of different lengths"),
    ({"obs": [{"a": 1}] * 9}, "line 1 of .*column obs has rows of different lengths or kinds"),
    ({"obs": [[1.0, 2.0, 3.0]]}, "line 1 of .*column obs has 1 rows, rewards have 9"),
    ({"obs": [[1.0]] * 9}, "observations has 1 numbers a row at row 9 of"),
    ({"type": "MultiAgentBatch", "policy_batches": {"a": {}, "b": {}}}, "line 1 of .*it holds several policies"),
]


@pytest.mark.parametrize(("change", "message"), BAD_BATCHES)
def test_a_bad_sample_batch_is_named_by_its_line(
    change: str | dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iql_ray.data.sources.tables.ROWS_PER_TABLE", 1)
    spec = as_rllib_json(tmp_path, episodes())
    lines = (tmp_path / "output-0.json").read_text().splitlines()
    lines[1] = change if isinstance(change, str) else json.dumps(json.loads(lines[1]) | change)
    (tmp_path / "output-0.json").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        list(tables_of(open_source(spec)))


def test_a_multi_agent_batch_of_one_policy_is_read(tmp_path: Path) -> None:
    spec = as_rllib_json(tmp_path, episodes())
    expected = pa.concat_tables(tables_of(open_source(spec)))
    path = tmp_path / "output-0.json"
    batches = [json.loads(line) for line in path.read_text().splitlines()]
    wrapped = [
        {"type": "MultiAgentBatch", "count": 9, "policy_batches": {"default_policy": batch}} for batch in batches
    ]
    path.write_text("\n".join(map(json.dumps, wrapped)))
    assert pa.concat_tables(tables_of(open_source(spec))).equals(expected)


def test_a_line_may_hold_one_transition(tmp_path: Path) -> None:
    columns = episodes()
    names = {"observations": "obs", "next_observations": "new_obs", "terminations": "dones", "episode": "eps_id"}
    lines = [
        json.dumps({names.get(name, name): values[row].tolist() for name, values in columns.items()})
        for row in range(40)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    table = pa.concat_tables(tables_of(open_source(f"rllib:{tmp_path / 'a.jsonl'}")))
    assert table["observations"].to_pylist() == columns["observations"].tolist()
    assert table["terminations"].to_pylist() == columns["terminations"].tolist()


def test_compressed_columns_of_rllibs_parquet_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"obs": ["BCJNGGhAQQ=="], "actions": [0], "rewards": [1.0]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"column obs is compressed by RLlib .*not opened here"):
        open_source(f"rllib:{tmp_path / 'a.parquet'}")


def test_parquet_beside_json_is_refused(tmp_path: Path) -> None:
    as_rllib_json(tmp_path, episodes())
    WRITERS["rllib-episodes"](tmp_path, episodes())
    with pytest.raises(ValueError, match="has Parquet and JSON files; prepare one kind at a time"):
        open_source(f"rllib:{tmp_path}")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            episode_state("a", [np.zeros(2)], [], [], is_terminated=True),
            "it has 1 observations, 0 actions and 0 rewards",
        ),
        (episode_state("a", [np.zeros(2)] * 2, [0, 1], [1.0], is_terminated=True), "2 observations, 2 actions and 1"),
        (episode_state("a", [np.zeros(2), np.zeros(3)], [0], [1.0], is_terminated=True), "is damaged: .*inhomogeneous"),
        ({"id_": "a"}, "episode 0 of .*is damaged: 'observations'"),
    ],
)
def test_a_packed_episode_that_does_not_fit_together_is_named(state: dict, message: str, tmp_path: Path) -> None:
    write_packed(tmp_path / "a.parquet", [state])
    with pytest.raises(ValueError, match=r"episode 0 of .*a\.parquet.*") as refusal:
        open_source(f"rllib:{tmp_path / 'a.parquet'}")
    assert refusal.match(message)


def test_a_chunk_does_not_repeat_its_lookback(tmp_path: Path) -> None:
    """The second chunk of an episode carries the last two rows of the first one before its own."""
    observations = [np.full(2, step, np.float32) for step in range(6)]
    first = episode_state("a", observations[:4], [0, 1, 0], [0.0, 1.0, 2.0], is_terminated=False)
    second = episode_state("a", observations[1:], [1, 0, 1, 1], [1.0, 2.0, 3.0, 4.0], is_terminated=True, lookback=2)
    write_packed(tmp_path / "a.parquet", [first | {"is_truncated": False}, second])
    table = pa.concat_tables(tables_of(open_source(f"rllib:{tmp_path / 'a.parquet'}")))
    assert table["rewards"].to_pylist() == [0, 1, 2, 3, 4]
    assert [row[0] for row in table["next_observations"].to_pylist()] == [1, 2, 3, 4, 5]
    assert table["terminations"].to_pylist() == [False] * 4 + [True]


def test_a_discrete_space_that_does_not_start_at_0_is_refused() -> None:
    import gymnasium

    one = buffer(
        observations=np.zeros((2, 1), np.float32), actions=[1], rewards=[0.0], terminations=[True], truncations=[False]
    )
    spec = create_minari(
        "test/shifted-v0", [one], gymnasium.spaces.Box(-1, 1, (1,)), gymnasium.spaces.Discrete(2, start=1)
    )
    with pytest.raises(ValueError, match=r"actions are Discrete\(2, start=1\), expected a flat Box or Discrete from 0"):
        open_source(spec)
