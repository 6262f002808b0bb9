"""Stops every running job of this head as `ray job stop` does, and waits: what Kubernetes runs before it ends the head.

    python stop_jobs.py

A stopped job writes its checkpoint and ends its record; RAY_JOB_STOP_WAIT_TIME_S is how long it may take.
"""

from __future__ import annotations

import time

from ray.job_submission import JobStatus, JobSubmissionClient

ADDRESS = "http://127.0.0.1:8265"
POLL_SECONDS = 0.5


def stop_jobs(client: JobSubmissionClient) -> list[str]:
    """Submission ids of the jobs that were running or pending, once none is."""
    under_way = [job.submission_id for job in client.list_jobs() if job.submission_id and not job.status.is_terminal()]
    for submission_id in under_way:
        client.stop_job(submission_id)
    for submission_id in under_way:
        while not JobStatus(client.get_job_status(submission_id)).is_terminal():
            time.sleep(POLL_SECONDS)
    return under_way


if __name__ == "__main__":
    print("stopped:", *stop_jobs(JobSubmissionClient(ADDRESS)))
