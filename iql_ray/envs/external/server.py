"""The side that owns the environments: runs where the robot is, with gymnasium and numpy alone.

One thread does everything, so that an environment is only ever touched by one. Each environment belongs to one client
at a time; who comes when all are taken is told so and sent away.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import logging
import secrets
import selectors
import socket
import time
from collections.abc import Sequence
from types import TracebackType

import gymnasium

from iql_ray.envs.catalog import spaces_of
from iql_ray.envs.external import wire
from iql_ray.envs.external.session import Session, welcome
from iql_ray.envs.external.wire import Message

LOG = logging.getLogger(__name__)
POLL_SECONDS = 0.1
HANDSHAKE_SECONDS = 5.0
FRAME_SECONDS = 10.0
"""For the rest of a frame that has begun, and for a client to take an answer."""
GONE_HOOK = "on_client_gone"
"""A method of an environment, called without arguments when its client leaves or is lost within an episode."""


def serve_environment(
    env: gymnasium.Env,
    port: int,
    host: str = "127.0.0.1",
    token: str | None = None,
    max_idle_seconds: float | None = None,
) -> None:
    """Serve one environment until Ctrl-C; see `EnvironmentServer`."""
    server = EnvironmentServer([env], port=port, host=host, token=token, max_idle_seconds=max_idle_seconds)
    with contextlib.suppress(KeyboardInterrupt), server:
        server.serve()


class EnvironmentServer:
    """Serves environments, one client each, from `serve` until `stop`; a context manager that closes them.

    An environment whose client leaves or is lost within an episode is told by its method `on_client_gone()`, if it has
    one, and is then free for the next client, which begins with a reset.

    Args:
        environments: of equal spaces; one for a robot, several for a service that has them.
        port: 0 takes any that is free; see `address`.
        host: where to listen. Loopback by default; elsewhere a token is a must, and frames are not encrypted, so that
            an ssh tunnel to loopback is the better way.
        token: what clients must know; None lets in whoever can reach the port.
        max_idle_seconds: how long a client may ask for nothing within an episode before it counts as lost.

    Raises:
        ValueError: no environments, spaces that an agent cannot live in or that differ, no token off loopback.
        OSError: the port cannot be had.
    """

    def __init__(
        self,
        environments: Sequence[gymnasium.Env],
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        token: str | None = None,
        max_idle_seconds: float | None = None,
    ) -> None:
        if not environments or any(spaces_of(each) != spaces_of(environments[0]) for each in environments):
            raise ValueError(f"a server needs environments of equal spaces, at least one; got {list(environments)}")
        if not token and not _is_loopback(host):
            raise ValueError(f"host is {host}, beyond this machine: set a token (in {wire.TOKEN_VARIABLE})")
        self._welcome = welcome(environments[0])
        self._free = list(environments)
        self._sessions: list[Session] = []
        self._token = token
        self._max_idle_seconds = max_idle_seconds
        self._is_stopping = False
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    @property
    def address(self) -> str:
        """What `--env` takes."""
        host, port = self._listener.getsockname()[:2]
        return f"external://[{host}]:{port}" if ":" in host else f"external://{host}:{port}"

    def serve(self) -> None:
        """Answer clients until `stop` or Ctrl-C."""
        LOG.info("serving at %s", self.address)
        while not self._is_stopping:
            ready = {key.fileobj for key, _ in self._selector.select(POLL_SECONDS)}
            # Clients first: one that has left makes room for the one that comes.
            for session in [session for session in self._sessions if session.connection in ready]:
                self._attend(session)
            if self._listener in ready:
                self._accept()
            self._drop_idle()

    def stop(self) -> None:
        """Make `serve` return, from another thread or a signal handler."""
        self._is_stopping = True

    def _attend(self, session: Session) -> None:
        try:
            request = wire.receive(session.connection, FRAME_SECONDS)
            if request.kind == "close":
                self._drop(session, "it has closed")
                return
            wire.send_frame(session.connection, session.answer(request), FRAME_SECONDS)
            session.last_request = time.monotonic()
        except OSError as error:
            self._drop(session, str(error))

    def _accept(self) -> None:
        try:
            connection, (host, port, *_) = self._listener.accept()
        except OSError:  # gone again already
            return
        peer = f"{host}:{port}"
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(connection)
            if refusal := self._refusal(connection):
                LOG.warning("refused %s: %s", peer, refusal)
                wire.send(connection, Message(kind="refused", fields={"message": refusal}), HANDSHAKE_SECONDS)
                connection.close()
                return
            wire.send(connection, self._welcome, HANDSHAKE_SECONDS)
        except OSError as error:
            LOG.warning("%s went away before it was let in: %s", peer, error)
            connection.close()
            return
        LOG.info("%s is here", peer)
        self._sessions.append(Session(connection=connection, environment=self._free.pop(0), peer=peer))
        self._selector.register(connection, selectors.EVENT_READ)

    def _refusal(self, connection: socket.socket) -> str | None:
        """Why whoever has connected is not let in, None if they are."""
        if not self._free:
            taken_by = ", ".join(session.peer for session in self._sessions)
            return f"taken by {taken_by}: {len(self._sessions)} environment(s), one client each"
        nonce = secrets.token_hex(16)
        challenge = {"protocol": wire.PROTOCOL_VERSION, "nonce": nonce}
        wire.send(connection, Message(kind="challenge", fields=challenge), HANDSHAKE_SECONDS)
        hello = wire.receive(connection, HANDSHAKE_SECONDS)
        if hello.kind != "hello" or hello.get("protocol", int) != wire.PROTOCOL_VERSION:
            return f"this server speaks protocol {wire.PROTOCOL_VERSION}"
        given = hello.get("proof", str).encode(errors="replace")
        if self._token and not hmac.compare_digest(given, wire.proof(self._token, nonce).encode()):
            return f"the token is missing or wrong; set {wire.TOKEN_VARIABLE} to the server's"
        return None

    def _drop_idle(self) -> None:
        if self._max_idle_seconds is None:
            return
        oldest = time.monotonic() - self._max_idle_seconds
        for session in [each for each in self._sessions if each.is_in_episode and each.last_request < oldest]:
            self._drop(session, f"silent for more than {self._max_idle_seconds:g} s within an episode")

    def _drop(self, session: Session, why: str) -> None:
        LOG.info("%s is gone%s: %s", session.peer, " within an episode" if session.is_in_episode else "", why)
        self._selector.unregister(session.connection)
        self._sessions.remove(session)
        if session.is_in_episode and session.environment.has_wrapper_attr(GONE_HOOK):
            try:
                session.environment.get_wrapper_attr(GONE_HOOK)()
            except Exception:
                LOG.exception("%s failed", GONE_HOOK)
        self._free.append(session.environment)
        # Last, for a client that waits for it knows that all of this is done.
        session.connection.close()

    def close(self) -> None:
        """Send clients away, close the environments. Can be called twice."""
        for session in list(self._sessions):
            self._drop(session, "the server closes")
        self._selector.close()
        self._listener.close()
        for environment in self._free:
            environment.close()
        self._free = []

    def __enter__(self) -> EnvironmentServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _keep_alive(connection: socket.socket) -> None:
    """A client whose machine has lost its power is found out in half a minute."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
