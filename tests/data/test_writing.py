"""From a source to a prepared dataset: the same rows from every format, and nothing left behind by an error."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iql_ray.data.actions import resolve_actions
from iql_ray.data.demo import DEMO_ACTION_BOUNDS, demo_dataset_path
from iql_ray.data.intake import WritingPlan
from iql_ray.data.prepared import read_manifest, shard_paths
from iql_ray.data.reading import read_in_threads
from iql_ray.data.schema import transition_schema
from iql_ray.data.sources import Fragment, Source, open_source
from iql_ray.data.writing import balanced_sizes, prepare_dataset
from iql_ray.experience import Spaces
from tests.data.examples import (
    CARTPOLE_COLUMNS,
    DATA_FILES,
    changed,
    example,
    prepare_here,
    read_rows,
    with_value,
    write_hdf5,
    write_minari,
    write_npz,
    write_parquet,
)

PENDULUM = Spaces(observation_dim=3, action_dim=1, action_low=(-2.0,), action_high=(2.0,))


@pytest.fixture(autouse=True)
def minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def shard_bytes(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in shard_paths(folder)]


def test_four_formats_of_the_same_episodes_give_the_same_shards_bit_for_bit(tmp_path: Path) -> None:
    specs = [
        write_npz(tmp_path / "a.npz", example()),
        write_hdf5(tmp_path / "a.hdf5", example()),
        write_parquet(tmp_path / "parquet", example()),
        write_minari("test/line-v0", example()),
    ]
    manifests = [prepare_here(spec, tmp_path / f"out-{index}") for index, spec in enumerate(specs)]
    assert {manifest.digest for manifest in manifests} == {manifests[0].digest}
    assert all(shard_bytes(tmp_path / f"out-{index}") == shard_bytes(tmp_path / "out-0") for index in range(4))
    assert all(manifest.columns == manifests[0].columns for manifest in manifests)


def test_the_prepared_rows_are_the_logged_rows(tmp_path: Path) -> None:
    prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a")
    rows = read_rows(tmp_path / "a")
    for name, values in example().items():
        assert [row[name] for row in rows] == values.tolist()
    assert [(row["episode"], row["step"]) for row in rows] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert pq.read_schema(shard_paths(tmp_path / "a")[0]) == transition_schema(2, 1)


def test_the_manifest_counts_and_summarises(tmp_path: Path) -> None:
    manifest = prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a", licence="CC0")
    assert (manifest.num_rows, manifest.num_episodes, manifest.num_dropped_rows) == (5, 2, 0)
    assert (manifest.num_terminations, manifest.num_truncations) == (1, 1)
    assert (manifest.episode_returns.min, manifest.episode_returns.max, manifest.episode_returns.mean) == (6, 9, 7.5)
    assert manifest.episode_lengths.max == 3
    assert manifest.columns["rewards"].mean == (3,)
    assert manifest.columns["observations"].max == (11, 20)
    assert manifest.licence == "CC0"
    assert manifest.provenance.are_action_bounds_assumed
    (file,) = manifest.provenance.files
    assert file.name == "a.npz"
    assert file.sha256 == hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()


def test_rows_without_next_observations_get_them_and_a_cut_episode_loses_its_last(tmp_path: Path) -> None:
    manifest = prepare_here(write_npz(tmp_path / "a.npz", changed(next_observations=None)), tmp_path / "a")
    rows = read_rows(tmp_path / "a")
    assert [row["next_observations"] for row in rows] == [[1, 10], [2, 20], [2, 20], [11, 10]]
    assert [row["terminations"] for row in rows] == [False, False, True, False]
    assert [row["truncations"] for row in rows] == [False, False, False, True]
    assert (manifest.num_rows, manifest.num_dropped_rows, manifest.num_truncations) == (4, 1, 1)
    assert manifest.episode_returns.max == 9, "the return is the logged one, the dropped row's reward included"


def demo_slice(tmp_path: Path, num_rows: int) -> str:
    with np.load(demo_dataset_path()) as file:
        columns = {name: file[name][:num_rows] for name in file.files}
    return write_npz(tmp_path / "slice.npz", columns)


def test_the_shuffle_does_not_depend_on_how_rows_arrive_nor_on_shard_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = demo_slice(tmp_path, 198 * 4)
    first = prepare_here(spec, tmp_path / "a")
    monkeypatch.setattr("iql_ray.data.sources.npz.ROWS_PER_TABLE", 37)
    monkeypatch.setattr("iql_ray.data.intake.ROWS_PER_BLOCK", 10)
    monkeypatch.setattr("iql_ray.data.shuffling.BUCKET_BYTES", 1000)
    second = prepare_here(spec, tmp_path / "b")
    assert shard_bytes(tmp_path / "a") == shard_bytes(tmp_path / "b")
    assert (first.digest, first.columns) == (second.digest, second.columns)
    third = prepare_here(spec, tmp_path / "c", rows_per_shard=100)
    assert len(third.shards) == 8
    assert third.digest == first.digest
    assert prepare_here(spec, tmp_path / "d", seed=1).digest != first.digest


def test_the_dataset_does_not_depend_on_the_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write_parquet(tmp_path / "parquet", changed(next_observations=None))
    source = open_source(spec)
    actions = resolve_actions(source.layout, None, None, None)
    plan = WritingPlan(source=source, actions=actions, destination=tmp_path, rows_per_shard=1)
    datasets = []
    for threads in (1, 2, 5):
        monkeypatch.setattr("iql_ray.data.writing.num_threads", lambda count=threads: count)
        out = tmp_path / f"out-{threads}"
        read = partial(read_in_threads, plan.source, threads=threads)
        manifest = prepare_dataset(read, replace(plan, destination=out))
        provenance = replace(manifest.provenance, created_at="")
        datasets.append((replace(manifest, provenance=provenance), shard_bytes(out)))
    assert len(datasets[0][1]) == 4
    assert datasets[0] == datasets[1] == datasets[2]


def test_a_long_source_is_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At no time are more than a few of the many tables alive."""
    monkeypatch.setattr("iql_ray.data.sources.npz.ROWS_PER_TABLE", 50)
    held: list[int] = []
    alive: set[int] = set()
    original = Source.read

    def counted(source: Source, fragment: Fragment) -> Iterator[pa.Table]:
        for number, table in enumerate(original(source, fragment)):
            alive.add(number)
            weakref.finalize(table, alive.discard, number)
            held.append(len(alive))
            yield table
            del table

    monkeypatch.setattr(Source, "read", counted)
    prepare_here(demo_slice(tmp_path, 198 * 20), tmp_path / "a")
    assert len(held) == 80
    assert max(held) <= 4


def test_the_shipped_pendulum_data_reaches_the_full_torque(tmp_path: Path) -> None:
    manifest = prepare_here(f"npz:{demo_dataset_path()}", tmp_path / "a", None, PENDULUM, DEMO_ACTION_BOUNDS)
    assert (manifest.num_rows, manifest.num_episodes) == (99_000, 500)
    assert manifest.episode_returns.mean == pytest.approx(-180.2, abs=0.1)
    assert manifest.columns["actions"].max == (2.0,)
    assert manifest.columns["actions"].min == pytest.approx((-2.0,), abs=1e-5)
    assert manifest.spaces == PENDULUM
    assert manifest.provenance.action_bounds == (-1.0, 1.0)


def test_the_cartpole_logs_of_rllib(tmp_path: Path) -> None:
    manifest = prepare_here(f"parquet:{DATA_FILES / 'cartpole-rllib'}", tmp_path / "a", CARTPOLE_COLUMNS)
    assert (manifest.num_rows, manifest.num_episodes, manifest.spaces.num_actions) == (4137, 21, 2)
    assert manifest.episode_returns.mean == 197
    assert not manifest.provenance.are_truncations_recorded
    assert manifest.provenance.columns["episode"] == "eps_id"


def test_the_door_demonstrations(tmp_path: Path) -> None:
    manifest = prepare_here(f"hdf5:{DATA_FILES / 'door-human-2-episodes.hdf5'}", tmp_path / "a")
    assert (manifest.num_rows, manifest.num_episodes, manifest.num_dropped_rows) == (598, 2, 2)
    assert manifest.num_truncations == 2
    rows = read_rows(tmp_path / "a")
    for row, following in pairwise(rows):
        assert row["truncations"] or row["next_observations"] == following["observations"]


BAD_ROWS = [
    (with_value("observations", 3, np.nan), r"observations has nan at row 3 of a\.npz, element 1"),
    (with_value("rewards", 1, np.inf), r"rewards has inf at row 1 of a\.npz, element 0"),
    (with_value("next_observations", 4, -np.inf), r"next_observations has -inf at row 4 of a\.npz"),
    (changed(rewards=np.array([1, 2, 1e300, 4, 5])), r"rewards has inf at row 2 of a\.npz"),
    (with_value("actions", 2, 1.5), r"action 1\.5 at row 2 of a\.npz, element 0, lies outside .*--action-bounds"),
    (changed(truncations=np.zeros(5, bool)), r"episode 1 ends at row 4 of a\.npz flagged neither"),
    (changed(episode=np.array([1, 1, 1, 2, 1])), r"row 3 of a\.npz flagged neither"),
]


@pytest.mark.parametrize(("columns", "message"), BAD_ROWS)
def test_bad_rows_are_named_and_nothing_is_left_behind(
    columns: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    spec = write_npz(tmp_path / "a.npz", columns)
    with pytest.raises(ValueError, match=message):
        prepare_here(spec, tmp_path / "out" / "a")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_error_leaves_the_dataset_that_was_to_be_replaced(tmp_path: Path) -> None:
    good = prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a")
    before = shard_bytes(tmp_path / "a")
    bad = write_npz(tmp_path / "bad.npz", with_value("rewards", 0, np.nan))
    with pytest.raises(ValueError, match="rewards has nan"):
        prepare_here(bad, tmp_path / "a", overwrite=True)
    assert read_manifest(tmp_path / "a") == good
    assert shard_bytes(tmp_path / "a") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.npz", "bad.npz"]


def test_a_prepared_dataset_is_replaced_only_when_asked(tmp_path: Path) -> None:
    spec = write_npz(tmp_path / "a.npz", example())
    prepare_here(spec, tmp_path / "a")
    with pytest.raises(ValueError, match="already holds a prepared dataset; choose another --out, or --overwrite"):
        prepare_here(spec, tmp_path / "a", seed=1)
    assert prepare_here(spec, tmp_path / "a", seed=1, overwrite=True) == read_manifest(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.npz"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_prepared_dataset_is_never_replaced(overwrite: bool, tmp_path: Path) -> None:
    spec = write_npz(tmp_path / "a.npz", example())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for out in (tmp_path / "mine", tmp_path / "a.npz"):
        with pytest.raises(ValueError, match="holds something that is no prepared dataset"):
            prepare_here(spec, out, overwrite=overwrite)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_may_become_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a")
    assert read_manifest(tmp_path / "a").num_rows == 5


def test_a_source_of_lone_cut_rows_has_nothing_to_learn_from(tmp_path: Path) -> None:
    lone = changed(next_observations=None, terminations=np.zeros(5, bool), truncations=np.ones(5, bool))
    with pytest.raises(ValueError, match="has no row with a next observation"):
        prepare_here(write_npz(tmp_path / "a.npz", lone), tmp_path / "a")


def test_unfinished_episodes_may_count_as_cut(tmp_path: Path) -> None:
    spec = write_npz(tmp_path / "a.npz", changed(truncations=np.zeros(5, bool)))
    manifest = prepare_here(spec, tmp_path / "a", unfinished_episodes="truncate")
    assert manifest.num_truncations == 1
    assert manifest.provenance.num_derived_truncations == 1


def test_a_minari_dataset_brings_its_spaces_and_records(tmp_path: Path) -> None:
    manifest = prepare_here(write_minari("test/line-v0", example()), tmp_path / "a")
    assert manifest.spaces.action_low == (-1.0,)
    assert not manifest.provenance.are_action_bounds_assumed
    assert manifest.provenance.recorded["dataset_id"] == "test/line-v0"
    assert "main_data.hdf5" in [file.name for file in manifest.provenance.files]


def test_few_shards_of_even_size() -> None:
    assert balanced_sizes(10, 4) == [4, 3, 3]
    assert balanced_sizes(8, 4) == [4, 4]
    assert balanced_sizes(3, 100) == [3]
