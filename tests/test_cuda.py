"""On a GPU: the same numbers as on a CPU, and the same exact resume. Skipped where there is none (conftest.py)."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from iql_ray import checkpoint
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import IQLConfig, Population
from iql_ray.data.packed import RowLayout, UniformSampler
from iql_ray.distributed.learner import Learner, RunPlan, train
from iql_ray.distributed.updates import Updates
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
    return batch.map(lambda tensor: tensor.to(device))


def trained_on(device: str, is_compiled: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """An agent's tensors before and after the same updates, on the CPU."""
    config = IQLConfig(hidden_sizes=(32, 32))
    agent = IQLAgent(config, SPACES, num_updates=NUM_UPDATES, device=device, is_compiled=is_compiled)
    before = on_cpu(agent)
    for rows in random_rows(NUM_UPDATES * BATCH_SIZE).split(BATCH_SIZE):
        agent.update(moved(LAYOUT.split(rows), device))
    return before, on_cpu(agent)


def on_cpu(agent: IQLAgent) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in copied(agent.tensors()).items()}


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler warns about torch itself
def test_twenty_updates_on_a_gpu_are_those_on_a_cpu(is_compiled: bool):
    initial, expected = trained_on("cpu")
    initial_on_gpu, actual = trained_on(CUDA, is_compiled)
    assert different(initial_on_gpu, initial) == []
    assert (expected["policy.0.weight"] - initial["policy.0.weight"]).abs().max() > 1e-3
    distances = {name: (actual[name] - value).abs().max().item() for name, value in expected.items()}
    assert {name: distance for name, distance in distances.items() if distance > 1e-4} == {}


def drawn(sampler: UniformSampler, num_batches: int) -> list[list[float]]:
    """Batches as lists of their rewards."""
    return [batch.rewards.tolist() for batch in islice(sampler, num_batches)]


def test_a_sampler_on_a_gpu_continues_its_stream_where_its_states_were_taken():
    rows = random_rows(1000).to(CUDA)
    first, second = (UniformSampler(rows, LAYOUT, 8, seeds=(seed,), rank=0) for seed in (0, 1))
    begun = drawn(first, 3)
    states = first.random_states()
    expected = drawn(first, 5)
    second.load(states)
    assert next(first).rewards.device.type == CUDA
    assert drawn(second, 5) == expected
    assert begun != expected[:3]


def learner_on_gpu(plan: RunPlan) -> Learner:
    rows = torch.from_numpy(all_rows(Path(plan.config.dataset), plan.transforms)).to(CUDA)
    return Learner(plan, rows, 0, None)


@pytest.mark.parametrize("compiles", ["off", "on", "captured"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_learner_on_a_gpu_restored_from_thirty_ends_as_the_one_that_saved_it(tmp_path: Path, compiles: str):
    """With dropout, so that all generators of the device must come back as well."""
    agent = IQLConfig(hidden_sizes=(8, 8), dropout_rate=0.3)
    intervals = {"num_updates": 60, "log_interval_updates": 15, "checkpoint_interval_updates": 30}
    config = train_config(tiny_dataset(tmp_path), agent=agent, device="cuda", compile=compiles, **intervals)
    plan = plan_of(config, tmp_path / "run")
    whole, resumed = learner_on_gpu(plan), learner_on_gpu(plan)
    train(whole, whole.sampler, Notes())
    resumed.restore(checkpoint.load(plan.run_folder, 30))
    assert resumed.agent.update_count == 30
    assert different(resumed.agent.tensors(), whole.agent.tensors()) != []
    train(resumed, resumed.sampler, Notes())
    assert different(resumed.agent.tensors(), whole.agent.tensors()) == []
    assert different(resumed.random_states(), whole.random_states()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_captured_updates_on_a_gpu_are_compiled_ones():
    """With dropout, two seeds and the cosine schedule: all numbers, and where the generators stand."""
    config = IQLConfig(hidden_sizes=(32, 32), dropout_rate=0.3)
    population = replace(Population.of_one(config, 0), seeds=(0, 7))
    agents = [
        IQLAgent(config, SPACES, population=population, num_updates=50, device=CUDA, is_compiled=True) for _ in range(2)
    ]
    samplers = [UniformSampler(random_rows(1000).to(CUDA), LAYOUT, BATCH_SIZE, (0, 7), rank=0) for _ in range(2)]
    all_updates = [Updates(*each, is_captured=each[0] is agents[1]) for each in zip(agents, samplers, strict=True)]
    for agent, updates in zip(agents, all_updates, strict=True):
        while agent.update_count < 50:
            updates.run(50 - agent.update_count)
    one_by_one, captured = agents
    assert different(captured.tensors(), one_by_one.tensors()) == []
    assert different(captured.random_states(), one_by_one.random_states()) == []
    assert different(samplers[1].random_states(), samplers[0].random_states()) == []
    assert all_updates[1].means.take_by_member() == all_updates[0].means.take_by_member()
