"""Updates that a graph can hold: the same numbers as single ones, and the same launches whenever they are recorded.

There is no GPU here: what would be recorded is run as it stands, not compiled either, and every operation is looked at.
tests/test_cuda.py has the graphs themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from iql_ray.algorithm import compiled_update
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.captured_updates import NUM_CAPTURED, CapturedUpdates
from iql_ray.algorithm.iql_config import IQLConfig, Population
from iql_ray.data.packed import RowLayout, UniformSampler
from iql_ray.distributed.updates import NUM_WARM_UP, RunningMeans, Updates
from tests.algorithm.plain_iql import SPACES

LAYOUT = RowLayout.of(SPACES)
CONFIG = IQLConfig(hidden_sizes=(8, 8), learning_rate=1e-2, target_update_rate=0.1, dropout_rate=0.3)
GRID = Population(seeds=(0, 7), expectiles=(0.6, 0.9), inverse_temperatures=(1.0, 5.0))
NUM_UPDATES = NUM_WARM_UP + 3 * NUM_CAPTURED + 2
"""The schedules' length; the last two are single ones again."""


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled update step by step, so that its operations can be seen."""
    monkeypatch.setattr(torch, "compile", lambda stage, **options: stage)
    monkeypatch.setattr("iql_ray.algorithm.agent.check_compilable", lambda: None)


def agent_of(**options: Any) -> IQLAgent:
    return IQLAgent(CONFIG, SPACES, population=GRID, num_updates=NUM_UPDATES, is_compiled=True, **options)


def sampler_of() -> UniformSampler:
    rows = torch.randn(100, LAYOUT.width, generator=torch.Generator().manual_seed(0)).tanh()
    return UniformSampler(rows, LAYOUT, 16, GRID.seeds, rank=0)


def as_it_stands(record: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
    return record


def run_all(updates: Updates, agent: IQLAgent, num_updates: int = NUM_UPDATES) -> None:
    while agent.update_count < num_updates:
        updates.run(num_updates - agent.update_count)


@pytest.mark.parametrize("learns", ["everything", "critics", "policies"])
def test_captured_updates_are_single_ones(learns: str):
    """Bit for bit, with dropout, both schedules and two seeds' own minibatches; in the means of the metrics too."""
    single, several = (agent_of(learns=learns) for _ in range(2))
    one_by_one, captured = sampler_of(), sampler_of()
    updates = Updates(several, captured, is_captured=True, capture=as_it_stands)
    run_all(updates, several)
    means = RunningMeans()
    for _ in range(NUM_UPDATES):
        means.add(single.update(next(one_by_one)))
    assert all(torch.equal(value, several.tensors()[name]) for name, value in single.tensors().items())
    for one, other in ((single, several), (one_by_one, captured)):
        assert all(torch.equal(value, other.random_states()[name]) for name, value in one.random_states().items())
    assert updates.means.take_by_member() == means.take_by_member()


class Operations(TorchDispatchMode):
    """What is called while it is active: operations, arguments that are not tensors, and seeds of generators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, list[Any]]] = []
        self.seeds: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        plain = [each for each in (*args, *kwargs.values()) if not isinstance(each, Tensor | torch.Generator | list)]
        self.calls.append((str(func), plain))
        self.seeds |= {each.initial_seed() for each in kwargs.values() if isinstance(each, torch.Generator)}
        return func(*args, **kwargs)


@pytest.mark.parametrize("learns", ["everything", "policies"])
def test_what_is_recorded_holds_at_any_other_time(learns: str):
    """A number that a graph was recorded with is in it for good: none may depend on how many updates there were."""
    seen: list[Operations] = []

    def capture(record: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        def launch() -> None:
            with Operations() as operations:
                record()
            seen.append(operations)
            assert operations.seeds <= {generator.initial_seed() for generator in generators}

        return launch

    agent = agent_of(learns=learns)
    run_all(Updates(agent, sampler_of(), is_captured=True, capture=capture), agent)
    first, *others = seen
    assert len(others) == 2
    assert len(first.seeds) == 2 * len(GRID.seeds)
    names = {name for name, _ in first.calls}
    assert not {name for name in names if "_local_scalar_dense" in name or "lift_fresh" in name}, "the CPU is asked"
    assert all(other.calls == first.calls for other in others)


def test_single_updates_come_first_and_where_there_is_no_room():
    agent = agent_of()
    updates = Updates(agent, sampler_of(), is_captured=True, capture=as_it_stands)
    counts = []
    for at_most in (*[100] * (NUM_WARM_UP + 1), NUM_CAPTURED - 1, NUM_CAPTURED):
        updates.run(at_most)
        counts.append(agent.update_count)
    in_graphs = NUM_WARM_UP + NUM_CAPTURED
    assert counts == [*range(1, NUM_WARM_UP + 1), in_graphs, in_graphs + 1, in_graphs + 1 + NUM_CAPTURED]


def never(record: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
    raise AssertionError("this cannot be captured")


def test_what_a_graph_cannot_hold_is_updated_one_by_one():
    """Updates that average gradients, minibatches that come from elsewhere, and what was not asked to be captured."""
    averaging, streaming, plain = agent_of(average_gradients=lambda gradients: None), agent_of(), agent_of()
    batches = iter(sampler_of())
    elsewhere = (next(batches) for _ in range(NUM_UPDATES))
    for agent, source, is_captured in ((averaging, sampler_of(), True), (streaming, elsewhere, True),
                                       (plain, sampler_of(), False)):  # fmt: skip
        updates = Updates(agent, source, is_captured=is_captured, capture=never)
        for count in range(1, NUM_WARM_UP + 5):
            updates.run(NUM_CAPTURED)
            assert agent.update_count == count


def test_only_what_has_been_compiled_is_captured(monkeypatch: pytest.MonkeyPatch):
    """Where the compiler fails, updates run plain, and not in graphs."""
    monkeypatch.setattr(compiled_update.CompiledUpdate, "_try", lambda self, batch: False)
    agent = agent_of()
    run_all(Updates(agent, sampler_of(), is_captured=True, capture=never), agent)
    with pytest.raises(AssertionError, match="a graph holds what has been compiled"):
        CapturedUpdates(agent, sampler_of(), [], lambda metrics: None, never)
