"""The side of the run: a `gymnasium.Env` whose steps are taken on the other end of a socket.

It repeats no step: where the connection is lost nobody knows whether the last action was executed, so that the episode
is over, with an error that names the address. The next reset connects again.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from iql_ray.envs.action_limits import EXECUTED_ACTION
from iql_ray.envs.catalog import EXTERNAL_SCHEME
from iql_ray.envs.external import wire
from iql_ray.envs.external.wire import Message

HANDSHAKE_SECONDS = 10.0
RECONNECT_SECONDS = 30.0
"""How long one who was let in before waits for a server that is away, for it may be starting again, or taken."""
RETRY_SECONDS = 0.2
CLOSE_SECONDS = 1.0
_LET_IN_AT: set[tuple[str, int]] = set()
"""Where this process was let in before. One who is let in nowhere is told at once; but an environment that has failed
is thrown away, and the new one in its place must not fail because the server is not up again yet."""


def connect(address: str, timeout_seconds: float = 60.0, token: str | None = None) -> ExternalEnv:
    """The environment served at an address, such as `external://127.0.0.1:7777`.

    Args:
        address: host and port, with or without `external://`.
        timeout_seconds: how long one reset or step may take.
        token: what the server asks for; by default the environment variable IQL_RAY_ENV_TOKEN.

    Raises:
        ValueError: not an address, nobody answers there, or the server refuses: taken, wrong token, another protocol.
    """
    return ExternalEnv(address, timeout_seconds=timeout_seconds, token=token)


class ExternalEnv(gymnasium.Env):
    """An environment elsewhere, as `connect` makes it."""

    def __init__(self, address: str, *, timeout_seconds: float, token: str | None) -> None:
        self._host, self._port = _host_and_port(address)
        self._timeout_seconds = timeout_seconds
        self._token = os.environ.get(wire.TOKEN_VARIABLE, "") if token is None else token
        self._num_steps = 0
        self._connection: socket.socket | None = None
        try:
            self._connection, spaces = self._connect_within(
                RECONNECT_SECONDS if (self._host, self._port) in _LET_IN_AT else 0.0
            )
        except OSError as error:
            hint = f"start one: python -m iql_ray.envs.external --env ENV --port {self._port}"
            raise ValueError(f"{self._name}: {error}; if nobody serves there, {hint}") from error
        _LET_IN_AT.add((self._host, self._port))
        self.observation_space, self.action_space = spaces

    @property
    def _name(self) -> str:
        return f"external environment at {self._host}:{self._port}"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, on a new connection where the old one is gone.

        Raises:
            ConnectionError: nobody lets this client in for RECONNECT_SECONDS, or an environment of other spaces does;
                or the connection is lost during the reset.
            RuntimeError: the environment's own reset raised.
        """
        super().reset(seed=seed)
        self._num_steps = 0
        if self._is_hung_up():
            self._reconnect()
        fields = {"seed": None if seed is None else int(seed), "options": options}
        with self._or_lost("the reset") as connection:
            answer = self._ask(connection, Message(kind="reset", fields=fields), "observed")
            return self._observation(answer), _info(answer)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step there.

        Raises:
            ConnectionError: the connection is lost; the action may have been executed or not.
            RuntimeError: the environment's own step raised, or the action is none of its action space.
        """
        self._num_steps += 1
        with self._or_lost(f"step {self._num_steps} of an episode") as connection:
            request = Message(kind="step", arrays={"action": np.asarray(action)})
            answer = self._ask(connection, request, "stepped")
            is_terminated, is_truncated = answer.get("termination", bool), answer.get("truncation", bool)
            reward = answer.array("reward", ())
            return self._observation(answer), float(reward), is_terminated, is_truncated, _info(answer)

    def close(self) -> None:
        """Make room for another client. Can be called twice."""
        if self._connection is None:
            return
        with contextlib.suppress(OSError):
            wire.send(self._connection, Message(kind="close"), CLOSE_SECONDS)
            self._connection.settimeout(CLOSE_SECONDS)
            self._connection.recv(1)  # the server hangs up when it has made room
        self._connection.close()
        self._connection = None

    @contextlib.contextmanager
    def _or_lost(self, during: str) -> Iterator[socket.socket]:
        """The connection; whatever goes wrong with it ends it, since what comes next on it could be a late answer."""
        if self._connection is None:
            raise ConnectionError(f"{self._name} is not connected, reset it first")
        try:
            yield self._connection
        except OSError as error:
            self._connection.close()
            self._connection = None
            raise ConnectionError(f"{self._name}: connection lost in {during}: {error}") from error

    def _ask(self, connection: socket.socket, request: Message, expected: str) -> Message:
        wire.send(connection, request, self._timeout_seconds)
        answer = wire.receive(connection, self._timeout_seconds)
        if answer.kind == "failed":
            raise RuntimeError(f"{self._name}: {request.kind} raised there {answer.get('message', str)}")
        answer.expect(expected)
        return answer

    def _observation(self, answer: Message) -> np.ndarray:
        return answer.array("observation", self.observation_space.shape)

    def _is_hung_up(self) -> bool:
        """There is no connection, or the server has closed it: between two questions it has nothing else to say."""
        if self._connection is None:
            return True
        if not select.select([self._connection], [], [], 0)[0]:
            return False
        self._connection.close()
        self._connection = None
        return True

    def _reconnect(self) -> None:
        try:
            connection, spaces = self._connect_within(RECONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise ConnectionError(f"{self._name}: no connection for {RECONNECT_SECONDS:g} s: {error}") from error
        if spaces != (self.observation_space, self.action_space):
            connection.close()
            raise ConnectionError(
                f"{self._name} has other spaces than before: {spaces[0]} and {spaces[1]}, "
                f"expected {self.observation_space} and {self.action_space}"
            )
        self._connection = connection

    def _connect_within(self, seconds: float) -> tuple[socket.socket, tuple[Box, Box | Discrete]]:
        """`_connect`, again and again for so long; at least once."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self._connect()
            except (OSError, ValueError):
                if time.monotonic() + RETRY_SECONDS > deadline:
                    raise
            time.sleep(RETRY_SECONDS)

    def _connect(self) -> tuple[socket.socket, tuple[Box, Box | Discrete]]:
        """Shake hands.

        Raises:
            OSError: nobody answers, or something else than a server of ours.
            ValueError: the server refuses.
        """
        connection = socket.create_connection((self._host, self._port), HANDSHAKE_SECONDS)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection, self._shake_hands(connection)
        except BaseException:
            connection.close()
            raise

    def _shake_hands(self, connection: socket.socket) -> tuple[Box, Box | Discrete]:
        challenge = self._not_refused(wire.receive(connection, HANDSHAKE_SECONDS), "challenge")
        if challenge.get("protocol", int) != wire.PROTOCOL_VERSION:
            raise ValueError(
                f"{self._name} speaks protocol {challenge.get('protocol', int)}, expected {wire.PROTOCOL_VERSION}; "
                "install the same version of iql_ray on both sides"
            )
        proof = wire.proof(self._token, challenge.get("nonce", str))
        hello = Message(kind="hello", fields={"protocol": wire.PROTOCOL_VERSION, "proof": proof})
        wire.send(connection, hello, HANDSHAKE_SECONDS)
        return _spaces(self._not_refused(wire.receive(connection, HANDSHAKE_SECONDS), "welcome"))

    def _not_refused(self, answer: Message, expected: str) -> Message:
        if answer.kind == "refused":
            raise ValueError(f"{self._name} refuses: {answer.get('message', str)}")
        answer.expect(expected)
        return answer


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address if "://" in address else EXTERNAL_SCHEME + address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if f"{parts.scheme}://" != EXTERNAL_SCHEME or not host or not port or parts.path or parts.query:
        raise ValueError(f"'{address}' is no address of an external environment, expected {EXTERNAL_SCHEME}HOST:PORT")
    return host, port


def _spaces(welcome: Message) -> tuple[Box, Box | Discrete]:
    observed = _box(welcome.array("observation_low"), welcome.array("observation_high"))
    num_actions = welcome.get("num_actions", (int, type(None)))
    if num_actions is not None:
        return observed, Discrete(max(num_actions, 1))
    return observed, _box(welcome.array("action_low"), welcome.array("action_high"))


def _box(low: np.ndarray, high: np.ndarray) -> Box:
    if low.ndim != 1 or low.shape != high.shape or low.dtype != high.dtype or not (low <= high).all():
        raise wire.ProtocolError(f"bounds that make no box: {low} and {high}")
    return Box(low, high, dtype=low.dtype.type)


def _info(answer: Message) -> dict[str, Any]:
    info = answer.get("info", dict)
    if EXECUTED_ACTION in answer.arrays:
        info = {**info, EXECUTED_ACTION: answer.arrays[EXECUTED_ACTION]}
    return info
