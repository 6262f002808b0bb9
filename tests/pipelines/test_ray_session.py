"""The session of a command: what was there stays, what was started stops, and the result comes last on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipelines import ray_session as sessions

ROOT = Path(__file__).parents[2]

PROGRAM = """
    import sys
    from dataclasses import dataclass
    from pipelines import command_line
    from pipelines.ray_session import ray_session

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        row: int

    def execute(settings):
        with ray_session(num_cpus=1):
            import ray

            @ray.remote
            def check(row):
                print("checking row", row)
                if row < 0:
                    raise ValueError(f"row is {row}, expected 0 or more")
                return row

            checked = ray.get(check.remote(settings.row))
        return {"row": checked, "is_running": ray.is_initialized()}

    sys.exit(command_line.main(Settings, execute))
"""


def run(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "command.py").write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, str(folder / "command.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)


def test_a_session_that_is_there_is_used_and_stays(ray_session):
    import ray

    with sessions.ray_session(num_cpus=1):
        assert ray.cluster_resources()["CPU"] == 4
    assert ray.is_initialized()


def test_the_address_of_the_job_server_is_refused_with_the_way_out(monkeypatch):
    with pytest.raises(ValueError, match="ray job submit"):
        sessions._connect("http://head:8265", None)


def test_what_the_user_has_set_stays_set(monkeypatch, ray_session):
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "5")
    with sessions.ray_session():
        assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "5"


@pytest.mark.ray
def test_the_result_is_the_last_line_whatever_workers_print_and_ray_is_down(tmp_path):
    done = run(tmp_path, "--row", "3")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"row": 3, "is_running": False}
    assert done.stderr == ""


@pytest.mark.ray
def test_a_refusal_in_a_worker_is_one_message(tmp_path):
    done = run(tmp_path, "--row", "-1")
    assert done.returncode == 2
    assert "iql-ray command: error: row is -1, expected 0 or more" in done.stderr
    assert "Traceback" not in done.stderr
