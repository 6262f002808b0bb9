"""The same episodes in every format give one table and one prepared dataset, to the last bit."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest

from iql_ray.data.sources import Source, canonical_schema, open_source
from tests.data.examples import DATA_FILES, prepare_here, tables_of
from tests.data.source_examples import (
    LINKED,
    WHOLE,
    Columns,
    as_npz,
    as_ogbench_file,
    as_ogbench_regular,
    episodes,
    mapping_for,
    with_last_observations,
    without,
)


@pytest.fixture(autouse=True)
def _minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def written(kind: str, columns: Columns, folder: Path) -> tuple[str, dict[str, str]]:
    folder.mkdir()
    return {**WHOLE, **LINKED}[kind](folder, columns), mapping_for(kind, columns)


def table_of(source: Source) -> pa.Table:
    return pa.concat_tables(tables_of(source))


def same_episodes(found: list[int], expected: list[int]) -> bool:
    """Whatever the ids are, they change at the same rows and are as many."""
    changes = [np.flatnonzero(np.diff(ids)).tolist() for ids in (found, expected)]
    return changes[0] == changes[1] and len(set(found)) == len(set(expected))


@pytest.mark.parametrize("is_discrete", [False, True])
@pytest.mark.parametrize("kind", WHOLE)
def test_every_format_gives_the_same_table(kind: str, is_discrete: bool, tmp_path: Path) -> None:
    columns = episodes(is_discrete=is_discrete)
    spec, mapping = written(kind, columns, tmp_path / "a")
    source = open_source(spec, mapping)
    table = table_of(source)
    assert (source.num_rows, source.layout.is_discrete) == (40, is_discrete)
    assert table.schema == canonical_schema(source.layout)
    if source.layout.has_episodes:
        assert same_episodes(table["episode"].to_pylist(), columns["episode"].tolist())
    for name in without(columns, "episode"):
        flat = table[name].combine_chunks()
        values = np.asarray(flat.flatten() if pa.types.is_fixed_size_list(flat.type) else flat)
        np.testing.assert_array_equal(values.reshape(columns[name].shape), columns[name], name)


@pytest.mark.parametrize("is_discrete", [False, True])
def test_every_format_gives_the_same_prepared_dataset(is_discrete: bool, tmp_path: Path) -> None:
    columns = episodes(is_discrete=is_discrete)
    digests = {}
    for kind in WHOLE:
        spec, mapping = written(kind, columns, tmp_path / kind)
        digests[kind] = prepare_here(spec, tmp_path / f"prepared-{kind}", mapping).digest
    assert len(set(digests.values())) == 1, digests


def test_formats_that_keep_the_next_observation_in_the_next_row_give_it_too(tmp_path: Path) -> None:
    columns = episodes(terminates=False)
    manifests = {}
    for kind in ["npz", *LINKED]:
        spec, mapping = written(kind, columns, tmp_path / kind)
        manifests[kind] = prepare_here(spec, tmp_path / f"prepared-{kind}", mapping)
    assert {manifest.num_rows for manifest in manifests.values()} == {40}
    assert {manifest.num_truncations for manifest in manifests.values()} == {3}
    assert len({manifest.digest for manifest in manifests.values()}) == 1


def test_ogbench_without_masks_never_terminates(tmp_path: Path) -> None:
    source = open_source(as_ogbench_file(tmp_path, episodes()))
    assert (source.has_success, source.recorded.details) == (False, {"ogbench_form": "file"})
    assert not any(table_of(source)["terminations"].to_pylist())


def test_ogbench_masks_end_the_task_and_say_success(tmp_path: Path) -> None:
    columns = episodes()
    source = open_source(as_ogbench_regular(tmp_path, columns))
    assert source.recorded.details == {"ogbench_form": "regular"}
    assert table_of(source.with_success())["success"].to_pylist() == columns["terminations"].tolist()


def test_ogbench_never_learns_from_the_row_after_the_last_action(tmp_path: Path) -> None:
    """Even where the goal is reached on it, so that its mask is 0."""
    arrays = with_last_observations(episodes(terminates=False))
    is_dummy = arrays.pop("is_dummy")
    np.savez(tmp_path / "a.npz", terminals=is_dummy, masks=~is_dummy, **arrays)  # pyright: ignore[reportArgumentType]
    manifest = prepare_here(f"ogbench:{tmp_path / 'a.npz'}", tmp_path / "a")
    assert (manifest.num_rows, manifest.num_terminations, manifest.num_dropped_rows) == (40, 0, 3)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("rewards", r"has no rewards; it has actions, .*ogbench\.make_env_and_datasets"),
        ("terminals", "has no terminals, which mark where OGBench's trajectories end"),
        ("observations", "has no column observations"),
    ],
)
def test_an_ogbench_file_without_an_array(missing: str, message: str, tmp_path: Path) -> None:
    path = Path(as_ogbench_file(tmp_path, episodes()).removeprefix("ogbench:"))
    arrays = dict(np.load(path))
    np.savez(path, **without(arrays, missing))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=message):
        open_source(f"ogbench:{path}")


D4RL_LAYOUTS = {
    "locomotion-v2": ("next_observations", "timeouts", "infos/qpos", "infos/action_log_probs", "metadata/algorithm"),
    "antmaze": ("timeouts", "infos/goal", "infos/qpos", "infos/qvel"),
    "adroit-human": ("timeouts", "infos/qpos", "infos/qvel"),
    "kitchen": (),
}


@pytest.mark.parametrize("suite", D4RL_LAYOUTS)
def test_the_layouts_of_all_d4rl_suites(suite: str, tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for name in ("observations", "actions", "rewards", "terminals", *D4RL_LAYOUTS[suite]):
            width = {"rewards": (), "terminals": (), "timeouts": ()}.get(name, (2,))
            file[name] = np.full((6, *width), name == "timeouts", np.float32) if "meta" not in name else b"SAC"
    layout = open_source(f"hdf5:{path}").layout
    assert layout.has_next_observations == ("next_observations" in D4RL_LAYOUTS[suite])
    assert layout.has_truncations == ("timeouts" in D4RL_LAYOUTS[suite])
    assert not layout.has_episodes
    assert not layout.success


@pytest.mark.parametrize("name", ["infos/success", "infos/goal_achieved", "success"])
def test_success_in_infos_is_read_when_asked_for(name: str, tmp_path: Path) -> None:
    columns = without(episodes(), "episode")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for column, values in columns.items():
            file[column] = values
        file[name] = columns["terminations"]
    source = open_source(f"hdf5:{tmp_path / 'a.hdf5'}")
    assert source.layout.success == (name,)
    assert "success" not in table_of(source).column_names
    asked = source.with_success()
    assert table_of(asked).schema == canonical_schema(asked.layout)
    assert table_of(asked)["success"].to_pylist() == columns["terminations"].tolist()


def test_asking_for_success_where_nothing_is_said_is_refused(tmp_path: Path) -> None:
    source = open_source(as_npz(tmp_path, episodes()))
    assert not source.has_success
    with pytest.raises(ValueError, match="does not say where the task is solved"):
        source.with_success()


def test_logs_in_which_nothing_ever_terminates_say_so(tmp_path: Path) -> None:
    spec = as_npz(tmp_path, without(episodes(terminates=False), "terminations"))
    with pytest.raises(ValueError, match=r"no column terminations or terminals; .*--columns terminations=never"):
        open_source(spec)
    assert not any(table_of(open_source(spec, {"terminations": "never"}))["terminations"].to_pylist())


def test_the_cartpole_logs_of_rllib_need_no_mapping() -> None:
    source = open_source(f"rllib:{DATA_FILES / 'cartpole-rllib'}")
    assert (source.num_rows, source.layout.observation_dim, source.layout.is_discrete) == (4137, 4, True)
    assert len(set(table_of(source)["episode"].to_pylist())) == 21


def test_the_forms_that_rllib_itself_wrote_hold_the_same_rows() -> None:
    """Three episodes of 12, 9 and 12 steps; the second terminates, and the third is packed in two chunks."""
    tables = {}
    for name in ("cartpole-batches.json", "cartpole-episodes.parquet"):
        source = open_source(f"rllib:{DATA_FILES / 'rllib' / name}")
        tables[name] = table_of(source)
        assert (source.num_rows, source.layout.is_discrete) == (33, True)
    batches, packed = tables.values()
    assert np.flatnonzero(batches["terminations"]).tolist() == [20]
    assert np.flatnonzero(batches["truncations"]).tolist() == [11, 32]
    assert batches.drop_columns("episode").equals(packed.drop_columns("episode"))
    assert same_episodes(packed["episode"].to_pylist(), batches["episode"].to_pylist())
