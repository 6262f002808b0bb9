"""A registered policy as a Ray Serve application: HTTP in, actions out, one process that follows an alias.

Requests that arrive together are answered together. A new champion is loaded beside the one that answers and takes
over between two batches, so that every answer is of one version, which it names. What is said is `answering.py`, which
version `tracking/champion.py`.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from iql_ray.distributed.actor_pool import ONE_THREAD
from iql_ray.distributed.answering import Question, answer, read
from iql_ray.tracking.following import Follower

NAME = "iql-ray-policy"
MAX_BATCH_SIZE = 64
BATCH_WAIT_SECONDS = 0.001
MAX_ONGOING_REQUESTS = 2000
QUIET = {"log_level": "WARNING", "enable_access_log": False}


class PolicyServer:
    """The inside of the serving process.

    Args:
        uri: models:/NAME@ALIAS or models:/NAME/VERSION.
        tracking_uri: the store that knows the model.
        poll_seconds: how often the alias is looked up.
    """

    def __init__(self, uri: str, tracking_uri: str, poll_seconds: float) -> None:
        self._follower = Follower(uri, tracking_uri)
        self._stopped = threading.Event()
        self._poll_seconds = poll_seconds
        threading.Thread(target=self._follow, name="iql-ray-champion", daemon=True).start()

    async def __call__(self, request: Request) -> Response:
        """POST /invocations for actions, GET /status for the version that gives them."""
        if request.url.path == "/status" and request.method == "GET":
            return JSONResponse(self.status())
        if request.url.path != "/invocations" or request.method != "POST":
            return JSONResponse({"error": "expected POST /invocations, or GET /status"}, status_code=404)
        try:
            said = await self.act(read(await request.body()))
        except ValueError as error:
            said = error
        if isinstance(said, ValueError):
            return JSONResponse({"error": str(said)}, status_code=400)
        return Response(said, media_type="application/json")

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_SECONDS)
    async def act(self, questions: list[Question]) -> list[bytes | ValueError]:
        """Answers of the policy that is the current one as the batch begins."""
        return answer(self._follower.current, questions)

    def status(self) -> dict[str, Any]:
        """See `Follower.status`."""
        return {**self._follower.status(), "process_id": os.getpid()}

    def _follow(self) -> None:
        while not self._stopped.wait(self._poll_seconds):
            self._follower.refresh()

    def __del__(self) -> None:
        self._stopped.set()


def start(uri: str, tracking_uri: str, *, host: str, port: int, poll_seconds: float) -> Any:
    """Put the application behind Serve's HTTP proxy, in the Ray session that there is; returns the handle to it."""
    serve.start(http_options={"host": host, "port": port}, logging_config=QUIET)
    deployment = serve.deployment(
        PolicyServer,
        name=NAME,
        num_replicas=1,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": 1, "runtime_env": {"env_vars": ONE_THREAD}},
    )
    application = deployment.bind(uri, tracking_uri, poll_seconds)
    return serve.run(application, name=NAME, route_prefix="/", logging_config=QUIET)


def status(handle: Any, timeout_seconds: float = 10.0) -> dict[str, Any]:
    """What the serving process says of itself."""
    return handle.status.remote().result(timeout_s=timeout_seconds)


def stop() -> None:
    """Answer what has arrived, then end the application."""
    serve.delete(NAME)
