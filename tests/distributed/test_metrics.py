"""Gauges: which numbers of a run and of a search they show, and that Ray's agent exports them."""

from __future__ import annotations

import re
import time
import urllib.request
from typing import Any

import pytest
import ray

from iql_ray.distributed import metrics
from iql_ray.distributed.metrics import RunGauges, SearchGauges
from iql_ray.tracking.spool import SPOOL_FILE, Spool, bytes_waiting

EXPORT_TIMEOUT_SECONDS = 60.0
"""Ray's processes report every 10 s."""


class FakeGauge:
    """Keeps what it is set to, by name and run."""

    shown: dict[tuple[str, str], float]

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        assert description
        self.name, self.tag_keys = name, tag_keys

    def set_default_tags(self, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.tag_keys)
        self.run = tags["run"]

    def set(self, value: float) -> None:
        self.shown[self.name, self.run] = value


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], float]:
    FakeGauge.shown = {}
    monkeypatch.setattr(metrics, "Gauge", FakeGauge)
    return FakeGauge.shown


def test_a_point_of_the_curves_is_shown_and_what_it_does_not_speak_of_stays(shown):
    gauges = RunGauges("run-1", "experiment")
    gauges.record(1000, {"time/updates_per_second": 250.0, "train/value_loss": 0.5}, 12)
    gauges.record(2000, {"train/value_loss": 0.4}, 0)
    assert shown["iql_ray_updates_per_second", "run-1"] == 250.0
    assert shown["iql_ray_step", "run-1"] == 2000
    assert shown["iql_ray_spool_bytes", "run-1"] == 0
    assert time.time() - shown["iql_ray_recorded_timestamp_seconds", "run-1"] < 60
    assert len(shown) == 4


def test_a_point_of_fine_tuning_shows_steps_staleness_and_what_is_on_its_way(shown):
    point = {"time/env_steps_per_second": 40.0, "online/staleness_mean": 3.5, "online/num_pending_steps": 64}
    RunGauges("run-1", "experiment").record(500, point, 0)
    assert shown["iql_ray_env_steps_per_second", "run-1"] == 40.0
    assert shown["iql_ray_staleness_updates", "run-1"] == 3.5
    assert shown["iql_ray_pending_env_steps", "run-1"] == 64


def test_an_evaluation_is_the_same_with_its_return_shown(shown):
    results: list[dict[str, Any]] = [{"return_mean": 90.0, "returns": [80.0, 100.0]}, {"value_mean": 7.0}]
    shown_results = iter(results)
    evaluate = RunGauges("run-1", "experiment").follow(lambda policy: next(shown_results))
    assert evaluate is not None
    assert [evaluate("policy"), evaluate("policy")] == results
    assert shown == {("iql_ray_evaluation_return", "run-1"): 90.0}
    assert RunGauges("run-1", "experiment").follow(None) is None


def test_a_search_shows_its_trials_and_a_score_once_there_is_one(shown):
    gauges = SearchGauges("search-1", "experiment")
    counts = {"num_trials": 12, "num_finished": 3, "num_running": 2, "spool_bytes": 0}
    gauges.show(**counts, best_score=None)
    assert ("iql_ray_best_score", "search-1") not in shown
    gauges.show(**counts, best_score=-1.5)
    assert shown["iql_ray_best_score", "search-1"] == -1.5
    assert [shown[f"iql_ray_trials{each}", "search-1"] for each in ("", "_finished", "_running")] == [12, 3, 2]


def test_what_the_store_has_not_taken_is_counted_in_bytes(tmp_path):
    spool = Spool(tmp_path)
    spool.append("tags", values={"a": "b"})
    size = (tmp_path / SPOOL_FILE).stat().st_size
    assert bytes_waiting(tmp_path) == size > 0
    spool.advance(size)
    assert bytes_waiting(tmp_path) == 0
    spool.close()


def exported(name: str, run: str) -> float | None:
    """What Ray's agent on this node says of a gauge; None where it does not know it yet."""
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(rf'^ray_{name}{{[^}}]*run="{run}"[^}}]*}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else None


@pytest.mark.usefixtures("ray_session")
def test_rays_agent_exports_what_a_process_of_a_run_sets():
    @ray.remote(num_cpus=0)
    class Process:
        def show(self) -> None:
            self.gauges = RunGauges("exported-1", "experiment")
            self.gauges.record(3000, {"time/updates_per_second": 312.5}, 77)

    process: Any = Process.remote()
    ray.get(process.show.remote())
    deadline = time.monotonic() + EXPORT_TIMEOUT_SECONDS
    while exported("iql_ray_spool_bytes", "exported-1") is None:
        assert time.monotonic() < deadline, "Ray's agent exports nothing of ours"
        time.sleep(0.5)
    assert exported("iql_ray_updates_per_second", "exported-1") == 312.5
    assert exported("iql_ray_step", "exported-1") == 3000
    assert exported("iql_ray_spool_bytes", "exported-1") == 77
    ray.kill(process)
