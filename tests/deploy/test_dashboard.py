"""The dashboard shows what exists: every query's metric is one of ours, or one that Ray's own dashboards ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray.dashboard.modules.metrics as ray_metrics
import yaml
from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

from iql_ray.distributed import metrics
from tests.deploy.files import DEPLOY, container_ports, ray_cluster

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/iql_ray.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
METRIC = re.compile(r"\bray_[a-z_]+\b")


def queries() -> Iterator[str]:
    """Of panels and of the variables to choose from."""
    yield from (target["expr"] for panel in PANELS for target in panel["targets"])
    yield from (each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query")


def asked_for() -> set[str]:
    return {name for query in queries() for name in METRIC.findall(query)}


def of_rays_dashboards() -> set[str]:
    folder = Path(str(ray_metrics.__file__)).parent / "dashboards"
    return set(METRIC.findall("\n".join(path.read_text() for path in folder.glob("*.py"))))


def test_every_metric_of_a_query_exists():
    ours = {f"ray_{name}" for name in metrics.NAMES}
    assert asked_for() - ours <= of_rays_dashboards()


def test_every_metric_of_ours_is_shown():
    assert {f"ray_{name}" for name in metrics.NAMES} <= asked_for()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panels_ask_the_chosen_source_and_lie_apart(panel):
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
        assert target["expr"].count("(") == target["expr"].count(")")
    mine = _cells(panel)
    assert not any(mine & _cells(other) for other in DASHBOARD["panels"] if other["id"] != panel["id"])


def test_prometheus_reads_the_list_of_nodes_that_the_head_writes():
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    (listed,) = job["file_sd_configs"][0]["files"]
    assert listed == f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"


def test_in_kubernetes_prometheus_finds_the_port_that_pods_name():
    config = yaml.safe_load((DEPLOY / "prometheus/kubernetes.yaml").read_text())
    keep = config["scrape_configs"][0]["relabel_configs"][0]
    spec = ray_cluster()
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        name = keep["regex"].split(";")[1]
        assert container_ports(group)[name] == int(group["rayStartParams"]["metrics-export-port"])


def _cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    place = panel["gridPos"]
    columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
    return {(column, row) for column in columns for row in rows}
