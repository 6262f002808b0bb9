"""iql-ray serve --model models:/pendulum@champion --port 8000

A registered policy behind HTTP, which changes over to a new champion without losing a request. Parse, call, print.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import command_line
from pipelines.ray_session import ray_session

DIRECT_INGRESS = {
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_SERVE_PORT_QUARANTINE_S": "0",  # a process that takes the place of a dead one takes its port too
}
"""By this Serve's own processes listen themselves; read when the local Ray session starts."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Answer requests for actions with a registered model, and follow its alias, until stopped."""

    model: str
    """models:/NAME@ALIAS is followed wherever the alias goes; models:/NAME/VERSION stays."""
    port: int = 8000
    """Of Ray Serve's HTTP proxy."""
    direct_port: int | None = None
    """The serving process listens here too: several times as many requests a second as through the proxy. Only in a
    Ray session of this command's own; while a process that died is replaced, nobody answers here."""
    host: str = "127.0.0.1"
    """Where to listen. There is no authentication: with another than this machine's own address, everybody who can
    reach it gets answers."""
    poll_seconds: float = 5.0
    """How often the registry is asked which version the alias names."""
    storage: Path = Path("runs")
    """The folder of all runs."""
    tracking_uri: str | None = None
    """The store that knows the model; MLFLOW_TRACKING_URI, then the one beside the runs, if not given."""

    def __post_init__(self) -> None:
        for name in ("port", "direct_port"):
            port = getattr(self, name)
            if port is not None and not 1 <= port <= 65_535:
                raise ValueError(f"{name} is {port}, expected 1 to 65535")
        if self.port == self.direct_port:
            raise ValueError(f"port and direct_port are both {self.port}; the proxy and the process need one each")
        if not self.poll_seconds > 0:
            raise ValueError(f"poll_seconds is {self.poll_seconds}, expected more than 0")
        if self.direct_port is not None and os.environ.get("RAY_ADDRESS"):
            raise ValueError(
                "--direct-port needs a Ray session of this command's own; unset RAY_ADDRESS, or leave it out"
            )


def serve(config: ServeConfig) -> dict[str, Any]:
    """Serve until Ctrl-C or SIGTERM.

    Returns:
        `model`, the last `version`, and `url`.

    Raises:
        ValueError: no such model, version or alias, one that was changed, a port that is taken, or no Ray Serve.
    """
    from iql_ray.tracking.following import Follower
    from iql_ray.tracking.store import resolve_tracking_uri

    tracking_uri = resolve_tracking_uri(config.tracking_uri, config.storage)
    for port in filter(None, (config.port, config.direct_port)):
        _check_free(config.host, port)
    Follower(config.model, tracking_uri)  # what cannot be served is said before anything starts
    _warn_of_strangers(config.host)
    _set_environment(config)
    with ray_session():
        policy_server = _policy_server()
        handle = policy_server.start(
            config.model, tracking_uri, host=config.host, port=config.port, poll_seconds=config.poll_seconds
        )
        try:
            status = _serve_until_stopped(config, lambda: policy_server.status(handle))
        finally:
            policy_server.stop()
    return {"model": config.model, "version": status["version"], "url": _url(config.host, config.port)}


def _policy_server() -> Any:
    try:
        from iql_ray.distributed import policy_server
    except ModuleNotFoundError as error:
        raise ValueError(f"serving needs Ray Serve ({error}): pip install 'iql-ray[serve]'") from error
    return policy_server


def _serve_until_stopped(config: ServeConfig, ask: Any) -> dict[str, Any]:
    """Say where and what is served, then what changes, until a signal comes; returns what was said last."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    status = ask()
    urls = [_url(config.host, port) for port in (config.port, config.direct_port) if port is not None]
    _say(f"serving {config.model}, version {status['version']}, at {' and '.join(urls)} (Ctrl-C stops)")
    while not stopped.wait(config.poll_seconds):
        before, status = status, _asked(ask, status)
        if status["version"] != before["version"]:
            _say(f"changed over to version {status['version']}")
        if status["problem"] != before["problem"]:
            _say(f"warning: {status['problem']}" if status["problem"] else "the registry answers again")
    return status


def _asked(ask: Any, before: dict[str, Any]) -> dict[str, Any]:
    """The process's own words; where it does not answer, Serve is replacing it."""
    try:
        return ask()
    except Exception as error:
        return {**before, "problem": f"the serving process does not answer ({type(error).__name__}), Ray replaces it"}


def _set_environment(config: ServeConfig) -> None:
    """Ask for the second door, before the session starts; its range of ports is that one."""
    if config.direct_port is not None:
        first, after_last = str(config.direct_port), str(config.direct_port + 1)
        ports = {
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": first,
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": after_last,
        }
        os.environ.update({**DIRECT_INGRESS, **ports})


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ValueError(f"cannot listen at {host}, port {port}: {error.strerror}; choose another") from error


def _warn_of_strangers(host: str) -> None:
    try:
        is_own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_own = host == "localhost"
    if not is_own:
        _say(f"warning: {host} is open to everybody who can reach it; there is no authentication")


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/invocations"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(ServeConfig, serve, argv, description=ServeConfig.__doc__)


if __name__ == "__main__":
    sys.exit(main())
