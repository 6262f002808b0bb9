"""What --dry-run says of a search."""

from __future__ import annotations

from pathlib import Path

import pytest

from iql_ray.distributed import search_estimate
from iql_ray.distributed.roles import Node
from iql_ray.distributed.search_checking import check_search
from iql_ray.distributed.search_estimate import estimate, in_words, num_slots
from tests.distributed.examples import search_config, tiny_dataset


def nodes(**resources: float) -> list[Node]:
    return [Node(address="here", total=resources, free=resources)]


def test_a_dry_run_counts_trials_members_bytes_and_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = search_config(tiny_dataset(tmp_path), tmp_path / "runs", members_per_trial=None, num_updates=3600)
    monkeypatch.setattr(search_estimate, "measured_rate", lambda *_: 10.0)
    found = estimate(check_search(config), nodes(CPU=2.0))
    assert (found["num_trials"], found["num_members"], found["members_per_trial"]) == (2, 8, 4)
    assert found["num_concurrent_trials"] == 2
    assert found["hours"] == pytest.approx(0.1), "3600 updates at 10 a second, both trials at a time"
    assert found["data_gigabytes"] == pytest.approx(120 * 7 * 4 / 2**30), "two observations, action, reward, two, end"
    assert estimate(check_search(config), nodes(CPU=1.0))["num_trials"] == 1, "nothing is gained by more on one CPU"
    assert found["trial_gigabytes"] == pytest.approx(0.494, abs=0.001), "next to nothing but a process"
    words = in_words(found)
    assert "about 0.49 GB a trial" in words
    assert "2 trials of up to 4 members, 8 in all; 2 trials at a time" in words
    assert "about 6 minutes" in words
    assert "2 trials (CPU 1): 2 at here" in words
    assert not (tmp_path / "runs").exists()


def test_its_rate_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = search_config(tiny_dataset(tmp_path), tmp_path / "runs", num_updates=100)
    clock = iter([100.0, 103.0])
    monkeypatch.setattr(search_estimate.time, "perf_counter", lambda: next(clock))
    assert estimate(check_search(config), nodes(CPU=1.0))["updates_per_second"] == search_estimate.NUM_MEASURED / 3


def test_extraction_alone_learns_no_critics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search_estimate, "measured_rate", lambda *_: 10.0)
    config = search_config(tiny_dataset(tmp_path), tmp_path / "runs", num_updates=100, extract="after")
    assert estimate(check_search(config), nodes(CPU=1.0))["updates_per_trial"] == 200


@pytest.mark.parametrize(
    ("changes", "device", "resources", "slots"),
    [
        ({}, "cpu", {"CPU": 4.0}, 4),
        ({"cpus_per_learner": 3}, "cpu", {"CPU": 4.0}, 1),
        ({"max_concurrent_trials": 2}, "cpu", {"CPU": 4.0}, 2),
        ({"gpus_per_trial": 0.25}, "cuda", {"CPU": 16.0, "GPU": 2.0}, 8),
        ({}, "cpu", {}, 1),
    ],
)
def test_trials_run_side_by_side_as_there_is_room(
    tmp_path: Path, changes: dict, device: str, resources: dict[str, float], slots: int
):
    assert num_slots(search_config(tiny_dataset(tmp_path), tmp_path, **changes), device, nodes(**resources)) == slots
