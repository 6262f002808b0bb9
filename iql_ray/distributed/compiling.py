"""Is a training run's update to be compiled? Decided once, before anything starts, and saved with the run."""

from __future__ import annotations

from iql_ray.algorithm.compiled_update import check_compilable
from iql_ray.distributed.train_config import Compile, TrainConfig

MIN_UPDATES = 20_000
"""Compiling takes as long as a few thousand updates, and saves a tenth of each. Of several learners that average
gradients it saves nothing in float32: their update is three graphs of half the work."""


def check_compile(config: TrainConfig) -> None:
    """Refuse a run that asks to be compiled and cannot be.

    Raises:
        ValueError: says what stands against it.
    """
    if config.is_compiled or config.precision == "bf16":
        check_compilable()


def resolved_compile(config: TrainConfig, device: str) -> Compile:
    """What auto comes to.

    Args:
        device: cpu or cuda.

    Raises:
        ValueError: what only a GPU has was asked for on a CPU.
    """
    _check_device(config, device)
    if config.compile != "auto":
        return config.compile
    if config.precision == "bf16":
        return "on"
    if device != "cpu" or config.num_updates < MIN_UPDATES or config.averages_gradients:
        return "off"
    try:
        check_compilable()
    except ValueError:
        return "off"
    return "on"


def _check_device(config: TrainConfig, device: str) -> None:
    asked = {"compile": (config.compile, "captured", "on"), "precision": (config.precision, "tf32", "bf16")}
    for name, (value, of_gpus, instead) in asked.items():
        if value == of_gpus and device != "cuda":
            raise ValueError(
                f"{name} = {value}: only GPUs have that, and this run computes on the {device.upper()}; "
                f"use --{name} {instead}, or --device cuda on a cluster with GPUs"
            )
