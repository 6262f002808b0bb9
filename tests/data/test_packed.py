"""Packed rows: what lies where, what the transforms did to it, and minibatches drawn from a stream of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from iql_ray.data.packed import RowLayout, UniformSampler
from iql_ray.data.packing import pack
from iql_ray.data.prepared import shard_paths
from iql_ray.data.transforms import Transforms
from iql_ray.experience import Spaces
from iql_ray.policy import ACTION_LIMIT
from tests.data.examples import example, prepare_here, write_npz

LAYOUT = RowLayout(observation_dim=1, action_dim=1)
SPACES = Spaces(observation_dim=2, action_dim=1, action_low=(-1.0,), action_high=(1.0,))
RAW = Transforms(action_low=(-1.0,), action_high=(1.0,))


@pytest.fixture
def table(tmp_path: Path) -> pa.Table:
    """The example's five rows, in the order of their episodes."""
    prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a")
    rows = pa.concat_tables([pq.read_table(path) for path in shard_paths(tmp_path / "a")])
    return rows.sort_by([("episode", "ascending"), ("step", "ascending")])


def numbered_rows(num_rows: int) -> Tensor:
    """Row n holds n everywhere."""
    return torch.arange(float(num_rows)).unsqueeze(1).expand(num_rows, LAYOUT.width).contiguous()


def sampler_of(
    num_rows: int = 50, batch_size: int = 20, seeds: tuple[int, ...] = (0,), rank: int = 0
) -> UniformSampler:
    return UniformSampler(numbered_rows(num_rows), LAYOUT, batch_size, seeds, rank)


def drawn(sampler: UniformSampler, num_batches: int = 3) -> list[list[float]]:
    return [next(sampler).rewards.tolist() for _ in range(num_batches)]


def test_a_row_splits_into_what_was_packed(table: pa.Table):
    batch = RowLayout(observation_dim=2, action_dim=1).split(torch.from_numpy(pack(table, RAW)))
    expected = example()
    assert np.array_equal(batch.observations.numpy(), expected["observations"])
    assert np.array_equal(batch.next_observations.numpy(), expected["next_observations"])
    assert batch.actions.squeeze(-1).tolist() == pytest.approx([-ACTION_LIMIT, -0.5, 0, 0.5, ACTION_LIMIT])
    assert batch.rewards.tolist() == [1, 2, 3, 4, 5]


def test_only_terminations_cut_a_packed_truncation_is_a_zero(table: pa.Table):
    """Row 2 terminates, row 4 is cut by a time limit and goes on to bootstrap."""
    batch = RowLayout(observation_dim=2, action_dim=1).split(torch.from_numpy(pack(table, RAW)))
    assert table.column("truncations").to_pylist() == [False, False, False, False, True]
    assert batch.terminations.tolist() == [0, 0, 1, 0, 0]


def test_packing_applies_the_transforms(table: pa.Table):
    """Rewards times 2 less 1; observations less (1, 10), over (2, 5); actions of [-2, 2] halved."""
    transforms = Transforms(
        reward_scale=2.0,
        reward_shift=-1.0,
        observation_mean=(1.0, 10.0),
        observation_std=(2.0, 5.0),
        action_low=(-2.0,),
        action_high=(2.0,),
    )
    batch = RowLayout(observation_dim=2, action_dim=1).split(torch.from_numpy(pack(table, transforms)))
    assert batch.rewards.tolist() == [1, 3, 5, 7, 9]
    assert batch.observations[2].tolist() == [0.5, 2.0]
    assert batch.next_observations[2].tolist() == [1.0, 4.0]
    assert batch.actions[:, 0].tolist() == [-0.5, -0.25, 0, 0.25, 0.5]


def test_packed_rows_are_float32_of_the_layouts_width(table: pa.Table):
    packed = pack(table, RAW)
    layout = RowLayout.of(SPACES)
    assert (packed.shape, packed.dtype) == ((5, layout.width), np.float32)
    assert layout.width == 7


def test_next_actions_come_last_where_the_layout_has_them(table: pa.Table):
    """Each row is given ten times its number as next action; row 2 terminates, so its is not kept."""
    layout = RowLayout.of(SPACES, has_next_actions=True)
    packed = pack(table, Transforms(), 10 * np.arange(5, dtype=np.float32)[:, None])
    batch = layout.split(torch.from_numpy(packed))
    assert batch.next_actions is not None
    assert batch.next_actions.tolist() == [[0], [10], [0], [30], [40]]
    assert np.array_equal(packed[:, :-1], pack(table, Transforms()))
    assert packed.shape == (5, layout.width)
    assert batch.terminations.tolist() == [0, 0, 1, 0, 0]
    assert np.array_equal(batch.next_observations.numpy(), example()["next_observations"])


def test_without_them_a_batch_has_no_next_actions():
    assert LAYOUT.split(numbered_rows(3)).next_actions is None


def test_no_rows_pack_into_no_rows(table: pa.Table):
    """A block of which a selection keeps nothing."""
    assert pack(table.slice(0, 0), RAW).shape == (0, 7)


def test_splitting_copies_nothing():
    rows = numbered_rows(3)
    LAYOUT.split(rows).rewards[1] = 9.0
    assert rows[1].tolist() == [1, 1, 9, 1, 1]


def test_every_row_is_drawn_equally_often():
    """100,000 draws of 50 rows: 2,000 each, give or take 45; five deviations are 12%."""
    sampler = sampler_of(50, batch_size=1000)
    counts = torch.stack([next(sampler).rewards for _ in range(100)]).long().flatten().bincount(minlength=50)
    assert int(counts.sum()) == 100_000
    assert 1760 < int(counts.min()) <= int(counts.max()) < 2240


def test_the_parts_of_a_transition_stay_together():
    batch = next(sampler_of())
    assert torch.equal(batch.observations.squeeze(-1), batch.rewards)
    assert torch.equal(batch.next_observations.squeeze(-1), batch.terminations)


def test_the_stream_follows_from_seed_and_rank():
    first = drawn(sampler_of())
    assert drawn(sampler_of()) == first
    assert drawn(sampler_of(seeds=(1,))) != first
    assert drawn(sampler_of(rank=1)) != first


def test_no_generator_but_its_own_is_touched():
    before = torch.get_rng_state()
    next(sampler_of())
    assert torch.equal(torch.get_rng_state(), before)


def test_each_seed_of_a_population_draws_as_it_would_alone():
    both = next(sampler_of(seeds=(3, 8)))
    assert both.rewards.shape == (2, 20)
    assert both.observations.shape == (2, 20, 1)
    for index, seed in enumerate((3, 8)):
        assert torch.equal(both.rewards[index], next(sampler_of(seeds=(seed,))).rewards)


def test_a_loaded_state_continues_the_stream():
    sampler = sampler_of(seeds=(0, 1))
    next(sampler)
    states = {name: state.clone() for name, state in sampler.random_states().items()}
    expected = drawn(sampler)
    other = sampler_of(seeds=(5, 6), rank=2)
    other.load(states)
    assert drawn(other) == expected


@pytest.mark.parametrize("shape", [(0, 5), (3, 4), (5,)])
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"packed rows have shape .*, expected \(rows > 0, 5\)"):
        UniformSampler(torch.zeros(shape), LAYOUT, 4, (0,), 0)
