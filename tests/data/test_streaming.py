"""The stream itself: every row once a pass, in bounded memory, and the same again from any place in it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from iql_ray.data import row_groups, streaming
from iql_ray.data.packed import RowLayout, UniformSampler
from iql_ray.data.packing import pack
from iql_ray.data.prepared import read_manifest, shard_paths
from iql_ray.data.row_groups import RowGroup
from iql_ray.data.selection import ALL_ROWS, RowSelection
from iql_ray.data.streaming import StreamedRows, StreamSampler, sampler_of
from iql_ray.data.transforms import Transforms
from tests.data.examples import prepare_here, write_npz

NUM_ROWS = 100
ROWS_PER_GROUP = 10
LAYOUT = RowLayout(observation_dim=2, action_dim=1)
TRANSFORMS = Transforms(action_low=(-1.0,), action_high=(1.0,))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred rows in ten files; row n has reward n, every second one ends an episode."""
    folder = tmp_path_factory.mktemp("data")
    numbers = np.arange(NUM_ROWS, dtype=np.float32)
    columns = {
        "observations": np.stack([numbers, -numbers], 1),
        "actions": (numbers / NUM_ROWS)[:, None],
        "rewards": numbers,
        "next_observations": np.stack([numbers + 1, -numbers - 1], 1),
        "terminations": numbers % 4 == 1,
        "truncations": numbers % 4 == 3,
    }
    prepare_here(write_npz(folder / "a.npz", columns), folder / "a", rows_per_shard=ROWS_PER_GROUP)
    return folder / "a"


def streamed(
    dataset: Path, groups_per_window: int = 3, num_learners: int = 1, selection: RowSelection = ALL_ROWS
) -> StreamedRows:
    return StreamedRows.of(
        dataset,
        read_manifest(dataset),
        TRANSFORMS,
        groups_per_window=groups_per_window,
        num_learners=num_learners,
        selection=selection,
    )


def stream(rows: StreamedRows, batch_size: int = 7, seeds: tuple[int, ...] = (0,), rank: int = 0) -> StreamSampler:
    return StreamSampler(rows, LAYOUT, batch_size, seeds, rank)


def drawn(sampler: StreamSampler, num_batches: int) -> list[list[float]]:
    return [next(sampler).rewards.tolist() for _ in range(num_batches)]


def passes(rows: StreamedRows, num_passes: int, batch_size: int = 7, seed: int = 0, rank: int = 0) -> list[list[float]]:
    """Rewards of a learner's first passes, whatever the batches."""
    num_rows = sum(group.num_rows for group in rows.groups) // rows.num_learners
    batches = drawn(stream(rows, batch_size, (seed,), rank), -(-num_passes * num_rows // batch_size))
    flat = [reward for batch in batches for reward in batch]
    return [flat[number * num_rows : (number + 1) * num_rows] for number in range(num_passes)]


@pytest.mark.parametrize("groups_per_window", [1, 3, 10])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 250])
def test_every_row_comes_once_a_pass(dataset: Path, groups_per_window: int, batch_size: int):
    """Batches of seven cross windows and passes, those of 250 are two passes and a half."""
    for seen in passes(streamed(dataset, groups_per_window), 3, batch_size):
        assert sorted(seen) == list(range(NUM_ROWS))


def test_passes_and_seeds_have_orders_of_their_own(dataset: Path):
    rows = streamed(dataset)
    first = passes(rows, 2)
    assert passes(rows, 2) == first
    assert first[0] != first[1]
    assert passes(rows, 2, seed=1)[0] not in first


def test_rows_of_several_groups_are_mixed(dataset: Path):
    """Of three groups' thirty rows, thirty stored neighbours would be twenty-seven neighbours in the stream."""
    rows = streamed(dataset)
    group_of = {
        float(block[index, 3]): number
        for number, group in enumerate(rows.groups)
        for block in row_groups.packed_blocks(group, TRANSFORMS, None)
        for index in range(len(block))
    }
    groups = [group_of[reward] for reward in passes(rows, 1)[0]]
    num_neighbours = sum(one == two for one, two in pairwise(groups))
    assert num_neighbours < 50


def test_a_streamed_row_is_the_packed_row(dataset: Path):
    table = pa.concat_tables([pq.read_table(path) for path in shard_paths(dataset)])
    expected = LAYOUT.split(torch.from_numpy(pack(table, TRANSFORMS)))
    batch = next(stream(streamed(dataset), batch_size=NUM_ROWS))
    for name, values in vars(batch).items():
        other = getattr(expected, name)
        if other is not None:
            assert torch.equal(values[batch.rewards.argsort()], other[expected.rewards.argsort()])


@pytest.mark.parametrize("num_drawn", range(0, 45, 2))
def test_a_loaded_state_continues_the_stream_from_any_place(dataset: Path, num_drawn: int):
    """In the middle of a window, at its edges, in the second pass and in the fourth."""
    rows = streamed(dataset)
    sampler = stream(rows, seeds=(3, 8))
    drawn(sampler, num_drawn)
    states = {name: state.clone() for name, state in sampler.random_states().items()}
    expected = drawn(sampler, 20)
    other = stream(rows, seeds=(3, 8))
    other.load(states)
    assert drawn(other, 20) == expected
    assert torch.equal(other.random_states()["stream"], sampler.random_states()["stream"])


def test_a_stream_that_was_drawn_from_can_be_put_back(dataset: Path):
    sampler = stream(streamed(dataset))
    states = sampler.random_states()
    expected = drawn(sampler, 20)
    sampler.load(states)
    assert drawn(sampler, 20) == expected


def test_the_state_is_small_and_reading_it_changes_nothing(dataset: Path):
    sampler, other = stream(streamed(dataset)), stream(streamed(dataset))
    (state,) = sampler.random_states().values()
    assert state.numel() == 2
    assert drawn(sampler, 5) == drawn(other, 5)


@pytest.mark.parametrize("num_learners", [2, 4])
def test_learners_together_see_every_row_once_a_pass(dataset: Path, num_learners: int):
    """Half and a quarter of the rows each, cut through groups of ten."""
    rows = streamed(dataset, num_learners=num_learners)
    shares = [passes(rows, 3, rank=rank) for rank in range(num_learners)]
    for number in range(3):
        seen = [reward for share in shares for reward in share[number]]
        assert sorted(seen) == list(range(NUM_ROWS))
    assert sorted(shares[0][0]) != sorted(shares[0][1])


def test_every_seed_of_a_population_sees_every_row_once_a_pass_in_its_own_order(dataset: Path):
    sampler = stream(streamed(dataset), batch_size=20, seeds=(3, 8))
    batch = next(sampler)
    assert batch.rewards.shape == (2, 20)
    assert batch.observations.shape == (2, 20, 2)
    rewards = torch.cat([batch.rewards, *(next(sampler).rewards for _ in range(4))], 1)
    assert rewards[0].tolist() != rewards[1].tolist()
    for seen in rewards:
        assert sorted(seen.tolist()) == list(range(NUM_ROWS))


def test_one_window_is_read_ahead_and_no_more(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ten groups in windows of at most three are windows of two, three, two and three groups of ten rows."""
    num_begun, is_read = 0, threading.Semaphore(0)

    def counted(group: RowGroup, *others: Any) -> Iterator[np.ndarray]:
        nonlocal num_begun
        is_ours = group.path.startswith(str(tmp_path))  # threads of other tests may still be at work
        num_begun += is_ours
        yield from row_groups.packed_blocks(group, *others)
        if is_ours:
            is_read.release()

    def wait_for(num_groups: int) -> None:
        for _ in range(num_groups):
            assert is_read.acquire(timeout=10)

    monkeypatch.setattr(streaming, "packed_blocks", counted)
    sampler = stream(streamed(Path(shutil.copytree(dataset, tmp_path / "a"))), batch_size=5)
    assert num_begun == 0
    next(sampler)
    wait_for(2 + 3)
    drawn(sampler, 3)  # with the first, all twenty rows of the first window
    assert num_begun == 2 + 3
    next(sampler)
    wait_for(2)
    drawn(sampler, 5)
    assert num_begun == 2 + 3 + 2


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_selection_is_streamed_with_its_next_actions(dataset: Path, share: float):
    """Row n did n / 100. Of fifty episodes those of the highest returns are the last; a cut one loses its last row."""
    selection = RowSelection(top_episode_share=share, with_next_actions=True)
    rows = streamed(dataset, selection=selection)
    first_kept = NUM_ROWS - round(share * NUM_ROWS)
    expected = [number for number in range(first_kept, NUM_ROWS) if number % 4 != 3]
    layout = RowLayout(observation_dim=2, action_dim=1, has_next_actions=True)
    batch = next(StreamSampler(rows, layout, len(expected), (0,), 0))
    assert sorted(batch.rewards.tolist()) == expected
    assert batch.next_actions is not None
    next_actions = torch.where(batch.terminations > 0, 0.0, (batch.rewards + 1) / NUM_ROWS)
    assert torch.allclose(batch.next_actions[:, 0], next_actions)


def test_an_error_of_the_reading_thread_reaches_the_learner(dataset: Path):
    rows = streamed(dataset)
    lost = replace(rows.groups[0], path="gone.parquet")
    sampler = stream(replace(rows, groups=(lost, *rows.groups[1:])))
    with pytest.raises(RuntimeError, match=r"row group 0 of gone.parquet cannot be read"):
        drawn(sampler, 20)


def test_a_state_of_other_windows_or_other_groups_is_refused(dataset: Path):
    state = stream(streamed(dataset, groups_per_window=3)).random_states()
    fewer = replace(streamed(dataset), groups=streamed(dataset).groups[1:])
    for rows in (streamed(dataset, groups_per_window=4), fewer):
        with pytest.raises(ValueError, match=r"of other row groups or of windows of another size; put back"):
            stream(rows).load(state)


def test_a_stream_does_not_continue_rows_that_were_held_nor_the_other_way(dataset: Path):
    held = UniformSampler(torch.zeros(5, LAYOUT.width), LAYOUT, 7, (0,), 0)
    with pytest.raises(ValueError, match=r"held its rows, now they are to be streamed"):
        stream(streamed(dataset)).load(held.random_states())
    with pytest.raises(ValueError, match=r"streamed its rows, now they would be held"):
        held.load(stream(streamed(dataset)).random_states())


def test_rows_say_how_they_are_sampled(dataset: Path):
    assert isinstance(sampler_of(torch.zeros(5, LAYOUT.width), LAYOUT, 7, (0,), 0), UniformSampler)
    assert isinstance(sampler_of(streamed(dataset), LAYOUT, 7, (0,), 0), StreamSampler)


def test_fewer_rows_than_learners_are_refused(dataset: Path):
    with pytest.raises(ValueError, match=r"100 rows to stream, expected one for each of 101 learners"):
        stream(streamed(dataset, num_learners=101))
