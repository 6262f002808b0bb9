"""When a run's update is compiled."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import pytest

from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.distributed.compiling import MIN_UPDATES, check_compile, resolved_compile
from iql_ray.distributed.train_config import TrainConfig

LONG = TrainConfig(dataset="data", num_updates=MIN_UPDATES)
DROPOUT = IQLConfig(dropout_rate=0.1)


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/g++")


@pytest.mark.parametrize(
    ("config", "device", "resolved"),
    [
        (LONG, "cpu", "on"),
        (LONG, "cuda", "off"),
        (replace(LONG, num_updates=MIN_UPDATES - 1), "cpu", "off"),
        (replace(LONG, num_learners=2), "cpu", "off"),
        (replace(LONG, num_learners=2, average_every=10), "cpu", "on"),
        (replace(LONG, num_learners=2, compile="on"), "cpu", "on"),
        (replace(LONG, num_learners=2, precision="bf16"), "cpu", "on"),
        (replace(LONG, agent=DROPOUT), "cpu", "on"),
        (replace(LONG, compile="off"), "cpu", "off"),
        (replace(LONG, num_updates=1, compile="on"), "cuda", "on"),
        (replace(LONG, num_updates=1, precision="bf16"), "cpu", "on"),
        (replace(LONG, compile="captured", precision="tf32"), "cuda", "captured"),
    ],
)
def test_auto_compiles_where_it_pays_and_nothing_stands_against_it(config: TrainConfig, device: str, resolved: str):
    assert resolved_compile(config, device) == resolved


def test_without_a_compiler_auto_runs_plain_and_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert resolved_compile(LONG, "cpu") == "off"
    check_compile(LONG)
    for asked in (replace(LONG, compile="on"), replace(LONG, precision="bf16")):
        with pytest.raises(ValueError, match=r"no C\+\+ compiler"):
            check_compile(asked)


def test_rounded_products_need_a_compiled_update() -> None:
    with pytest.raises(ValueError, match="precision bf16 is of compiled updates, and compile is off"):
        replace(LONG, precision="bf16", compile="off")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"compile": "captured"},
            "compile = captured: only GPUs have that, and this run computes on the CPU; use",
        ),
        ({"precision": "tf32"}, "precision = tf32: only GPUs have that, .* use --precision bf16, or --device cuda"),
    ],
)
def test_what_only_gpus_have_is_refused_on_a_cpu(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolved_compile(replace(LONG, **changes), "cpu")


def test_updates_that_average_gradients_are_not_captured() -> None:
    with pytest.raises(ValueError, match="compile = captured with num_learners = 2: learners that average gradients"):
        replace(LONG, compile="captured", num_learners=2)
    assert replace(LONG, compile="captured", num_learners=2, average_every=10).is_compiled
