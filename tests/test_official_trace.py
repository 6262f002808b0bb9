"""Our update against a trace of the authors' own code, through the benchmark that replays it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.official_trace import main, replay

TRACE = Path(__file__).parent / "data_files" / "official_iql_trace.npz"
EXPECTILE, TARGET_RATE, COSINE_LENGTH = 0, 3, 5
"""Places in `hyper`."""


@pytest.fixture
def trace() -> dict[str, np.ndarray]:
    return dict(np.load(TRACE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fifty_updates_are_the_authors(trace: dict[str, np.ndarray], dtype: torch.dtype):
    errors = replay(trace, dtype)
    assert errors["tensors"] < 1e-4
    assert errors["losses"] < 1e-4
    assert errors["max_relative_error"] == max(errors["tensors"], errors["losses"])


@pytest.mark.parametrize(("place", "value"), [(EXPECTILE, 0.6), (TARGET_RATE, 0.006), (COSINE_LENGTH, 0.0)])
def test_a_different_algorithm_would_be_noticed(trace: dict[str, np.ndarray], place: int, value: float):
    trace["hyper"] = trace["hyper"].copy()
    trace["hyper"][place] = value
    assert replay(trace)["max_relative_error"] > 1e-3


def test_batches_in_another_order_would_be_noticed(trace: dict[str, np.ndarray]):
    reversed_batches = {name: value[::-1].copy() for name, value in trace.items() if name.startswith("batch/")}
    assert replay({**trace, **reversed_batches})["max_relative_error"] > 1e-3


def test_a_bootstrap_over_terminations_would_be_noticed(trace: dict[str, np.ndarray]):
    assert (trace["batch/masks"] == 0).any()
    assert replay({**trace, "batch/masks": np.ones_like(trace["batch/masks"])})["max_relative_error"] > 1e-3


def test_the_benchmark_prints_the_error_as_its_last_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    import json

    monkeypatch.setattr("sys.argv", ["official_trace.py", str(TRACE)])
    assert main() == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["max_relative_error"] < 1e-4
    assert result["trace"] == "official_iql_trace.npz"
