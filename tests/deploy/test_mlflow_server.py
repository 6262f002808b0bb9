"""MLflow's server: what its script starts, and that compose and Kubernetes start that with nothing open."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.files import DEPLOY, manifests

FOLDER = DEPLOY / "mlflow"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SECRETS = ("POSTGRES_PASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")
PASSWORD = "abcdef0123456789"
NEEDED = {**dict.fromkeys(SECRETS, PASSWORD), "MLFLOW_ARTIFACTS": "s3://bucket/mlflow"}

FAKE_MLFLOW = f"""#!/bin/bash
cp "$MLFLOW_AUTH_CONFIG_PATH" "$HOME/auth.ini"
stat -c %a "$MLFLOW_AUTH_CONFIG_PATH" > "$HOME/mode"
{sys.executable} -Sc 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@" > "$HOME/words"
"""


def run(home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script with an `mlflow` that only notes what it is called with."""
    (home / "mlflow").write_text(FAKE_MLFLOW)
    (home / "mlflow").chmod(0o755)
    environment = {"HOME": str(home), "PATH": f"{home}:{os.environ['PATH']}", "TMPDIR": str(home), **environment}
    return subprocess.run(["bash", str(FOLDER / "server.sh")], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("missing", sorted(NEEDED))
def test_the_server_does_not_start_without_each_secret(missing, tmp_path):
    done = run(tmp_path, **{name: value for name, value in NEEDED.items() if name != missing})
    assert done.returncode != 0
    assert f"{missing}" in done.stderr
    assert "is not set" in done.stderr


def test_users_and_runs_are_in_postgresql_and_a_password_is_asked_for(tmp_path):
    assert run(tmp_path, **NEEDED).returncode == 0
    words = json.loads((tmp_path / "words").read_text())
    options = dict(zip(words[1::2], words[2::2], strict=True))
    database = f"postgresql+psycopg://mlflow:{PASSWORD}@postgresql:5432/mlflow"
    assert words[0] == "server"
    assert options["--app-name"] == "basic-auth"
    assert options["--backend-store-uri"] == database
    assert options["--artifacts-destination"] == "s3://bucket/mlflow"
    assert options["--host"] == "127.0.0.1"
    users = configparser.ConfigParser()
    users.read(tmp_path / "auth.ini")
    assert users["mlflow"]["database_uri"] == database
    assert "admin_password" not in users["mlflow"]  # MLflow takes it from the environment
    assert (tmp_path / "mode").read_text() == "600\n"


def test_compose_takes_every_secret_from_the_environment_and_refuses_to_start_without():
    server, database = COMPOSE["services"]["mlflow"]["environment"], COMPOSE["services"]["postgresql"]["environment"]
    for name in SECRETS:
        assert server[name] == f"${{{name}:?see example.env}}"
    assert database["POSTGRES_PASSWORD"] == server["POSTGRES_PASSWORD"]


def test_compose_publishes_the_server_on_loopback_unless_told_and_the_database_never():
    assert COMPOSE["services"]["mlflow"]["ports"] == ["${MLFLOW_PUBLISH:-127.0.0.1}:5000:5000"]
    assert "ports" not in COMPOSE["services"]["postgresql"]
    assert COMPOSE["services"]["postgresql"]["networks"] == ["storage"]
    assert COMPOSE["networks"]["storage"] == {"internal": True}


def test_compose_names_nothing_that_it_does_not_define():
    assert set(COMPOSE) == {"name", "services", "networks", "volumes"}
    fields = {"image", "build", "restart", "depends_on", "environment", "ports", "networks", "volumes", "healthcheck"}
    for service in COMPOSE["services"].values():
        assert set(service) <= {*fields, "read_only", "tmpfs", "cap_drop", "security_opt"}
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(COMPOSE["volumes"])
        assert set(service["healthcheck"]) == {"test", "interval", "timeout", "retries"}
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])


def test_the_example_names_every_variable_that_compose_reads_and_holds_no_value_of_a_secret():
    lines = [line for line in (FOLDER / "example.env").read_text().splitlines() if line and not line.startswith("#")]
    example = dict(line.split("=", 1) for line in lines)
    used = set(re.findall(r"\$\{([A-Z_]+)", (FOLDER / "compose.yaml").read_text()))
    assert set(example) == used
    assert all(example[name] == "" for name in (*SECRETS, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))


def test_git_ignores_the_filled_in_example():
    assert "/deploy/mlflow/.env" in (DEPLOY.parent / ".gitignore").read_text().splitlines()


def test_compose_kubernetes_and_the_image_run_one_version():
    server, database = COMPOSE["services"]["mlflow"]["image"], COMPOSE["services"]["postgresql"]["image"]
    workloads = [each for each in manifests("deploy/mlflow/kubernetes.yaml") if "template" in each.get("spec", {})]
    images = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"][0]["image"] for each in workloads
    }
    assert images == {"mlflow": server, "postgresql": database}
    version = server.split(":")[1]
    assert f"mlflow[auth]=={version}" in (FOLDER / "Dockerfile").read_text()


def test_in_kubernetes_only_rays_pods_reach_the_server_and_only_the_server_the_database():
    policies = {
        each["metadata"]["name"]: each["spec"]
        for each in manifests("deploy/mlflow/kubernetes.yaml")
        if each["kind"] == "NetworkPolicy"
    }
    (of_server,), (of_database,) = policies["mlflow"]["ingress"], policies["postgresql"]["ingress"]
    assert of_server["from"] == [{"podSelector": {"matchLabels": {"ray.io/is-ray-node": "yes"}}}]
    assert of_database["from"] == [{"podSelector": {"matchLabels": {"app": "mlflow"}}}]
