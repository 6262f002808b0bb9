"""Who has no token, or another one, gets nothing from a head: no job, no session, no page of the dashboard."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest

from tests.jobs.head import Head, stranger

pytestmark = pytest.mark.ray


def test_a_client_without_the_token_submits_and_sees_no_job(head: Head):
    for command in (["list"], ["submit"]):
        rest = ["--", "true"] if command == ["submit"] else []
        refused = head.ray("job", *command, "--address", head.url, *rest, environment=stranger(head))
        assert refused.returncode != 0
        assert "uthentication" in refused.stdout + refused.stderr, refused


def test_a_client_with_another_token_submits_no_job(head: Head, tmp_path: Path):
    (tmp_path / "token").write_text("0" * 48)
    environment = {**head.environment, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    refused = head.ray("job", "submit", "--address", head.url, "--", "true", environment=environment)
    assert refused.returncode != 0
    assert "uthentication" in refused.stdout + refused.stderr, refused


@pytest.mark.parametrize("path", ["/api/jobs/", "/nodes?view=summary", "/api/v0/actors"])
def test_the_dashboard_answers_only_those_with_the_token(head: Head, path: str):
    assert head.get(path)
    for token in ("", "0" * 48):
        with pytest.raises(urllib.error.HTTPError) as refused:
            head.get(path, token=token)
        assert refused.value.code in (401, 403)


def test_a_ray_client_needs_the_token(head: Head):
    address = f"127.0.0.1:{head.client_port}"

    def join(environment: dict[str, str], num_retries: int) -> subprocess.CompletedProcess[str]:
        program = f"import ray.util; ray.util.connect('{address}', connection_retries={num_retries}); print('joined')"
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    joined = join(head.environment, num_retries=3)  # a busy machine may need more than one
    assert joined.stdout.strip() == "joined", joined.stderr
    refused = join(stranger(head), num_retries=1)
    assert refused.returncode != 0
    assert "joined" not in refused.stdout
    assert "ray client connection timeout" in refused.stderr  # all that Ray says of it
