"""What a trial takes beside its data, counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.data.prepared import read_manifest
from iql_ray.distributed.trial_memory import COMPILED_BYTES, PROCESS_BYTES, num_parameters, trial_bytes
from tests.distributed.examples import tiny_dataset, train_config


def test_parameters_of_layers_are_weights_and_biases():
    assert num_parameters((2, 8, 1)) == 2 * 8 + 8 + 8 + 1


def test_a_trial_takes_its_process_its_networks_and_the_batches_that_go_through_them(tmp_path: Path):
    dataset = tiny_dataset(tmp_path)
    spaces = read_manifest(dataset).spaces

    def beside_process(**changes: Any) -> float:
        config = train_config(dataset, agent=IQLConfig(hidden_sizes=(8,)), **changes)
        return trial_bytes(config, spaces) - PROCESS_BYTES

    value, twin, policy, batch = 33, 41, 33, 16 * 8
    critic = 4 * value + 2 * 5 * twin
    assert beside_process() == 4 * (critic + 4 * policy + (6 + 1) * batch)
    grid = beside_process(seeds=(0, 1), inverse_temperatures=(1.0, 2.0, 3.0))
    assert grid == 4 * (2 * critic + 6 * 4 * policy + (2 * 6 + 6) * batch), "two critics, six policies"
    assert beside_process(compile="on") - beside_process() == pytest.approx(COMPILED_BYTES)
