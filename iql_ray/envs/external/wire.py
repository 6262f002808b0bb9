"""What goes over the socket: frames of a JSON header and raw arrays. No pickle: what arrives is data, never code.

    4 bytes        header length, big-endian
    header         JSON: {"kind": "step", "arrays": [["action", "<f4", [2]]], ...}
    arrays         their bytes, one after the other, little-endian

Whatever a peer sends, reading it ends in a Message or in a ProtocolError, and never takes more memory than the limits
below. It knows no environment.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PROTOCOL_VERSION = 1
MAX_HEADER_BYTES = 1 << 16
MAX_ARRAY_BYTES = 1 << 24
"""Of all arrays of a frame together."""
DTYPES = ("<f2", "<f4", "<f8", "<i4", "<i8")
TOKEN_VARIABLE = "IQL_RAY_ENV_TOKEN"
"""The environment variable that both sides take the token from."""
LENGTH = struct.Struct(">I")


class ProtocolError(ConnectionError):
    """The other side does not speak this protocol."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Message:
    """One frame."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    """JSON values."""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def expect(self, kind: str) -> None:
        """Refuse a message of another kind.

        Raises:
            ProtocolError: it is another.
        """
        if self.kind != kind:
            raise ProtocolError(f"got '{self.kind:.40}', expected '{kind}'")

    def get(self, name: str, expected: type | tuple[type, ...]) -> Any:
        """A field of an expected type.

        Raises:
            ProtocolError: it is missing, or of another type.
        """
        value = self.fields.get(name)
        # In Python True is an int, over the wire it is not.
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise ProtocolError(f"'{self.kind:.40}' has {name} = {value!r:.80}")
        return value

    def array(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """An array of that name, and of that shape if one is given.

        Raises:
            ProtocolError: there is none.
        """
        if name not in self.arrays or shape not in (None, self.arrays[name].shape):
            got = f"of shape {self.arrays[name].shape}" if name in self.arrays else "missing"
            raise ProtocolError(f"in '{self.kind:.40}' {name} is {got}, expected shape {shape or 'any'}")
        return self.arrays[name]


def encode(message: Message) -> bytes:
    """The frame of a message.

    Raises:
        ValueError: it is larger than the limits, or holds what neither JSON nor DTYPES can say.
    """
    arrays = {name: _little_endian(name, value) for name, value in message.arrays.items()}
    specs = [[name, value.dtype.str, list(value.shape)] for name, value in arrays.items()]
    try:
        header = json.dumps({"kind": message.kind, "arrays": specs, "fields": dict(message.fields)}).encode()
    except TypeError as error:
        raise ValueError(f"'{message.kind}' holds what JSON has no word for: {error}") from error
    num_array_bytes = sum(value.nbytes for value in arrays.values())
    if len(header) > MAX_HEADER_BYTES or num_array_bytes > MAX_ARRAY_BYTES:
        raise ValueError(
            f"'{message.kind}' has {len(header)} bytes of JSON and {num_array_bytes} of arrays, "
            f"expected at most {MAX_HEADER_BYTES} and {MAX_ARRAY_BYTES}"
        )
    return b"".join([LENGTH.pack(len(header)), header, *(value.tobytes() for value in arrays.values())])


def _little_endian(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.dtype.str not in DTYPES:
        raise ValueError(f"{name} is of type {array.dtype}, expected one of {', '.join(DTYPES)}")
    return array


def send(connection: socket.socket, message: Message, timeout_seconds: float) -> None:
    """Send one frame.

    Raises:
        ValueError: as `encode`.
        OSError: the connection is lost, or the other side reads nothing for so long.
    """
    send_frame(connection, encode(message), timeout_seconds)


def send_frame(connection: socket.socket, frame: bytes, timeout_seconds: float) -> None:
    """`send` what `encode` gave."""
    connection.settimeout(timeout_seconds)
    connection.sendall(frame)


def receive(connection: socket.socket, timeout_seconds: float) -> Message:
    """Wait for one whole frame.

    Raises:
        ProtocolError: what came is no frame.
        ConnectionError: the other side has closed the connection.
        TimeoutError: the frame was not there in time, however much of it was.
    """
    deadline = time.monotonic() + timeout_seconds
    (num_header_bytes,) = LENGTH.unpack(_read(connection, LENGTH.size, deadline))
    if num_header_bytes > MAX_HEADER_BYTES:
        raise ProtocolError(f"a header of {num_header_bytes} bytes, expected at most {MAX_HEADER_BYTES}")
    kind, fields, specs = _parse(bytes(_read(connection, num_header_bytes, deadline)))
    arrays = {
        name: np.frombuffer(_read(connection, dtype.itemsize * math.prod(shape), deadline), dtype)
        .reshape(shape)
        .astype(dtype.newbyteorder("="))
        for name, dtype, shape in specs
    }
    return Message(kind=kind, fields=fields, arrays=arrays)


def _read(connection: socket.socket, num_bytes: int, deadline: float) -> bytearray:
    buffer = bytearray(num_bytes)
    view = memoryview(buffer)
    while view:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(remaining)
        num_read = connection.recv_into(view)
        if num_read == 0:
            raise ConnectionError("the other side has closed the connection")
        view = view[num_read:]
    return buffer


def _parse(header: bytes) -> tuple[str, dict[str, Any], list[tuple[str, np.dtype, tuple[int, ...]]]]:
    try:
        values = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a header that is no JSON: {header[:40]!r}") from error
    if not isinstance(values, dict) or set(values) != {"kind", "arrays", "fields"}:
        raise ProtocolError(f"a header without kind, arrays and fields: {header[:40]!r}")
    kind, fields, arrays = values["kind"], values["fields"], values["arrays"]
    if not (isinstance(kind, str) and isinstance(fields, dict) and isinstance(arrays, list)):
        raise ProtocolError(f"a header of other types: {header[:40]!r}")
    specs = [_spec(each) for each in arrays]
    if sum(dtype.itemsize * math.prod(shape) for _, dtype, shape in specs) > MAX_ARRAY_BYTES:
        raise ProtocolError(f"arrays of more than {MAX_ARRAY_BYTES} bytes")
    return kind, fields, specs


def _spec(value: Any) -> tuple[str, np.dtype, tuple[int, ...]]:
    match value:
        case [str(name), str(dtype), list(shape)] if dtype in DTYPES and len(shape) <= 1:
            if all(type(length) is int and 0 <= length <= MAX_ARRAY_BYTES for length in shape):
                return name, np.dtype(dtype), tuple(shape)
    raise ProtocolError(f"an array that is none of a flat one of numbers: {value!r:.80}")


def proof(token: str, nonce: str) -> str:
    """What only one who has the token can answer to a nonce, so that the token itself is never sent."""
    return hmac.new(token.encode(), nonce.encode(), hashlib.sha256).hexdigest()
