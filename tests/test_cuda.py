"""On a GPU: the same numbers as on a CPU, and the same exact resume. Skipped where there is none (conftest.py)."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from iql_ray import checkpoint
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.data.packed import RowLayout, UniformSampler
from iql_ray.distributed.learner import Learner, RunPlan, train
from iql_ray.experience import Spaces, TransitionBatch
from tests.distributed.examples import Notes, all_rows, copied, different, plan_of, tiny_dataset, train_config

pytestmark = pytest.mark.gpu

CUDA = "cuda"
SPACES = Spaces(observation_dim=3, action_dim=2, action_low=(-1.0, -1.0), action_high=(1.0, 1.0))
LAYOUT = RowLayout.of(SPACES)
NUM_UPDATES, BATCH_SIZE = 20, 64


def random_rows(num_rows: int) -> Tensor:
    """Packed transitions of noise, no terminations, on the CPU."""
    rows = torch.randn(num_rows, LAYOUT.width, generator=torch.Generator().manual_seed(0))
    rows[:, 3:5].clamp_(-1, 1)
    rows[:, -1] = 0
    return rows


def moved(batch: TransitionBatch, device: str) -> TransitionBatch:
    return TransitionBatch(**{name: value.to(device) for name, value in vars(batch).items()})


def trained_on(device: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """An agent's tensors before and after the same updates, on the CPU."""
    agent = IQLAgent(IQLConfig(hidden_sizes=(32, 32)), SPACES, num_updates=NUM_UPDATES, device=device)
    before = copied(agent.tensors())
    for rows in random_rows(NUM_UPDATES * BATCH_SIZE).split(BATCH_SIZE):
        agent.update(moved(LAYOUT.split(rows), device))
    after = agent.tensors()
    assert {value.device.type for value in after.values()} == {torch.device(device).type}
    return tuple({name: value.detach().cpu() for name, value in state.items()} for state in (before, after))  # pyright: ignore


def test_twenty_updates_on_a_gpu_are_those_on_a_cpu():
    (initial, on_cpu), (initial_on_gpu, on_gpu) = trained_on("cpu"), trained_on(CUDA)
    assert different(initial_on_gpu, initial) == []
    for name, expected in on_cpu.items():
        torch.testing.assert_close(
            on_gpu[name], expected, rtol=0, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert (on_cpu["policy.0.weight"] - initial["policy.0.weight"]).abs().max() > 1e-3


def drawn(sampler: UniformSampler, num_batches: int) -> list[list[float]]:
    """Batches as lists of their rewards."""
    return [batch.rewards.tolist() for batch in islice(sampler, num_batches)]


def test_a_sampler_on_a_gpu_continues_its_stream_where_its_states_were_taken():
    rows = random_rows(1000).to(CUDA)
    first, second = (UniformSampler(rows, LAYOUT, 8, seeds=(seed,), rank=0) for seed in (0, 1))
    begun = drawn(first, 3)
    states = first.random_states()
    expected = drawn(first, 5)
    second.load({name: state.clone().cpu() for name, state in states.items()})
    assert next(first).rewards.device.type == CUDA
    assert drawn(second, 5) == expected
    assert begun != expected[:3]


def learner_on_gpu(plan: RunPlan) -> Learner:
    rows = torch.from_numpy(all_rows(Path(plan.config.dataset), plan.transforms)).to(CUDA)
    return Learner(plan, rows, 0, None)


def test_a_learner_on_a_gpu_restored_from_ten_ends_as_the_one_that_saved_it(tmp_path: Path):
    """With dropout, so that all generators of the device must come back as well."""
    agent = IQLConfig(hidden_sizes=(8, 8), dropout_rate=0.3)
    plan = plan_of(train_config(tiny_dataset(tmp_path), agent=agent, device="cuda"), tmp_path / "run")
    whole, resumed = learner_on_gpu(plan), learner_on_gpu(plan)
    train(whole, whole.sampler, Notes())
    resumed.restore(checkpoint.load(plan.run_folder, 10))
    assert resumed.agent.update_count == 10
    assert different(resumed.agent.tensors(), whole.agent.tensors()) != []
    train(resumed, resumed.sampler, Notes())
    assert different(resumed.agent.tensors(), whole.agent.tensors()) == []
    assert different(resumed.random_states(), whole.random_states()) == []
