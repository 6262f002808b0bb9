"""Which rows are left, and what was done after each: wherever the shards' bounds lie, however episodes end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from iql_ray.data.packed import RowLayout
from iql_ray.data.packing import pack
from iql_ray.data.prepared import read_manifest, shard_paths
from iql_ray.data.selection import (
    ALL_ROWS,
    RowSelection,
    SelectedRows,
    check_enough_rows,
    count_selected,
    is_among_best,
    select_rows,
)
from iql_ray.data.transforms import Transforms
from tests.data.examples import changed, example, prepare_here, write_npz

Prepare = Callable[..., Path]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Columns to a prepared dataset, by default of a row a shard: every next row is in another file."""

    def prepare(columns: dict[str, np.ndarray], rows_per_shard: int = 1) -> Path:
        prepare_here(write_npz(tmp_path / "a.npz", columns), tmp_path / "a", rows_per_shard=rows_per_shard)
        return tmp_path / "a"

    return prepare


def episodes(*rewards: Iterable[float], cut: Iterable[int] = ()) -> dict[str, np.ndarray]:
    """An episode for each list of rewards, which terminates unless it is `cut`; row n of all took action n / 100."""
    flat = np.array([reward for episode in rewards for reward in episode], np.float32)
    last_rows = np.cumsum([len(list(episode)) for episode in rewards]) - 1
    truncations = np.isin(np.arange(len(flat)), last_rows[list(cut)])
    return {
        "observations": np.arange(len(flat), dtype=np.float32)[:, None],
        "actions": np.arange(len(flat), dtype=np.float32)[:, None] / 100,
        "rewards": flat,
        "next_observations": np.arange(1, len(flat) + 1, dtype=np.float32)[:, None],
        "terminations": np.isin(np.arange(len(flat)), last_rows) & ~truncations,
        "truncations": truncations,
    }


def selected(dataset: Path, **selection: Any) -> SelectedRows:
    return select_rows(dataset, read_manifest(dataset), RowSelection(**selection))


def tables(dataset: Path) -> list[pa.Table]:
    return [pq.read_table(path) for path in shard_paths(dataset)]


def chosen(dataset: Path, **selection: Any) -> dict[tuple[int, int], float | None]:
    """(episode, step) of every row that is kept, with its next action; each shard is asked alone."""
    rows: dict[tuple[int, int], float | None] = {}
    for shard in tables(dataset):
        table, next_actions = selected(dataset, **selection).choose(shard)
        for index, row in enumerate(table.to_pylist()):
            rows[row["episode"], row["step"]] = (
                None if next_actions is None or row["terminations"] else round(float(next_actions[index, 0]), 6)
            )
    return rows


@pytest.mark.parametrize("rows_per_shard", [1, 2, 5])
def test_a_rows_next_action_is_that_of_the_next_step_wherever_it_is_stored(prepare: Prepare, rows_per_shard: int):
    """Actions are -1, -0.5, 0 | 0.5, 1; the first episode terminates, the second is cut, so its last row goes."""
    dataset = prepare(example(), rows_per_shard)
    assert chosen(dataset, with_next_actions=True) == {(0, 0): -0.5, (0, 1): 0.0, (0, 2): None, (1, 0): 1.0}
    assert selected(dataset, with_next_actions=True).num_rows == 4


def test_an_episode_that_lost_its_last_row_loses_the_one_before_it_too(prepare: Prepare):
    """Without next observations in the source, the last row of the cut episode is not stored; now (1, 0) is last."""
    dataset = prepare(changed(next_observations=None))
    assert chosen(dataset) == {(0, 0): None, (0, 1): None, (0, 2): None, (1, 0): None}
    assert chosen(dataset, with_next_actions=True).keys() == {(0, 0), (0, 1), (0, 2)}


def test_a_row_that_terminated_and_was_cut_at_once_stays(prepare: Prepare):
    columns = changed(terminations=[False, False, True, False, True], truncations=[False, False, True, False, True])
    assert (1, 1) in chosen(prepare(columns), with_next_actions=True)


def test_a_dataset_of_single_cut_rows_has_no_next_action_at_all(prepare: Prepare):
    dataset = prepare(episodes([1.0], [2.0], cut=(0, 1)))
    assert chosen(dataset, with_next_actions=True) == {}
    assert selected(dataset, with_next_actions=True).num_rows == 0


def test_packed_next_actions_are_in_the_agents_units_and_zero_after_a_termination(prepare: Prepare):
    """Actions of [-2, 2] are halved: -0.5, 0 and nothing follow in the first episode, 1 in the second."""
    dataset = prepare(example(), 5)
    table, next_actions = selected(dataset, with_next_actions=True).choose(*tables(dataset))
    packed = pack(table, Transforms(action_low=(-2.0,), action_high=(2.0,)), next_actions)
    batch = RowLayout(observation_dim=2, action_dim=1, has_next_actions=True).split(torch.from_numpy(packed))
    assert batch.next_actions is not None
    found = zip(batch.observations[:, 0].tolist(), batch.next_actions[:, 0].tolist(), strict=True)
    assert dict(found) == {0: -0.25, 1: 0, 2: 0, 10: 0.5}


def test_the_best_episodes_are_those_of_the_highest_return_the_earlier_of_equal_ones(prepare: Prepare):
    """Returns 1, 3, 3, 3, 2: two fifths are two episodes, a little more is three."""
    dataset = prepare(episodes([0.5, 0.5], [1, 2], [3], [2, 1], [2]), 2)
    assert chosen(dataset, top_episode_share=0.4).keys() == {(1, 0), (1, 1), (2, 0)}
    assert chosen(dataset, top_episode_share=0.41).keys() == {(1, 0), (1, 1), (2, 0), (3, 0), (3, 1)}
    assert chosen(dataset, top_episode_share=0.01).keys() == {(1, 0), (1, 1)}


def test_a_share_of_all_episodes_is_not_rounded_up_by_a_float():
    """0.07 * 100 is 7.000000000000001 in floats, and 0.1 of 10 is one."""
    assert is_among_best(np.arange(100.0), 0.07).nonzero()[0].tolist() == [93, 94, 95, 96, 97, 98, 99]
    assert is_among_best(np.arange(10.0), 0.1).sum() == 1
    assert is_among_best(np.arange(3.0), 1.0).all()


def test_of_many_equal_returns_the_first_are_best():
    assert is_among_best(np.tile([0.0, 1.0], 50), 0.1).nonzero()[0].tolist() == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]


def test_equal_episodes_have_equal_returns_however_their_rows_were_shuffled(prepare: Prepare):
    """1e9 + 1e-9 - 1e9 is 0 in this order and 1e-9 in another; a shuffled sum would not take the first episode."""
    dataset = prepare(episodes(*[[1e9, 1e-9, -1e9]] * 20), 60)
    assert {episode for episode, _ in chosen(dataset, top_episode_share=0.05)} == {0}


def test_an_episode_without_a_stored_row_takes_no_others_place(prepare: Prepare):
    """The first episode's only row had no next observation; half of the other two is the better one."""
    columns = episodes([9.0], [1.0, 1.0], [2.0, 2.0], cut=(0,))
    del columns["next_observations"]
    assert chosen(prepare(columns), top_episode_share=0.5).keys() == {(2, 0), (2, 1)}


def test_best_episodes_and_next_actions_together(prepare: Prepare):
    """Of returns 5, 9, 1, 8 the half is the second and the fourth; the fourth is cut, so its last row goes."""
    dataset = prepare(episodes([2, 3], [4, 5], [1], [1, 3, 4], cut=(3,)), 3)
    both = {"top_episode_share": 0.5, "with_next_actions": True}
    assert chosen(dataset, **both) == {(1, 0): 0.03, (1, 1): None, (3, 0): 0.06, (3, 1): 0.07}
    actions = selected(dataset, **both).actions
    assert actions is not None
    assert actions[:, 0].tolist() == pytest.approx([0.02, 0.03, 0.05, 0.06, 0.07])  # no other episode's


@pytest.mark.parametrize("selection", [RowSelection(top_episode_share=0.3), RowSelection(with_next_actions=True)])
def test_rows_are_counted_as_they_are_chosen(prepare: Prepare, selection: RowSelection):
    dataset = prepare(episodes([1, 2], [3, 4, 5], [6], [7, 8], cut=(0, 1, 2)), 4)
    rows = chosen(dataset, **vars(selection))
    num_rows, num_episodes = count_selected(dataset, read_manifest(dataset), selection)
    assert num_rows == len(rows) == selected(dataset, **vars(selection)).num_rows
    assert num_episodes == (2 if selection.top_episode_share < 1 else 4)


def test_all_rows_are_counted_without_a_look_at_them(prepare: Prepare):
    dataset = prepare(example())
    manifest = read_manifest(dataset)
    for path in shard_paths(dataset):
        path.unlink()
    assert count_selected(dataset, manifest, ALL_ROWS) == (5, 2)


def test_random_episodes_agree_with_looking_each_row_up(prepare: Prepare):
    """300 episodes of one to six rows, half of them cut, in shards of 100 rows."""
    generator = np.random.default_rng(0)
    rewards = [generator.normal(size=length).tolist() for length in generator.integers(1, 7, 300)]
    columns = episodes(*rewards, cut=range(0, 300, 2))
    columns["actions"] = generator.uniform(-1, 1, columns["actions"].shape).astype(np.float32)
    dataset = prepare(columns, 100)
    rows = {(row["episode"], row["step"]): row for row in pa.concat_tables(tables(dataset)).to_pylist()}
    best = sorted(range(300), key=lambda episode: -sum(rewards[episode]))[:60]
    expected = {}
    for (episode, step), row in rows.items():
        following = rows.get((episode, step + 1))
        if episode in best and (following or row["terminations"]):
            expected[episode, step] = round(following["actions"][0], 6) if following else None
    assert chosen(dataset, top_episode_share=0.2, with_next_actions=True) == expected


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float):
    with pytest.raises(ValueError, match=r"top_episode_share = .*: expected a number in \(0, 1\]"):
        RowSelection(top_episode_share=share)


def test_too_few_rows_are_refused_with_what_to_change(prepare: Prepare):
    dataset = prepare(example())
    manifest = read_manifest(dataset)
    check_enough_rows(dataset, manifest, RowSelection(top_episode_share=0.5), 2, 2)
    with pytest.raises(ValueError, match=r"a has 2 of its 5 rows left .* 3 learners; .*: lower --num-l.* than 0\.5"):
        check_enough_rows(dataset, manifest, RowSelection(top_episode_share=0.5), 2, 3)
    with pytest.raises(ValueError, match=r"has 0 of its 5 rows .*one at least: choose a critic that needs no next"):
        check_enough_rows(dataset, manifest, RowSelection(with_next_actions=True), 0, 1)
