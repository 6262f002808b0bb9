"""A served environment is the environment itself, over real sockets; what goes wrong is said."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from iql_ray.envs.action_limits import ActionLimits, LimitedActions
from iql_ray.envs.catalog import environment_spaces, make_env, spaces_of
from iql_ray.envs.external import EnvironmentServer, client, connect, server, wire
from iql_ray.envs.external.session import plain_info
from iql_ray.envs.external.wire import TOKEN_VARIABLE, Message
from iql_ray.evaluation.episodes import run_group
from tests.evaluation.toys import BrokenEnv, ChaoticEnv, CountingEnv, random_policy


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(client, "RECONNECT_SECONDS", 0.0)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@contextlib.contextmanager
def served(*environments: gymnasium.Env, **options: Any) -> Iterator[str]:
    """The address of a server in a thread."""
    with EnvironmentServer(environments, **options) as running:
        thread = threading.Thread(target=running.serve)
        thread.start()
        try:
            yield running.address
        finally:
            running.stop()
            thread.join()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def dial(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(address)), 5.0)


def let_in(address: str, proof: str = "") -> tuple[socket.socket, Message]:
    """A client by hand, and what the server says to its hello."""
    connection = dial(address)
    assert wire.receive(connection, 5.0).kind == "challenge"
    hello = {"protocol": wire.PROTOCOL_VERSION, "proof": proof}
    wire.send(connection, Message(kind="hello", fields=hello), 5.0)
    return connection, wire.receive(connection, 5.0)


def is_sent_away(connection: socket.socket) -> bool:
    """We have said everything, and the server hangs up, after whatever it still has to say."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    return True


class DoubleEnv(gymnasium.Env):
    """Random observations in float64 with an open bound, rewards that float32 cannot hold."""

    observation_space = Box(np.array([-np.inf, 0.0]), np.array([np.inf, 1.0]), dtype=np.float64)
    action_space = Box(-0.1, 0.3, (2,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return self.np_random.normal(size=2), {"options": options is not None}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation = self.np_random.normal(size=2)
        return observation, float(observation[0] * action[0]), False, bool(observation[1] > 1), {}


class GoneEnv(CountingEnv):
    """Counts how often its client was gone."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = threading.Semaphore(0)
        self.num_gone = 0

    def on_client_gone(self) -> None:
        self.num_gone += 1
        self.gone.release()


class StuckEnv(CountingEnv):
    """Hangs in its step until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.let_go.wait(10)
        return super().step(action)


def history(environment: gymnasium.Env, num_steps: int) -> list[Any]:
    """Everything an environment gives under fixed actions, as bytes where it is arrays."""
    environment.action_space.seed(0)
    observation, _ = environment.reset(seed=7)
    seen: list[Any] = [(observation.dtype, observation.tobytes())]
    for _ in range(num_steps):
        observation, reward, is_terminated, is_truncated, _ = environment.step(environment.action_space.sample())
        seen.append((observation.dtype, observation.tobytes(), float(reward).hex(), is_terminated, is_truncated))
        if is_terminated or is_truncated:
            seen.append(environment.reset()[0].tobytes())
    return seen


@pytest.mark.parametrize(
    "make",
    [lambda: gymnasium.make("Pendulum-v1"), lambda: gymnasium.make("CartPole-v1"), DoubleEnv],
    ids=["Pendulum", "CartPole", "float64"],
)
def test_a_served_environment_is_the_environment_bit_for_bit(make):
    direct = make()
    with served(make()) as address:
        external = make_env(address)
        assert external.observation_space == direct.observation_space
        assert external.action_space == direct.action_space
        assert history(external, 450) == history(direct, 450)
        external.close()
        assert environment_spaces(address) == spaces_of(direct)


def test_evaluation_gives_the_same_returns_over_sockets():
    policy, seeds = random_policy(), (1, 2, 3)
    direct = run_group(policy, [ChaoticEnv() for _ in seeds], seeds)
    with served(*(ChaoticEnv() for _ in seeds)) as address:
        external = [connect(address) for _ in seeds]
        assert run_group(policy, external, seeds) == direct
        for each in external:
            each.close()


def test_an_environment_that_says_of_success_says_it_through_the_wire():
    with served(CountingEnv("is_success")) as address:
        external = connect(address)
        external.reset(seed=2)
        infos = [external.step(np.zeros(1, np.float32))[-1] for _ in range(3)]
        assert [info["is_success"] for info in infos] == [False, True, False]
        external.close()


def test_of_an_info_pass_numbers_truths_and_short_texts():
    info = {"a": np.float32(0.5), "b": np.True_, "c": "text", "d": None, "e": np.zeros(3), "f": "x" * 2000, "g": [1]}
    assert plain_info({**info, "h": np.int64(3)}) == {"a": 0.5, "b": True, "c": "text", "d": None, "h": 3}


def test_options_of_a_reset_are_passed_on():
    with served(DoubleEnv()) as address:
        external = connect(address)
        assert external.reset(options={"start": 1})[1] == {"options": True}
        assert external.reset()[1] == {"options": False}
        external.close()


def test_limits_on_the_servers_side_say_what_was_executed():
    with served(LimitedActions(CountingEnv(), ActionLimits(high=(0.25,)))) as address:
        external = connect(address)
        external.reset(seed=0)
        assert external.step(np.ones(1, np.float32))[-1]["executed_action"].tolist() == [0.25]
        external.close()


def test_a_second_client_is_told_who_has_the_environment_and_comes_in_when_that_one_leaves():
    with served(CountingEnv()) as address:
        first = connect(address)
        with pytest.raises(ValueError, match=rf"at 127.0.0.1:{port_of(address)} refuses: taken by 127.0.0.1:\d+"):
            connect(address)
        first.reset(seed=0)
        first.close()
        second = connect(address)
        second.reset(seed=0)
        with pytest.raises(ConnectionError, match=r"no connection for 0 s: .* refuses: taken by"):
            first.reset(seed=0)
        second.close()


def test_the_token_is_asked_for(monkeypatch):
    with served(CountingEnv(), token="open sesame") as address:
        for wrong in ("", "open sesam"):
            with pytest.raises(ValueError, match=f"token is missing or wrong; set {TOKEN_VARIABLE}"):
                connect(address, token=wrong)
        for wrong in ("open sesame", "\ud800"):
            connection, answer = let_in(address, proof=wrong)
            assert answer.kind == "refused"
            connection.close()
        connect(address, token="open sesame").close()
        monkeypatch.setenv(TOKEN_VARIABLE, "open sesame")
        make_env(address).close()


def test_a_server_beyond_this_machine_needs_a_token():
    for host in ("0.0.0.0", "", "::"):
        with pytest.raises(ValueError, match=f"set a token \\(in {TOKEN_VARIABLE}\\)"):
            EnvironmentServer([CountingEnv()], host=host)


def test_environments_of_one_server_are_alike():
    with pytest.raises(ValueError, match="of equal spaces"):
        EnvironmentServer([CountingEnv(), DoubleEnv()])
    with pytest.raises(ValueError, match="at least one"):
        EnvironmentServer([])


def test_what_the_environment_raises_is_told_and_the_next_episode_is_served():
    with served(BrokenEnv()) as address:
        external = connect(address)
        for _ in range(2):
            external.reset(seed=0)
            external.step(np.zeros(1, np.float32))
            with pytest.raises(RuntimeError, match=r"127.0.0.1:\d+: step raised there RuntimeError: broken on purpose"):
                external.step(np.zeros(1, np.float32))
        external.close()


@pytest.mark.parametrize("action", [[1.5], [-1.5], [np.nan], [0.0, 0.0], 0.0])
def test_an_action_outside_the_action_space_is_not_executed(action):
    environment = CountingEnv()
    with served(environment) as address:
        external = connect(address)
        external.reset(seed=0)
        with pytest.raises(RuntimeError, match=r"outside the action space .* nothing was executed"):
            external.step(np.array(action, np.float32))
        external.close()
    assert environment.num_steps == 0


@pytest.mark.parametrize("choice", [-1, 2, 0.0, [1]])
def test_a_choice_that_there_is_not_is_not_taken(choice):
    with served(gymnasium.make("CartPole-v1")) as address:
        external = connect(address)
        external.reset(seed=0)
        with pytest.raises(RuntimeError, match=r"outside the action space Discrete\(2\)"):
            external.step(choice)
        external.close()


def test_a_policys_bounds_are_the_environments_in_float32():
    with served(DoubleEnv()) as address:
        external = connect(address)
        external.reset(seed=0)
        external.step(np.array([-0.1, 0.3], np.float32))  # both lie outside of the float64 box
        external.close()


def test_a_step_before_the_reset_is_refused():
    with served(CountingEnv()) as address:
        external = connect(address)
        with pytest.raises(RuntimeError, match="reset first"):
            external.step(np.zeros(1, np.float32))
        external.close()


def test_a_server_that_goes_within_an_episode_is_named_and_the_next_reset_finds_the_new_one():
    with served(CountingEnv()) as address:
        external = connect(address)
        external.reset(seed=0)
        external.step(np.zeros(1, np.float32))
    with pytest.raises(ConnectionError, match=rf"{port_of(address)}: connection lost in step 2 of an episode: "):
        external.step(np.zeros(1, np.float32))
    with pytest.raises(ConnectionError, match=r"not connected, reset it first"):
        external.step(np.zeros(1, np.float32))
    with pytest.raises(ConnectionError, match=rf"{port_of(address)}: no connection for 0 s: .*refused"):
        external.reset(seed=0)
    with served(CountingEnv(), port=port_of(address)):
        assert external.reset(seed=5)[0].tolist() == [0, 5]
        external.close()


def test_a_server_that_restarts_between_episodes_is_not_noticed():
    with served(CountingEnv()) as address:
        external = connect(address)
        external.reset(seed=0)
    with served(CountingEnv(), port=port_of(address)):
        assert external.reset(seed=3)[0].tolist() == [0, 3]
        external.close()


def test_one_who_was_let_in_before_waits_for_the_server_to_come_back(monkeypatch):
    monkeypatch.setattr(client, "RECONNECT_SECONDS", 60.0)
    with served(CountingEnv()) as address:
        external = connect(address)
        external.close()
    is_over = threading.Event()

    def come_back() -> None:
        time.sleep(0.3)
        with served(CountingEnv(), CountingEnv(), port=port_of(address)):
            is_over.wait()

    thread = threading.Thread(target=come_back)
    thread.start()
    try:
        made_anew = connect(address)
        assert made_anew.reset(seed=1)[0].tolist() == [0, 1]
        assert external.reset(seed=2)[0].tolist() == [0, 2]
        made_anew.close()
    finally:
        external.close()
        is_over.set()
        thread.join()


def test_another_environment_at_the_same_address_is_refused():
    with served(CountingEnv()) as address:
        external = connect(address)
    with (
        served(DoubleEnv(), port=port_of(address)),
        pytest.raises(ConnectionError, match=r"has other spaces than before: .* expected"),
    ):
        external.reset(seed=0)


def test_a_step_that_takes_too_long_ends_the_episode():
    environment = StuckEnv()
    with served(environment) as address:
        external = connect(address, timeout_seconds=0.05)
        external.reset(seed=0)
        with pytest.raises(ConnectionError, match="connection lost in step 1 of an episode: timed out"):
            external.step(np.zeros(1, np.float32))
        environment.let_go.set()


def test_an_environment_is_told_when_its_client_is_lost_within_an_episode():
    environment = GoneEnv()
    with served(environment) as address:
        connection, _ = let_in(address)
        wire.send(connection, Message(kind="reset", fields={"seed": 0, "options": None}), 5.0)
        assert wire.receive(connection, 5.0).kind == "observed"
        connection.close()
        assert environment.gone.acquire(timeout=10)


def test_an_environment_is_told_when_its_client_or_server_ends_within_an_episode_alone():
    environment = GoneEnv()
    with served(environment) as address:
        external = connect(address)
        external.close()
        external.reset(seed=0)
        assert [external.step(np.zeros(1, np.float32))[2] for _ in range(3)] == [False, False, True]
        external.close()
        assert environment.num_gone == 0
        external.reset(seed=0)
        external.close()
        assert environment.num_gone == 1
        external.reset(seed=0)
    assert environment.num_gone == 2
    external.close()


def test_a_client_that_falls_silent_within_an_episode_is_gone():
    environment = GoneEnv()
    with served(environment, max_idle_seconds=0.05) as address:
        external = connect(address)
        external.reset(seed=0)
        assert environment.gone.acquire(timeout=10)
        with pytest.raises(ConnectionError, match="connection lost in step 1"):
            external.step(np.zeros(1, np.float32))


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\2{}", b"\xff" * 9, b""])
def test_garbage_is_sent_away_and_the_server_goes_on(sent):
    with served(CountingEnv()) as address:
        with dial(address) as stranger:
            stranger.sendall(sent)
            assert is_sent_away(stranger)
        client_gone_mad, welcome = let_in(address)
        assert welcome.kind == "welcome"
        with client_gone_mad:
            client_gone_mad.sendall(sent)
            assert is_sent_away(client_gone_mad)
        external = connect(address)
        assert external.reset(seed=4)[0].tolist() == [0, 4]
        external.close()


def test_what_cannot_be_asked_for_ends_the_connection():
    with served(CountingEnv()) as address:
        for request in (
            Message(kind="render"),
            Message(kind="step"),
            Message(kind="reset", fields={"seed": "x", "options": None}),
        ):
            connection, _ = let_in(address)
            with connection:
                wire.send(connection, request, 5.0)
                assert is_sent_away(connection)
        connect(address).close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\2{}", b""])
def test_something_else_that_answers_is_named(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer)

        thread = threading.Thread(target=answer_once)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(ValueError, match=rf"external environment at 127.0.0.1:{port}: "):
            connect(f"127.0.0.1:{port}")
        thread.join()


def test_where_nobody_serves_the_message_says_how_to():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(
        ValueError, match=rf"Connection refused.* python -m iql_ray.envs.external --env ENV --port {port}"
    ):
        make_env(f"external://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "address", ["external://", "external://host", "external://host:port", "http://host:1", "external://host:70000", ""]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="no address of an external environment, expected external://HOST:PORT"):
        connect(address)


def test_served_from_the_command_line_with_gymnasium_and_numpy_alone():
    command = [sys.executable, "-m", "iql_ray.envs.external", "--env", "tests.envs.printing:PrintingEnv"]
    environment = {**os.environ, TOKEN_VARIABLE: "secret"}
    process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    with process:
        try:
            address = process.stdout.readline().strip()
            external = connect(address, token="secret")
            heavy = external.reset(seed=0)[1]["heavy"]
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "gone\n"
        external.close()
    assert heavy == ""
    assert process.returncode == 0


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_example_serves_a_system_that_comes_to_rest(ending: signal.Signals):
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "examples/served_pendulum.py"), "--port", "0"]
    paths = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=paths)
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        try:
            external = connect(process.stderr.readline().split()[-1])
            external.reset(seed=0)
            executed = external.step(np.array([2.0], np.float32))[-1]["executed_action"].tolist()
            external.close()
        finally:
            process.send_signal(ending)
        assert process.stdout.read() == "client gone, motor off\n"
    assert executed == [1.5]
    assert process.returncode == 0


def test_a_mistake_at_the_command_line_is_one_line():
    command = [sys.executable, "-m", "iql_ray.envs.external", "--env", "Pendulum-v1", "--host", "0.0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: host is 0.0.0.0, beyond this machine: set a token")
