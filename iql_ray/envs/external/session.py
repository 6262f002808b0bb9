"""One client and the environment it has: what can be asked, what is answered, what is never executed.

No sockets are read or written here.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from iql_ray.envs.action_limits import EXECUTED_ACTION
from iql_ray.envs.external import wire
from iql_ray.envs.external.wire import Message

LOG = logging.getLogger(__name__)
MAX_TEXT = 1000
"""Characters of a text in an info, or of an error."""


@dataclass(kw_only=True, eq=False)
class Session:
    """One client and its environment."""

    connection: socket.socket
    environment: gymnasium.Env
    peer: str
    is_in_episode: bool = False
    last_request: float = field(default_factory=time.monotonic)

    def answer(self, request: Message) -> bytes:
        """Do what is asked; what the environment raises becomes an answer as well. The frame to send.

        Raises:
            ProtocolError: nothing that can be asked.
        """
        if request.kind == "reset":
            seed, options = request.get("seed", (int, type(None))), request.get("options", (dict, type(None)))
            return _told_if_it_fails(lambda: self._reset(seed, options))
        if request.kind == "step":
            action = request.array("action")
            return _told_if_it_fails(lambda: self._step(action))
        raise wire.ProtocolError(f"cannot be asked for '{request.kind:.40}'")

    def _reset(self, seed: int | None, options: dict[str, Any] | None) -> Message:
        self.is_in_episode = True
        observation, info = self.environment.reset(seed=seed, options=options)
        return _answer("observed", info, {"observation": observation})

    def _step(self, action: np.ndarray) -> Message:
        if not self.is_in_episode:
            raise RuntimeError("no episode is under way, reset first")
        _check_action(action, self.environment.action_space)
        # A discrete action came as an array without axes; the environment gets the number.
        observation, reward, is_terminated, is_truncated, info = self.environment.step(action[()])
        self.is_in_episode = not (is_terminated or is_truncated)
        arrays = {"observation": observation, "reward": np.float64(reward)}
        fields = {"termination": bool(is_terminated), "truncation": bool(is_truncated)}
        return _answer("stepped", info, arrays, fields)


def _told_if_it_fails(do: Callable[[], Message]) -> bytes:
    try:
        return wire.encode(do())
    except Exception as error:
        LOG.exception("the environment failed")
        message = f"{type(error).__name__}: {error}"[:MAX_TEXT]
        return wire.encode(Message(kind="failed", fields={"message": message}))


def _answer(
    kind: str, info: Mapping[str, Any], arrays: Mapping[str, Any], fields: Mapping[str, Any] | None = None
) -> Message:
    if EXECUTED_ACTION in info:
        arrays = {**arrays, EXECUTED_ACTION: info[EXECUTED_ACTION]}
    return Message(kind=kind, fields={**(fields or {}), "info": plain_info(info)}, arrays=arrays)


def plain_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """What of an info JSON has words for: numbers, truth values, short texts; the rest stays behind."""
    values = {str(name): value.item() if isinstance(value, np.generic) else value for name, value in info.items()}
    plain = (bool, int, float, type(None))
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, plain) or (isinstance(value, str) and len(value) <= MAX_TEXT)
    }


def _check_action(action: np.ndarray, space: gymnasium.Space) -> None:
    """Last guard before the system: no action that its action space has not."""
    if isinstance(space, Discrete):
        is_one = action.shape == () and np.issubdtype(action.dtype, np.integer) and 0 <= action < space.n
    else:
        assert isinstance(space, Box)
        # A policy's bounds are these in float32.
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        is_one = action.shape == space.shape and bool(((low <= action) & (action <= high)).all())
    if not is_one:
        raise ValueError(f"action {action} is outside the action space {space}; nothing was executed")


def welcome(environment: gymnasium.Env) -> Message:
    """What a client must know to look like the environment."""
    observed, action = environment.observation_space, environment.action_space
    assert isinstance(observed, Box)
    arrays = {"observation_low": observed.low, "observation_high": observed.high}
    if isinstance(action, Box):
        arrays |= {"action_low": action.low, "action_high": action.high}
    num_actions = int(action.n) if isinstance(action, Discrete) else None
    message = Message(kind="welcome", fields={"num_actions": num_actions}, arrays=arrays)
    wire.encode(message)  # a type of number that the wire has no word for is refused here
    return message
