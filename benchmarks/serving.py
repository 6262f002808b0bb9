"""python benchmarks/serving.py [--seconds 5] [--rounds 3] [--out benchmarks/results/serving.json]

How long a registered policy (17 observations, 256 x 256, 6 actions) takes: in this process, one row and many; and
behind HTTP, by MLflow's own server, by Ray Serve's proxy and by its serving process itself, each asked by 32 clients
that wait for their answer before they ask again. The client runs on the same machine; servers take turns, so that a
busy machine slows all of them alike.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before numpy is imported

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._http_load import Reply, answers, free_port, running, send_load, serve_command, wait_until
from benchmarks._result import write_result
from iql_ray.policy import Policy, PolicyDescription
from iql_ray.tracking.registry import log_policy_model
from iql_ray.tracking.store import default_tracking_uri, open_client

OBSERVATIONS, ACTIONS, WIDTH, NUM_CONNECTIONS = 17, 6, 256, 32


def make_policy(seed: int = 0) -> Policy:
    """As wide as the paper's, with weights at random."""
    generator, sizes = np.random.default_rng(seed), (OBSERVATIONS, WIDTH, WIDTH, ACTIONS)
    weights = {"log_std": np.zeros(ACTIONS, np.float32)}
    for name, inputs, outputs in zip(("hidden.0", "hidden.1", "mean"), sizes, sizes[1:], strict=False):
        weights[f"{name}.weight"] = generator.normal(scale=inputs**-0.5, size=(inputs, outputs)).astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(outputs, np.float32)
    description = PolicyDescription(
        observation_dim=OBSERVATIONS,
        num_hidden_layers=2,
        action_low=(-1.0,) * ACTIONS,
        action_high=(1.0,) * ACTIONS,
        log_std_min=-5.0,
        log_std_max=2.0,
    )
    return Policy(weights, description)


def register(policy: Policy, storage: Path) -> str:
    """The policy as version 1 of `bench`, its champion; returns where its model lies."""
    client, folder = open_client(default_tracking_uri(storage)), storage / "policy"
    folder.mkdir(parents=True)
    policy.save(folder)
    run_id = client.create_run(client.create_experiment("bench", str(storage / "mlartifacts"))).info.run_id
    log_policy_model(client, run_id, folder, register_as="bench")
    client.set_registered_model_alias("bench", "champion", "1")
    source = client.get_model_version("bench", "1").source
    assert source is not None
    return source


def milliseconds(function: Callable[[], Any], seconds: float = 1.0) -> dict[str, float]:
    """Median and 99th percentile of one call."""
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 20:
        started = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - started))
    return {"median": statistics.median(times), "p99": float(np.percentile(times, 99))}


def in_process(model_path: str, policy: Policy) -> dict[str, dict[str, float]]:
    """Milliseconds a call, by what is called with how many rows."""
    import mlflow.pyfunc

    started = time.perf_counter()
    model = mlflow.pyfunc.load_model(model_path)
    load = 1000 * (time.perf_counter() - started)
    one, many = np.zeros((1, OBSERVATIONS)), np.zeros((10_000, OBSERVATIONS))
    return {
        "load the model": {"median": load, "p99": load},
        "predict, one row": milliseconds(lambda: model.predict(one)),
        "predict, 10,000 rows": milliseconds(lambda: model.predict(many)),
        "numpy folder alone, one row": milliseconds(lambda: policy.act(one)),
    }


def load(port: int, seconds: float) -> dict[str, float]:
    """Requests a second and milliseconds a request, with one observation each."""
    rows, replies = np.random.default_rng(0).normal(size=(100, OBSERVATIONS)), list[Reply]()
    until = time.monotonic() + seconds
    asyncio.run(
        send_load(
            port, rows, num_connections=NUM_CONNECTIONS, is_over=lambda: time.monotonic() > until, replies=replies
        )
    )
    times = [1000 * reply.seconds for reply in replies]
    return {
        "requests_per_second": len(replies) / seconds,
        "median_milliseconds": statistics.median(times),
        "p99_milliseconds": float(np.percentile(times, 99)),
    }


def behind_http(model_path: str, storage: Path, seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """The median round of each server."""
    mlflow_port, port, direct_port = free_port(), free_port(), free_port()
    programs = Path(sys.executable).parent
    of_mlflow = ("models", "serve", "-m", model_path, "--env-manager", "local", "--port", str(mlflow_port))
    ours = ("--model", "models:/bench@champion", "--tracking-uri", default_tracking_uri(storage))
    ports = ("--port", str(port), "--direct-port", str(direct_port))
    path = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    log, mlflow_log = storage / "serve.log", storage / "mlflow.log"
    with (
        running(serve_command(*ours, *ports), log) as process,
        running([str(programs / "mlflow"), *of_mlflow, "--host", "127.0.0.1"], mlflow_log, path) as mlflow_process,
    ):
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/status"), process, log)
        wait_until(lambda: answers(f"http://127.0.0.1:{mlflow_port}/ping"), mlflow_process, mlflow_log)
        servers = {"mlflow models serve": mlflow_port, "iql-ray serve": port, "iql-ray serve, direct port": direct_port}
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
        for _ in range(rounds):
            for name, its_port in servers.items():
                measured[name].append(load(its_port, seconds))
    return {
        name: sorted(each, key=lambda figures: figures["requests_per_second"])[rounds // 2]
        for name, each in measured.items()
    }


def main() -> None:
    """Measure, print two tables, and the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of load for each server in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None, help="also write the JSON here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        storage, policy = Path(temporary), make_policy()
        model_path = register(policy, storage)
        calls = in_process(model_path, policy)
        servers = behind_http(model_path, storage, arguments.seconds, arguments.rounds)
    print(f"{'in one process':32} {'ms':>9} {'99th':>9}")
    for name, figures in calls.items():
        print(f"{name:32} {figures['median']:9.3f} {figures['p99']:9.3f}")
    print(f"{f'{NUM_CONNECTIONS} HTTP clients':32} {'req/s':>9} {'ms':>9} {'99th':>9}")
    for name, figures in servers.items():
        print(f"{name:32} " + " ".join(f"{value:9.1f}" for value in figures.values()))
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    result = {"cores": os.cpu_count(), "load_average": busy, "milliseconds": calls, "servers": servers}
    write_result(result, arguments.out)


if __name__ == "__main__":
    main()
