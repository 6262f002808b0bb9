"""Updates per second of the learner on one CPU thread, against the machine's own limit and against other libraries; or
on a GPU.

    python benchmarks/learner.py [--device cuda] [--peer NAME[=PYTHON] ...] [--out FILE.json]

17 observations, 6 actions, two hidden layers of 256, batch 256, sampling included. Ours, plain, compiled and with
products in bf16; compiled populations; on two threads where there are two cores; the matrix products alone (the limit:
what an update multiplies, at the rate that 256 x 256 products reach in this run); and the peers whose interpreters are
named: jax (`_jax_peer.py`), d3rlpy, torchrl, rllib (`_torch_peers.py`). All in turn, in many short rounds: a machine
that others share changes its speed by the second, so ratios are medians over rounds. The last line is JSON.

On a GPU: one run plain, compiled, and captured (ten updates a CUDA graph) in float32, tf32 and bf16, captured
populations of 16 and 64 members, and the jax peer, which then samples on the GPU too.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks._result import write_result
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.compiled_update import Precision
from iql_ray.algorithm.held_networks import TRAINED
from iql_ray.algorithm.iql_config import IQLConfig, Population
from iql_ray.data.packed import RowLayout, UniformSampler
from iql_ray.distributed.updates import Updates
from iql_ray.experience import Spaces

OBSERVATION_DIM, ACTION_DIM, BATCH_SIZE, NUM_ROWS = 17, 6, 256, 100_000
SPACES = Spaces(
    observation_dim=OBSERVATION_DIM,
    action_dim=ACTION_DIM,
    action_low=(-1.0,) * ACTION_DIM,
    action_high=(1.0,) * ACTION_DIM,
)
TEMPERATURES, EXPECTILES = (0.5, 1.0, 3.0, 10.0), (0.5, 0.7, 0.8, 0.9)
FOUR = Population(seeds=(0,), expectiles=(0.7,), inverse_temperatures=TEMPERATURES)
GRID = Population(seeds=(0,), expectiles=EXPECTILES, inverse_temperatures=TEMPERATURES)
FOUR_GRIDS = replace(GRID, seeds=(0, 1, 2, 3))
JAX_PEER, TORCH_PEERS = Path(__file__).with_name("_jax_peer.py"), Path(__file__).with_name("_torch_peers.py")
PLAIN, COMPILED, BF16, TWO_THREADS = "plain", "compiled", "compiled, bf16", "compiled, 2 threads"
FOUR_TEMPERATURES, FOUR_BY_FOUR, LIMIT = "compiled, 4 inverse temperatures", "compiled, 4 x 4 grid", "limit"
CAPTURED, CAPTURED_TF32, CAPTURED_BF16 = "captured", "captured, tf32", "captured, bf16"
SIXTEEN_MEMBERS, SIXTY_FOUR_MEMBERS = "captured, 16 members", "captured, 64 members"
CUDA = "cuda"
A_MILLION = 1_000_000
ALL_CORES = os.sched_getaffinity(0)
Rates = dict[str, list[float]]


def random_rows() -> torch.Tensor:
    """Packed transitions of noise: the time of an update does not depend on what it learns."""
    layout = RowLayout.of(SPACES)
    rows = torch.randn(NUM_ROWS, layout.width, generator=torch.Generator().manual_seed(0))
    rows[:, OBSERVATION_DIM : OBSERVATION_DIM + ACTION_DIM].clamp_(-1, 1)
    rows[:, -1] = 0
    return rows


def updater(rows: torch.Tensor, **options: Any) -> Callable[[], object]:
    """One update of a fresh agent, sampling included."""
    agent = IQLAgent(IQLConfig(), SPACES, **options)
    sampler = UniformSampler(rows, RowLayout.of(SPACES), BATCH_SIZE, (0,), rank=0)
    return lambda: agent.update(next(sampler))


def on_two_cores(call: Callable[[], float]) -> float:
    """The same with two threads, each on a core."""
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ALL_CORES)
    torch.set_num_threads(2)
    try:
        return call()
    finally:
        torch.set_num_threads(1)
        os.sched_setaffinity(0, pinned)


def num_parameters() -> int:
    """That an update trains."""
    networks = IQLAgent(IQLConfig(), SPACES).networks
    return sum(networks.parameters[name].values.numel() for name in TRAINED)


def flops_per_update(hidden: int = 256) -> int:
    """Multiplications and additions of the matrix products of one update; a first layer has no input gradient."""
    first_value, first_critic = OBSERVATION_DIM * hidden, (OBSERVATION_DIM + ACTION_DIM) * hidden
    middle, last_policy = hidden * hidden, hidden * ACTION_DIM
    value = 2 * (first_value + hidden) + 3 * (middle + hidden) + 2 * (middle + first_value + hidden)
    critic = 2 * (2 * first_critic + 3 * (middle + hidden))
    target = 2 * (first_critic + middle + hidden)
    policy = 2 * first_value + 3 * (middle + last_policy)
    return 2 * BATCH_SIZE * (value + critic + target + policy)


def rate(call: Callable[[], object], num_calls: int) -> float:
    """Calls a second."""
    started = time.perf_counter()
    for _ in range(num_calls):
        call()
    return num_calls / (time.perf_counter() - started)


def product_rate(num_calls: int = 500) -> float:
    """FLOP a second of 256 x 256 x 256 products."""
    left, right, out = torch.randn(256, 256), torch.randn(256, 256), torch.empty(256, 256)
    return 2 * 256**3 * rate(lambda: torch.mm(left, right, out=out), num_calls)


class Peer:
    """Another library in a process of its own, on the same core, which waits while others are timed."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )
        while not (line := self._read()).startswith("ready"):
            pass  # what the library prints while it starts
        self.num_parameters = int(line.split()[1]) if " " in line else None

    def rate(self, num_updates: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{num_updates}\n")
        return float(self._read())

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer {self._process.args} stopped with exit code {self._process.wait()}")
        return line.strip()


def start_peers(asked: list[str], *arguments: str) -> dict[str, Peer]:
    """From NAME or NAME=PYTHON; arguments go to each of their scripts."""
    peers = {}
    for name, _, python in (each.partition("=") for each in asked):
        script = [str(JAX_PEER)] if name == "jax" else [str(TORCH_PEERS), name]
        peers[name] = Peer([python or sys.executable, *script, *arguments])
    return peers


def updates_on_gpu(num_updates: int, is_captured: bool, precision: Precision, **options: Any) -> Callable[[], float]:
    """The rate of an agent's updates on a GPU, sampling and means of the metrics included."""
    agent = IQLAgent(IQLConfig(), SPACES, device=CUDA, precision=precision, **options)
    sampler = UniformSampler(random_rows().to(CUDA), RowLayout.of(SPACES), BATCH_SIZE, agent.population.seeds, rank=0)
    updates = Updates(agent, sampler, is_captured=is_captured)

    def measured() -> float:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.cuda.synchronize()
        first, started = agent.update_count, time.perf_counter()
        while agent.update_count < first + num_updates:
            updates.run(first + num_updates - agent.update_count)
        torch.cuda.synchronize()
        return num_updates / (time.perf_counter() - started)

    return measured


def ours_on_gpu(num_updates: int) -> dict[str, Callable[[], float]]:
    """Rates of our own kinds of update on a GPU by name; a population's update moves all its members."""
    options: dict[str, dict[str, Any]] = {
        PLAIN: {"is_captured": False},
        COMPILED: {"is_captured": False, "is_compiled": True},
        CAPTURED: {"is_compiled": True},
        CAPTURED_TF32: {"is_compiled": True, "precision": "tf32"},
        CAPTURED_BF16: {"is_compiled": True, "precision": "bf16"},
        SIXTEEN_MEMBERS: {"is_compiled": True, "population": GRID},
        SIXTY_FOUR_MEMBERS: {"is_compiled": True, "population": FOUR_GRIDS},
    }
    defaults = {"is_captured": True, "precision": "float32"}
    return {name: updates_on_gpu(num_updates, **(defaults | each)) for name, each in options.items()}


def ours(num_updates: int) -> dict[str, Callable[[], float]]:
    """Rates of our own kinds of update by name."""
    rows = random_rows()
    options: dict[str, dict[str, Any]] = {
        PLAIN: {},
        COMPILED: {"is_compiled": True},
        BF16: {"is_compiled": True, "precision": "bf16"},
        FOUR_TEMPERATURES: {"is_compiled": True, "population": FOUR},
        FOUR_BY_FOUR: {"is_compiled": True, "population": GRID},
    }
    shorter = {FOUR_TEMPERATURES: 2, FOUR_BY_FOUR: 6}
    timed: dict[str, Callable[[], float]] = {}
    for name, each in options.items():
        update, num_calls = updater(rows, **each), max(1, num_updates // shorter.get(name, 1))
        timed[name] = lambda update=update, num_calls=num_calls: rate(update, num_calls)
    if len(ALL_CORES) > 1:
        both = updater(rows, is_compiled=True)
        timed[TWO_THREADS] = lambda: on_two_cores(lambda: rate(both, num_updates))
    return timed


def measure(num_rounds: int, num_updates: int, peers: Mapping[str, Peer], device: str) -> Rates:
    """Rates by name, one of each a round; a first round, which compiles, does not count."""
    timed = ours(num_updates) if device == "cpu" else ours_on_gpu(num_updates)
    if device == "cpu":
        timed[LIMIT] = lambda: product_rate(5 * num_updates) / flops_per_update()
    for name, peer in peers.items():
        timed[name] = lambda peer=peer: peer.rate(num_updates)
    for each in timed.values():
        each()
    gc.collect()
    gc.freeze()  # as a learner does
    rounds = [{name: each() for name, each in timed.items()} for _ in range(num_rounds)]
    return {name: [each[name] for each in rounds] for name in timed}


def ratio(rates: Rates, name: str, other: str) -> float | None:
    """The median over rounds of one rate over another of the same round."""
    if name not in rates or other not in rates:
        return None
    return statistics.median(one / two for one, two in zip(rates[name], rates[other], strict=True))


def ratios(rates: Rates, peers: Mapping[str, Peer]) -> dict[str, float]:
    """The figures that the project goes by, those that this device has."""
    found = {
        "fraction_of_limit": ratio(rates, COMPILED, LIMIT),
        "fraction_of_limit_plain": ratio(rates, PLAIN, LIMIT),
        "compiled_over_plain": ratio(rates, COMPILED, PLAIN),
        "bf16_over_float32": ratio(rates, BF16, COMPILED),
        "two_threads_over_one": ratio(rates, TWO_THREADS, COMPILED),
        "cost_of_4_inverse_temperatures": ratio(rates, COMPILED, FOUR_TEMPERATURES),
        "cost_of_4_x_4": ratio(rates, COMPILED, FOUR_BY_FOUR),
        "captured_over_compiled": ratio(rates, CAPTURED, COMPILED),
        "tf32_over_float32": ratio(rates, CAPTURED_TF32, CAPTURED),
        "captured_bf16_over_float32": ratio(rates, CAPTURED_BF16, CAPTURED),
        "cost_of_16_members": ratio(rates, CAPTURED, SIXTEEN_MEMBERS),
        "cost_of_64_members": ratio(rates, CAPTURED, SIXTY_FOUR_MEMBERS),
        **{f"captured_over_{name}": ratio(rates, CAPTURED, name) for name in peers},
        **{f"compiled_over_{name}": ratio(rates, COMPILED, name) for name in peers},
        **{f"plain_over_{name}": ratio(rates, PLAIN, name) for name in peers},
    }
    return {name: value for name, value in found.items() if value is not None}


def print_rates(rates: Rates, where: str) -> None:
    print(f"{where:34} {'updates/s':>10} {'lowest':>8} {'highest':>8} {'of limit':>9}")
    for name, values in rates.items():
        of_limit = ratio(rates, name, LIMIT)
        print(
            f"{name:34} {statistics.median(values):10.1f} {min(values):8.1f} {max(values):8.1f} "
            f"{'-' if of_limit is None else format(of_limit, '.2f'):>9}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-rounds", type=int, default=40)
    parser.add_argument("--num-updates", type=int, help="updates a round; default: 40, on a GPU 2,000")
    parser.add_argument("--device", choices=("cpu", CUDA), default="cpu")
    parser.add_argument(
        "--peer", action="append", default=[], help="jax, d3rlpy, torchrl or rllib, with =PYTHON that has it"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(ALL_CORES)})  # ours and all peers: some would else sample on a core beside
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    on_gpu = arguments.device == CUDA
    if on_gpu and (not torch.cuda.is_available() or any(each.partition("=")[0] != "jax" for each in arguments.peer)):
        parser.error("--device cuda needs a GPU and a torch that can use it; its only peer is jax")
    peers = start_peers(arguments.peer, *([CUDA] if on_gpu else []))
    rates = measure(arguments.num_rounds, arguments.num_updates or (2000 if on_gpu else 40), peers, arguments.device)
    for peer in peers.values():
        peer.close()
    print_rates(rates, torch.cuda.get_device_name() if on_gpu else "one thread")
    result: dict[str, Any] = {
        "medians": {name: statistics.median(values) for name, values in rates.items()},
        "ratios": ratios(rates, peers),
        "num_parameters": {
            "ours": num_parameters(),
            **{name: peer.num_parameters for name, peer in peers.items() if peer.num_parameters},
        },
        "flops_per_update": flops_per_update(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "updates_per_second": rates,
    }
    if on_gpu:
        result["seconds_of_a_million_updates"] = {name: A_MILLION / rate for name, rate in result["medians"].items()}
    for name, value in result["ratios"].items():
        print(f"{name:34} {value:10.2f}")
    write_result(result, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
