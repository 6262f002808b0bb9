"""A slow network on this machine: a network namespace for each node, and a relay between them that delays and loses.

The relay is a thread here that passes IP packets between TUN devices, because not every kernel has `tc netem`. It asks
for root on Linux; everything that it makes is gone when it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUBNET = "10.213.77"
TUN = Path("/dev/net/tun")
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PACKET_BYTES = 65_535
MTU = 1500
DESTINATION = slice(16, 20)
"""Of an IPv4 header."""
IDLE_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Network:
    """What becomes of a packet from one node to another."""

    delay_milliseconds: float = 0.0
    loss_percent: float = 0.0


def can_be_slow() -> bool:
    """Whether this machine lets us have networks of our own."""
    return sys.platform == "linux" and os.geteuid() == 0 and TUN.exists() and shutil.which("ip") is not None


@contextlib.contextmanager
def slow_network(network: Network, num_nodes: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of the head, which is in this process's own namespace; of every other node its address, and the
    words before its commands."""
    with contextlib.ExitStack() as stack:
        devices = [_device(stack, number) for number in range(num_nodes + 1)]
        addresses = [f"{SUBNET}.{number + 1}" for number in range(num_nodes + 1)]
        places: list[dict[str, Any]] = []
        for number, address in enumerate(addresses):
            enter: Sequence[str] = ()
            if number:
                space = f"iqlspace{number}"
                _do("ip", "netns", "add", space)
                stack.callback(_do, "ip", "netns", "del", space)
                _do("ip", "link", "set", _name(number), "netns", space)
                enter = ("ip", "netns", "exec", space)
                _do(*enter, "ip", "link", "set", "lo", "up")
                places.append({"address": address, "prefix": enter})
            _do(*enter, "ip", "addr", "add", f"{address}/24", "dev", _name(number))
            _do(*enter, "ip", "link", "set", _name(number), "mtu", str(MTU), "up")
        relay = Relay(dict(zip(addresses, devices, strict=True)), network)
        stack.callback(relay.stop)
        yield addresses[0], places


class Relay:
    """Hands every packet on to the node that it is for, late or never."""

    def __init__(self, devices: dict[str, int], network: Network) -> None:
        self._devices = {socket.inet_aton(address): device for address, device in devices.items()}
        self._network = network
        self._generator = random.Random(0)
        self._late: list[tuple[float, int, int, bytes]] = []
        self._num_seen = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.is_set():
            wait = self._late[0][0] - time.monotonic() if self._late else IDLE_SECONDS
            readable, _, _ = select.select(list(self._devices.values()), [], [], max(0.0, min(wait, IDLE_SECONDS)))
            for device in readable:
                self._take(os.read(device, PACKET_BYTES))
            while self._late and self._late[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(self._late)
                with contextlib.suppress(OSError):  # the device is going down
                    os.write(device, packet)

    def _take(self, packet: bytes) -> None:
        """Keep a packet for its time; those for nobody here, and those of bad luck, are dropped."""
        device = self._devices.get(packet[DESTINATION])
        if device is None or self._generator.random() < self._network.loss_percent / 100:
            return
        self._num_seen += 1
        due = time.monotonic() + self._network.delay_milliseconds / 1000
        heapq.heappush(self._late, (due, self._num_seen, device, packet))


def _device(stack: contextlib.ExitStack, number: int) -> int:
    """A TUN device of this process, which takes it along when it closes it."""
    device = os.open(TUN, os.O_RDWR)
    stack.callback(os.close, device)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", _name(number).encode(), IFF_TUN | IFF_NO_PI))
    return device


def _name(number: int) -> str:
    return f"iqltun{number}"


def _do(*words: str) -> None:
    subprocess.run(words, check=True)
