"""Frames: what goes in comes out to the last bit, and what is no frame is refused within limits."""

from __future__ import annotations

import json
import socket
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from iql_ray.envs.external import wire
from iql_ray.envs.external.wire import Message, ProtocolError


def passed_on(frame: bytes) -> Message:
    """What the other end reads of these bytes, after which the connection is closed."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frame)
        ours.shutdown(socket.SHUT_WR)
        return wire.receive(theirs, 5.0)


def frame(header: object, payload: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">I", len(text)) + text + payload


def test_a_frame_is_a_length_a_header_and_the_bytes():
    encoded = wire.encode(Message(kind="step", arrays={"action": np.array([1.0, 2.0], np.float32)}))
    header = b'{"kind": "step", "arrays": [["action", "<f4", [2]]], "fields": {}}'
    assert encoded == struct.pack(">I", len(header)) + header + struct.pack("<ff", 1.0, 2.0)


@settings(deadline=None)  # sockets wait for the machine
@given(
    st.sampled_from(["<f2", "<f4", "<f8", "<i4", "<i8"]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=1, min_side=0, max_side=9))
    ),
    st.dictionaries(st.text(max_size=5), st.floats() | st.integers() | st.text(max_size=20) | st.none()),
)
def test_numbers_arrive_to_the_last_bit(array, fields):
    message = passed_on(wire.encode(Message(kind="k", fields=fields, arrays={"first": array, "second": array})))
    for name in ("first", "second"):
        arrived = message.array(name)
        assert (arrived.dtype, arrived.shape, arrived.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert arrived.flags.writeable
    assert message.kind == "k"
    assert repr(message.fields) == repr(fields)


def test_big_endian_numbers_arrive_as_numbers():
    assert passed_on(wire.encode(Message(kind="k", arrays={"a": np.array([1.5], ">f4")}))).array("a").tolist() == [1.5]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"GET / HTTP/1.1\r\nHost: robot\r\n\r\n", "a header of 1195725856 bytes"),
        (struct.pack(">I", wire.MAX_HEADER_BYTES + 1), f"a header of {wire.MAX_HEADER_BYTES + 1} bytes"),
        (frame(b"no json"), "no JSON"),
        (frame(b"[" * 60_000), "no JSON"),
        (frame(b"9" * 60_000), "no JSON"),
        (frame(b"\xff\xfe{}"), "no JSON"),
        (frame([1]), "without kind, arrays and fields"),
        (frame({"kind": "k", "arrays": []}), "without kind, arrays and fields"),
        (frame({"kind": 3, "arrays": [], "fields": {}}), "of other types"),
        (frame({"kind": "k", "arrays": [["a", "|O", [1]]], "fields": {}}), "none of a flat one of numbers"),
        (frame({"kind": "k", "arrays": [["a", "<f4", [-1]]], "fields": {}}), "none of a flat one of numbers"),
        (frame({"kind": "k", "arrays": [["a", "<f4", [True]]], "fields": {}}), "none of a flat one of numbers"),
        (frame({"kind": "k", "arrays": [["a", "<f4", [2, 2]]], "fields": {}}), "none of a flat one of numbers"),
        (frame({"kind": "k", "arrays": [["a", "<f4", [1 << 22]], ["b", "<f4", [1]]], "fields": {}}), "more than 16777"),
    ],
)
def test_what_is_no_frame_is_refused_before_its_arrays_are_read(sent, message):
    with pytest.raises(ProtocolError, match=message):
        passed_on(sent)


@settings(deadline=None)  # sockets wait for the machine
@given(st.binary(max_size=200) | st.binary(max_size=200).map(frame))
def test_whatever_comes_is_a_message_or_a_lost_connection(sent):
    with pytest.raises(ConnectionError):
        passed_on(sent)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a", "<f4", "<f8"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@settings(deadline=None)  # sockets wait for the machine
@given(st.fixed_dictionaries({"kind": st.just("k") | JSON_VALUES, "arrays": JSON_VALUES, "fields": JSON_VALUES}))
def test_whatever_a_header_says_is_a_message_or_a_lost_connection(header):
    try:
        message = passed_on(frame(header, bytes(64)))
    except ConnectionError:
        return
    assert isinstance(message.kind, str)
    assert sum(array.nbytes for array in message.arrays.values()) <= 64


def test_a_frame_that_is_cut_off_is_a_lost_connection():
    whole = wire.encode(Message(kind="k", arrays={"a": np.zeros(3)}))
    for length in range(len(whole)):
        with pytest.raises(ConnectionError, match="closed the connection"):
            passed_on(whole[:length])


def test_a_frame_that_does_not_go_on_is_given_up():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\0\0")
        with pytest.raises(TimeoutError):
            wire.receive(theirs, 0.02)


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (Message(kind="k", arrays={"a": np.zeros(wire.MAX_ARRAY_BYTES // 8 + 1)}), "expected at most 65536 and 16777"),
        (Message(kind="k", fields={"a": "x" * wire.MAX_HEADER_BYTES}), "expected at most 65536"),
        (Message(kind="k", arrays={"image": np.zeros(2, np.uint8)}), "image is of type uint8, expected one of <f2"),
        (Message(kind="k", arrays={"names": np.array(["a"])}), "names is of type <U1"),
        (Message(kind="k", fields={"a": {1, 2}}), "JSON has no word for"),
    ],
)
def test_what_the_wire_has_no_words_for_is_not_sent(message, match):
    with pytest.raises(ValueError, match=match):
        wire.encode(message)


def test_a_field_is_of_the_type_that_is_expected():
    message = Message(kind="k", fields={"truth": True, "number": 3}, arrays={"a": np.zeros(2)})
    assert message.get("truth", bool) is True
    assert message.get("number", int) == 3
    message.expect("k")
    for ask in (
        lambda: message.get("truth", int),
        lambda: message.get("number", bool),
        lambda: message.get("nothing", int),
        lambda: message.array("b"),
        lambda: message.array("a", (3,)),
        lambda: message.expect("other"),
    ):
        with pytest.raises(ProtocolError):
            ask()


def test_a_proof_depends_on_token_and_nonce():
    assert wire.proof("token", "1") == wire.proof("token", "1")
    assert len({wire.proof("token", "1"), wire.proof("token", "2"), wire.proof("other", "1")}) == 3
