"""The relay that measurements over a slow network rest on: packets arrive where they are sent, or are lost as asked."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from benchmarks._slow_network import Network, Relay

ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")


@pytest.fixture
def devices() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Of each node: its end, and the relay's."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in ADDRESSES]
    for mine, _ in pairs:
        mine.settimeout(30)
    yield pairs
    for mine, theirs in pairs:
        mine.close()
        theirs.close()


def packet(address: str, words: bytes) -> bytes:
    """As IPv4 has it, as far as the relay looks."""
    return bytes(16) + socket.inet_aton(address) + words


def relay_of(devices: list[tuple[socket.socket, socket.socket]], network: Network) -> Relay:
    return Relay({address: pair[1].fileno() for address, pair in zip(ADDRESSES, devices, strict=True)}, network)


def test_packets_arrive_in_order_at_the_node_that_they_are_for(devices: list[tuple[socket.socket, socket.socket]]):
    relay = relay_of(devices, Network(delay_milliseconds=1.0))
    first, second, third = (mine for mine, _ in devices)
    for number in range(5):
        first.send(packet("10.0.0.3", b"%d" % number))
        second.send(packet("10.0.0.1", b"%d" % number))
    assert [third.recv(100)[20:] for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    assert [first.recv(100)[20:] for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    relay.stop()


def test_what_is_for_nobody_is_dropped_and_so_is_a_share_of_the_rest(
    devices: list[tuple[socket.socket, socket.socket]],
):
    relay = relay_of(devices, Network(loss_percent=50.0))
    first, second, _ = (mine for mine, _ in devices)
    first.send(packet("10.0.0.9", b"nobody"))
    for number in range(64):
        first.send(packet("10.0.0.2", b"%d" % number))
    arrived = [int(second.recv(100)[20:]) for _ in range(20)]
    assert arrived == sorted(arrived)
    assert set(range(max(arrived))) - set(arrived), "some are lost on the way"
    relay.stop()
