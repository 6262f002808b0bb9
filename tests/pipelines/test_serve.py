"""`iql-ray serve` in a process of its own, under load, while the champion changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks._http_load import (
    Reply,
    free_port,
    get,
    post,
    printed,
    running,
    send_load,
    serve_command,
    stop,
    wait_until,
)
from pipelines import serve
from tests.documented import commands, replaced
from tests.tracking.examples import small_policy
from tests.tracking.registered import NAME, Registry

POLICIES = {"1": small_policy(0), "2": small_policy(1)}
ROWS = np.random.default_rng(0).normal(size=(50, 3))
NUM_CONNECTIONS = 32


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that follows the champion, version 1 at first."""
    folder = tmp_path_factory.mktemp("server")
    registry, port, direct_port = Registry(folder, tmp_path_factory), free_port(), free_port()
    for policy in POLICIES.values():
        registry.register(policy)
    registry.crown("1")
    (documented,) = commands("serving.md", "iql-ray serve")
    here = {"models:/pendulum@champion": f"models:/{NAME}@champion", "8000": str(port), "8001": str(direct_port)}
    arguments = replaced(documented, here)[2:]
    command = serve_command(*arguments, "--tracking-uri", registry.tracking_uri, "--poll-seconds", "0.5")
    with running(command, folder / "log") as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: "serving models:" in (folder / "log").read_text(), process, folder / "log")
        yield SimpleNamespace(
            registry=registry, process=process, log=folder / "log", url=url, port=port, direct_port=direct_port
        )


@pytest.mark.ray
def test_an_http_client_gets_the_policys_actions(server):
    status, message = post(f"{server.url}/invocations", {"inputs": ROWS[:2].tolist()})
    assert (status, message["version"]) == (200, "1")
    np.testing.assert_allclose(message["predictions"], POLICIES["1"].act(ROWS[:2]), rtol=1e-5)
    status, message = post(f"http://127.0.0.1:{server.direct_port}/invocations", {"inputs": ROWS[0].tolist()})
    assert status == 200
    np.testing.assert_allclose(message["predictions"], POLICIES["1"].act(ROWS[0]), rtol=1e-5)


@pytest.mark.ray
def test_the_documented_requests_are_answered(server):
    asking, of_status = [words for words in commands("serving.md", "curl") if ":8000" in words[1]]
    status, message = post(asking[1].replace(":8000", f":{server.port}"), asking[asking.index("-d") + 1].encode())
    assert (status, message["version"], len(message["predictions"])) == (200, "1", 1)
    assert get(of_status[1].replace(":8000", f":{server.port}"))["version"] == "1"


@pytest.mark.ray
def test_a_request_that_does_not_fit_is_refused_with_its_reason(server):
    status, message = post(f"{server.url}/invocations", {"inputs": [[1.0, 2.0]]})
    assert status == 400
    assert "observations have shape (1, 2), expected (3,) or (batch, 3)" in message["error"]
    assert post(f"{server.url}/invocations", b"{")[0] == 400
    assert post(f"{server.url}/elsewhere", {})[0] == 404


@pytest.mark.ray
def test_a_load_across_a_change_of_champion_loses_nothing_and_mixes_nothing(server):
    """Every answer names its version and is that version's action; after the change only the new one answers."""
    replies: list[Reply] = []
    moved_at = asyncio.run(_load_across_a_move(server, replies))
    for version, policy in POLICIES.items():
        own = [reply for reply in replies if reply.version == version]
        expected = policy.act(ROWS)[[reply.row for reply in own]]
        np.testing.assert_allclose([reply.predictions for reply in own], expected, rtol=1e-4, atol=1e-5)
    counts = Counter(reply.version for reply in replies)
    assert counts.keys() == {"1", "2"}
    assert min(counts.values()) >= 500
    first_new = min(reply.sent_at + reply.seconds for reply in replies if reply.version == "2")
    assert first_new > moved_at
    assert {reply.version for reply in replies if reply.sent_at > first_new} == {"2"}
    wait_until(lambda: "changed over to version 2" in server.log.read_text(), server.process, server.log)


async def _load_across_a_move(server, replies: list[Reply]) -> float:
    """Send until both versions have answered 500 times; returns when the alias was moved."""
    counts = Counter()

    def is_over() -> bool:
        counts.update(reply.version for reply in replies[counts.total() :])
        return counts["2"] >= 500

    load = asyncio.create_task(
        send_load(server.direct_port, ROWS, num_connections=NUM_CONNECTIONS, is_over=is_over, replies=replies)
    )
    while len(replies) < 500 and not load.done():
        await asyncio.sleep(0.01)
    moved_at = time.monotonic()
    await asyncio.to_thread(server.registry.crown, "2")
    await load
    return moved_at


@pytest.mark.ray
def test_a_registry_that_is_away_is_said_and_the_last_version_goes_on(server):
    version = get(f"{server.url}/status")["version"]
    with out_of_order(server.registry.storage / "mlflow.db"):
        wait_until(lambda: get(f"{server.url}/status")["problem"] is not None, server.process, server.log)
        assert f"still version {version} of '{NAME}'" in get(f"{server.url}/status")["problem"]
        assert post(f"{server.url}/invocations", {"inputs": ROWS[0].tolist()})[1]["version"] == version
        wait_until(lambda: "warning: still version" in server.log.read_text(), server.process, server.log)
    wait_until(lambda: get(f"{server.url}/status")["problem"] is None, server.process, server.log)


@contextlib.contextmanager
def out_of_order(database: Path) -> Iterator[None]:
    """The store cannot say where an alias points: its table goes by another name for a while."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("ALTER TABLE registered_model_aliases RENAME TO aside")
        try:
            yield
        finally:
            connection.execute("ALTER TABLE aside RENAME TO registered_model_aliases")


@pytest.mark.ray
def test_it_listens_on_loopback_alone_and_stops_when_asked(server):
    address = _own_address()
    for port in (server.port, server.direct_port):
        assert _is_open("127.0.0.1", port)
        assert address is None or not _is_open(address, port)
    stop(server.process)
    result = json.loads(printed(server.log).read_text().splitlines()[-1])
    assert server.process.returncode == 0
    assert result["url"] == f"{server.url}/invocations"
    assert not _is_open("127.0.0.1", server.port)


def _own_address() -> str | None:
    """This machine's address towards others, where it has one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return probe.getsockname()[0]


def _is_open(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--model", "models:/m@champion", "--tracking-uri", "sqlite:////nowhere/mlflow.db"),
            "store .* does not exist",
        ),
        (("--model", "runs/1/policy"), "expected models:/NAME/VERSION or models:/NAME@ALIAS"),
        (("--model", "models:/m/1", "--port", "0"), "port is 0, expected 1 to 65535"),
        (("--model", "models:/m/1", "--direct-port", "8000"), "port and direct_port are both 8000"),
        (("--model", "models:/m/1", "--poll-seconds", "0"), "poll_seconds is 0"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_starts(capsys, tmp_path, arguments, message):
    assert serve.main([*arguments, "--storage", str(tmp_path)]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_missing_champion_and_a_taken_port_are_said(capsys, tmp_path, tmp_path_factory):
    registry = Registry(tmp_path, tmp_path_factory)
    registry.register(small_policy())
    where = ["--tracking-uri", registry.tracking_uri, "--port", str(free_port())]
    assert serve.main(["--model", f"models:/{NAME}@champion", *where]) == 2
    assert f"no version of '{NAME}' has the alias 'champion'" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert serve.main(["--model", f"models:/{NAME}/1", *where[:2], "--port", port]) == 2
    assert f"cannot listen at 127.0.0.1, port {port}" in capsys.readouterr().err
