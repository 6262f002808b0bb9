"""The files that deploy a cluster, read for their tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
LAUNCHER_FILES = ("cluster.yaml", "deploy/gcp.yaml", "deploy/on_premises.yaml")
CLOUD_FILES = LAUNCHER_FILES[:2]
KUBERAY_FILES = ("deploy/kuberay/ray_cluster.yaml", "deploy/kuberay/ray_job.yaml")

FAKE_RAY = f"""#!/bin/bash
{sys.executable} -Sc 'import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))' "$@" >> "$HOME/calls"
"""


def launcher(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / name).read_text()))


def ray_cluster() -> dict[str, Any]:
    """The specification of the RayCluster."""
    (spec,) = (each["spec"] for each in manifests(KUBERAY_FILES[0]) if each["kind"] == "RayCluster")
    return spec


def calls_of_ray(commands: list[str], home: Path) -> list[tuple[list[str], dict[str, str]]]:
    """Run a node's commands as Ray's launcher does, by bash, where `ray` only notes what it is called with.

    Args:
        home: of the node; what is mounted of this repository is put there.

    Returns:
        For each call the words after `ray`, and the environment.
    """
    programs = home / ".iql_ray_venv/bin"
    programs.mkdir(parents=True, exist_ok=True)
    (programs / "ray").write_text(FAKE_RAY)
    (programs / "ray").chmod(0o755)
    (home / "iql_ray").mkdir(exist_ok=True)
    if not (home / "iql_ray/deploy").exists():
        (home / "iql_ray/deploy").symlink_to(DEPLOY)
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "RAY_HEAD_IP": "10.0.0.1"}
    for command in commands:
        subprocess.run(["bash", "-c", command], env=environment, cwd=home, check=True)
    return [tuple(json.loads(line)) for line in (home / "calls").read_text().splitlines()]


def container_ports(group: dict[str, Any]) -> dict[str, int]:
    """Ports of a group's one container, by name."""
    (container,) = group["template"]["spec"]["containers"]
    return {port["name"]: port["containerPort"] for port in container["ports"]}
