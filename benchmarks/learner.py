"""Updates per second of the learner on one CPU thread, against the machine's own limit and against JAX.

    python benchmarks/learner.py [--peer-python PYTHON_WITH_JAX] [--out benchmarks/results/learner.json]

17 observations, 6 actions, two hidden layers of 256, batch 256, sampling included. Ours, the matrix products alone
(the limit: what an update multiplies, at the rate that 256 x 256 products reach in this run), a population of four
inverse temperatures, and, where an interpreter with jax and optax is at hand, the authors' update in JAX
(`_jax_peer.py`), all in turn, in many short rounds: a machine that others share changes its speed by the second, so
ratios are medians over rounds. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import IQLConfig, Population
from iql_ray.data.packed import RowLayout, UniformSampler
from iql_ray.experience import Spaces

OBSERVATION_DIM, ACTION_DIM, BATCH_SIZE, NUM_ROWS = 17, 6, 256, 100_000
SPACES = Spaces(
    observation_dim=OBSERVATION_DIM,
    action_dim=ACTION_DIM,
    action_low=(-1.0,) * ACTION_DIM,
    action_high=(1.0,) * ACTION_DIM,
)
JAX_PEER = Path(__file__).with_name("_jax_peer.py")


def random_rows() -> torch.Tensor:
    """Packed transitions of noise: the time of an update does not depend on what it learns."""
    layout = RowLayout.of(SPACES)
    rows = torch.randn(NUM_ROWS, layout.width, generator=torch.Generator().manual_seed(0))
    rows[:, OBSERVATION_DIM : OBSERVATION_DIM + ACTION_DIM].clamp_(-1, 1)
    rows[:, -1] = 0
    return rows


def updater(population: Population | None = None) -> Callable[[], object]:
    """One update of a fresh agent, sampling included."""
    agent = IQLAgent(IQLConfig(), SPACES, population=population)
    sampler = UniformSampler(random_rows(), RowLayout.of(SPACES), BATCH_SIZE, (0,), rank=0)
    return lambda: agent.update(next(sampler))


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


class JaxPeer:
    """The peer in a process of its own, on the same core, which waits while others are timed."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, str(JAX_PEER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._read() == "ready"

    def rate(self, num_updates: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{num_updates}\n")
        return float(self._read())

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"the peer stopped with exit code {self._process.wait()}; its message stands above")
        return line


def measure(num_rounds: int, num_updates: int, peer_python: str | None) -> dict[str, list[float]]:
    """Rates by name, one of each a round."""
    temperatures = Population(seeds=(0,), expectiles=(0.7,), inverse_temperatures=(0.5, 1.0, 3.0, 10.0))
    single, four = updater(), updater(temperatures)
    timed: dict[str, Callable[[], float]] = {
        "ours": lambda: rate(single, num_updates),
        "ours, 4 inverse temperatures": lambda: rate(four, num_updates // 2),
        "limit": lambda: product_rate(5 * num_updates) / flops_per_update(),
    }
    peer = JaxPeer(peer_python) if peer_python else None
    if peer:
        timed["JAX"] = lambda: peer.rate(num_updates)
    for each in timed.values():
        each()
    rounds = [{name: each() for name, each in timed.items()} for _ in range(num_rounds)]
    if peer:
        peer.close()
    return {name: [each[name] for each in rounds] for name in timed}


def ratio(rates: dict[str, list[float]], name: str, other: str) -> float | None:
    """The median over rounds of one rate over another of the same round."""
    if other not in rates:
        return None
    return statistics.median(one / two for one, two in zip(rates[name], rates[other], strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-rounds", type=int, default=40)
    parser.add_argument("--num-updates", type=int, default=40, help="updates a round")
    parser.add_argument("--peer-python", help="an interpreter that has jax and optax")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    gc.collect()
    gc.freeze()  # as a learner does
    rates = measure(arguments.num_rounds, arguments.num_updates, arguments.peer_python)
    print(f"{'one thread':32} {'updates/s':>10} {'lowest':>8} {'highest':>8} {'of limit':>9} {'of JAX':>7}")
    for name, values in rates.items():
        of_limit, of_jax = ratio(rates, name, "limit"), ratio(rates, name, "JAX")
        print(
            f"{name:32} {statistics.median(values):10.1f} {min(values):8.1f} {max(values):8.1f} "
            f"{of_limit:9.2f} {'-' if of_jax is None else format(of_jax, '.2f'):>7}"
        )
    result = {
        "updates_per_second": rates,
        "medians": {name: statistics.median(values) for name, values in rates.items()},
        "fraction_of_limit": ratio(rates, "ours", "limit"),
        "of_jax": ratio(rates, "ours", "JAX"),
        "cost_of_4_inverse_temperatures": ratio(rates, "ours", "ours, 4 inverse temperatures"),
        "flops_per_update": flops_per_update(),
        "torch": torch.__version__,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
