"""No secret in any file of the repository, no open port, and a cloud role that can do no more than it must."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from tests.deploy.files import DEPLOY, LAUNCHER_FILES, ROOT, manifests

SECRETS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "an AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a Google key": r"\bAIza[0-9A-Za-z_-]{35}\b|\"private_key_id\"",
    "a GitHub token": r"\bgh[pousr]_[0-9A-Za-z]{36}\b",
    "a password in an address": r"://[^\s:/@$]+:[^\s:/@$*{}<>\"'.]{12,}@(?!localhost|127\.)",
    "a token of Ray": r"\b(?:auth_token|RAY_AUTH_TOKEN)\b[\"']?\s*[:=]\s*[\"']?[0-9a-f]{32,}",
}


def found_in(text: str) -> list[str]:
    return [name for name, pattern in SECRETS.items() if re.search(pattern, text)]


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name]


def test_no_file_of_the_repository_holds_a_secret():
    for name in tracked():
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 1_000_000:
            assert found_in(path.read_text(errors="ignore")) == [], name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("-----BEGIN OPENSSH " + "PRIVATE KEY-----", "a private key"),
        ("aws_access_key_id = AKIA" + "ABCDEFGHIJKLMNOP", "an AWS key"),
        ("postgresql://mlflow:" + "abcdef0123456789" + "@db.internal/mlflow", "a password in an address"),
        ("RAY_AUTH_TOKEN=" + 32 * "f", "a token of Ray"),
    ],
)
def test_a_secret_would_be_found(text, name):
    assert found_in(text) == [name]


def test_no_file_is_a_token_or_an_environment_of_secrets():
    assert [name for name in tracked() if name.endswith((".env", "auth_token", ".pem", ".key"))] == [
        "deploy/mlflow/example.env"
    ]


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_the_launcher_files_open_nothing_to_the_world(name):
    assert "0.0.0.0" not in (ROOT / name).read_text()


@pytest.mark.parametrize("name", ["deploy/kuberay/ray_cluster.yaml", "deploy/mlflow/kubernetes.yaml"])
def test_no_service_and_no_secret_of_kubernetes_stands_in_a_file(name):
    for manifest in manifests(name):
        assert manifest["kind"] not in {"Secret", "Ingress"}
        assert manifest["spec"].get("type", "ClusterIP") == "ClusterIP" if manifest["kind"] == "Service" else True


def statements(name: str) -> list[dict[str, Any]]:
    return json.loads((DEPLOY / f"aws/{name}.json").read_text())["Statement"]


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize("name", ["head_policy", "worker_policy"])
def test_no_role_on_aws_may_do_everything_of_anything(name):
    for statement in statements(name):
        assert not any(action.endswith("*") for action in as_list(statement["Action"])), statement["Sid"]


def test_the_heads_role_changes_and_ends_nodes_of_its_own_cluster_only():
    for statement in statements("head_policy"):
        changing = {"ec2:TerminateInstances", "ec2:StopInstances"} & set(as_list(statement["Action"]))
        if changing:
            assert statement["Condition"] == {"StringEquals": {"aws:ResourceTag/ray-cluster-name": "iql-ray"}}
        if "*" in as_list(statement["Resource"]):
            assert all(action.startswith("ec2:Describe") for action in as_list(statement["Action"]))


def test_the_head_gives_nodes_no_role_but_theirs():
    (passing,) = (each for each in statements("head_policy") if each["Action"] == "iam:PassRole")
    assert passing["Resource"] == "arn:aws:iam::000000000000:role/iql-ray-worker"


def test_workers_reach_one_bucket():
    resources = {each for statement in statements("worker_policy") for each in as_list(statement["Resource"])}
    assert resources == {"arn:aws:s3:::replace-with-bucket", "arn:aws:s3:::replace-with-bucket/*"}
