"""What Kubernetes runs before it ends a head: every job that is under way is stopped, and waited for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS
from ray.job_submission import JobStatus

from deploy import stop_jobs
from tests.deploy.files import ray_cluster


@dataclass
class Job:
    submission_id: str | None
    status: JobStatus


@dataclass
class FakeClient:
    """Jobs that are over two looks after they were asked to stop."""

    jobs: list[Job]
    asked: list[str] = field(default_factory=list)
    num_looks: int = 0

    def list_jobs(self) -> list[Job]:
        return self.jobs

    def stop_job(self, submission_id: str) -> None:
        self.asked.append(submission_id)

    def get_job_status(self, submission_id: str) -> JobStatus:
        self.num_looks += 1
        return JobStatus.STOPPED if submission_id in self.asked and self.num_looks > 2 else JobStatus.RUNNING


def test_jobs_under_way_are_stopped_and_waited_for_and_others_left_alone(monkeypatch):
    monkeypatch.setattr(stop_jobs, "POLL_SECONDS", 0.0)
    jobs = [
        Job("running", JobStatus.RUNNING),
        Job("pending", JobStatus.PENDING),
        Job("over", JobStatus.SUCCEEDED),
        Job(None, JobStatus.RUNNING),  # a driver that was not submitted
    ]
    client: Any = FakeClient(jobs)
    assert stop_jobs.stop_jobs(client) == ["running", "pending"]
    assert client.asked == ["running", "pending"]
    assert client.num_looks == 4


@pytest.mark.parametrize("probe", ["readinessProbe", "livenessProbe"])
def test_probes_ask_what_ray_answers_without_a_token(probe):
    spec = ray_cluster()
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        asked = container[probe]["httpGet"]
        if asked["port"] == 8265:
            assert asked["path"] == "/api/gcs_healthz"
        else:
            assert asked["port"] == 52365  # of Ray's agent, unless it is told another
            assert asked["path"] in PUBLIC_EXACT_PATHS
