"""A compiled update gives what the plain one gives, on the same tensors."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from iql_ray.algorithm import compiled_update
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.compiled_update import check_compilable
from iql_ray.algorithm.iql_config import IQLConfig, Population
from iql_ray.experience import Spaces
from tests.algorithm.plain_iql import SPACES, random_batch

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler warns about torch itself
SMALL = IQLConfig(hidden_sizes=(24, 24), learning_rate=1e-2, target_update_rate=0.1)
DROPOUT = replace(SMALL, dropout_rate=0.3)
GRID = Population(seeds=(0, 7), expectiles=(0.6, 0.9), inverse_temperatures=(1.0, 5.0))
DISCRETE = Spaces(observation_dim=3, action_dim=1, num_actions=4)
TD = Population(seeds=(0,), expectiles=(0.7, 0.9), inverse_temperatures=(3.0,), critics=("td", "implicit"))
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, compiled_update.COMPILERS)), reason="needs a C++ compiler on PATH"
)


def agent_of(
    population: Population | None = None,
    spaces: Spaces = SPACES,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> IQLAgent:
    config = options.pop("config", SMALL)
    return IQLAgent(config, spaces, population=population, num_updates=10, dtype=dtype, **options)


def updated(agent: IQLAgent, first: int, stop: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """The metrics of the last of these updates."""
    metrics: dict[str, Tensor] = {}
    for index in range(first, stop):
        batch = random_batch(index, dtype=dtype)
        if agent.spaces.is_discrete:
            choices = torch.randint(4, (16, 1), generator=torch.Generator().manual_seed(index))
            batch = replace(batch, actions=choices.to(dtype))
        metrics = agent.update(batch)
    return metrics


def assert_alike(compiled: IQLAgent, plain: IQLAgent, num_updates: int) -> None:
    """Both after the same updates."""
    expected, metrics = updated(plain, 0, num_updates), updated(compiled, 0, num_updates)
    assert list(expected) == list(metrics)
    for name, value in expected.items():
        torch.testing.assert_close(metrics[name], value, rtol=1e-9, atol=1e-12)
    for name, value in plain.tensors().items():
        torch.testing.assert_close(compiled.tensors()[name], value, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(value, compiled.random_states()[name]) for name, value in plain.random_states().items())


@needs_compiler
@pytest.mark.parametrize(
    ("population", "spaces"), [(None, SPACES), (GRID, SPACES), (TD, DISCRETE)], ids=["one run", "grid", "discrete"]
)
def test_compiled_and_plain_updates_give_the_same(population: Population | None, spaces: Spaces) -> None:
    assert_alike(agent_of(population, spaces, is_compiled=True), agent_of(population, spaces), 6)


class Partner:
    """Another learner's gradients: a mean that is not one's own, and what it was asked for."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def average(self, gradients: Tensor) -> None:
        self.sizes.append(len(gradients))
        gradients.lerp_(torch.linspace(-1, 1, len(gradients), dtype=gradients.dtype), 0.5)


@needs_compiler
@pytest.mark.parametrize("learns", ["everything", "critics", "policies"])
def test_learners_average_the_same_gradients_at_the_same_places_compiled_or_plain(learns: str) -> None:
    """So that even learners of both kinds can go together; with dropout, which critics alone draw no masks for."""
    one, two = Partner(), Partner()
    options: dict[str, Any] = {"config": DROPOUT, "learns": learns}
    plain = agent_of(GRID, average_gradients=one.average, **options)
    assert_alike(agent_of(GRID, average_gradients=two.average, is_compiled=True, **options), plain, 6)
    assert one.sizes == two.sizes
    assert len(one.sizes) == (6 if learns == "policies" else 12)


@needs_compiler
def test_dropped_units_are_the_same_compiled_or_plain() -> None:
    assert_alike(agent_of(GRID, config=DROPOUT, is_compiled=True), agent_of(GRID, config=DROPOUT), 6)


@needs_compiler
def test_a_compiled_agent_continues_exactly_where_it_was_saved() -> None:
    options: dict[str, Any] = {"is_compiled": True, "config": DROPOUT, "average_gradients": Partner().average}
    whole, first, second = (agent_of(**options) for _ in range(3))
    updated(whole, 0, 6)
    updated(first, 0, 3)
    second.load({name: value.clone() for name, value in first.tensors().items()}, first.random_states(), 3)
    updated(second, 3, 6)
    assert all(torch.equal(value, second.tensors()[name]) for name, value in whole.tensors().items())


@needs_compiler
def test_a_compiler_that_fails_leaves_a_plain_update_and_a_warning() -> None:
    """Nothing was averaged and no mask drawn in vain."""
    from torch._inductor import config as inductor

    options: dict[str, Any] = {"config": DROPOUT, "average_gradients": Partner().average}
    plain, failing = (agent_of(dtype=torch.float32, is_compiled=each, **options) for each in (False, True))
    message = "the update could not be compiled and runs plain: .*InvalidCxxCompiler"
    with inductor.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.warns(RuntimeWarning, match=message):
        updated(failing, 0, 1, torch.float32)
    updated(plain, 0, 3, torch.float32)
    updated(failing, 1, 3, torch.float32)
    assert all(torch.equal(value, failing.tensors()[name]) for name, value in plain.tensors().items())


@needs_compiler
def test_bf16_rounds_products_alone() -> None:
    """Eight bits of precision: 0.4% in every factor, and parameters stay float32."""
    exact = agent_of(dtype=torch.float32)
    rounded = agent_of(dtype=torch.float32, is_compiled=True, precision="bf16")
    expected, metrics = updated(exact, 0, 1, torch.float32), updated(rounded, 0, 1, torch.float32)
    for name in ("value_loss", "critic_loss", "policy_loss"):
        torch.testing.assert_close(metrics[name], expected[name], rtol=0.05, atol=0.0)
        assert not torch.equal(metrics[name], expected[name])
    assert all(value.dtype == torch.float32 for value in rounded.tensors().values())


def test_without_a_compiler_there_is_nothing_to_compile_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"no C\+\+ compiler on PATH \(g\+\+, clang\+\+, c\+\+\); use --compile off"):
        check_compilable()


def test_products_of_the_plain_update_are_never_rounded() -> None:
    with pytest.raises(ValueError, match="precision bf16 is of compiled updates"):
        agent_of(precision="bf16")
