"""Three nodes beside one, and three whose network is slow: what it costs that a run's processes are apart.

    python -m benchmarks.cluster [--clusters one three lossy far] [--work train ...] [--repetitions 1] [--scale 1]
        [--out FILE.json]

All nodes are on this machine, with processes and object stores of their own (`_ray_nodes.py`), so that three are no
faster than one: the same work on as many logical CPUs, whose processes talk over loopback, or over a network that
delays and loses packets (`_slow_network.py`; root on Linux). A ratio is a rate by that of one node.

    prepare     rows/s of a Parquet folder that all nodes read
    train       updates/s of two learners that average gradients, the paper's networks, batch 256
    averaged    the same with --average-every 20
    search      updates/s over three trials
    finetune    environment steps/s in step, its rollout worker away from the learner
    blocks      the same asynchronously, in blocks of 16 steps
    evaluate    environment steps/s of three rollout workers

The first point of a curve warms up and does not count; `prepare` and `search` are whole, with all that they start. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks._ray_nodes import ROOT, RayNodes
from benchmarks._slow_network import Network, can_be_slow, slow_network
from benchmarks.prepare import write_source
from iql_ray import checkpoint
from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.distributed.checking import check
from iql_ray.distributed.finetune_checking import check_finetune
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.search_checking import check_search
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.tracking.spool import read_records
from pipelines.prepare import PrepareConfig, prepare
from pipelines.ray_session import ray_session

ENVIRONMENT = "HalfCheetah-v5"
LEARNERS, ROLLOUTS = ("iql_learner=1",), ("iql_rollout=0.001",)
NUM_ROWS, NUM_UPDATES, NUM_STEPS, NUM_EPISODES = 200_000, 600, 480, 24
NUM_POINTS = 3
"""Of a curve; the first is its warming up."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much is done."""

    num_rows: int
    num_updates: int
    num_steps: int
    num_episodes: int

    @staticmethod
    def of(scale: float) -> Amounts:
        rows, episodes = max(1000, round(NUM_ROWS * scale)), max(3, round(NUM_EPISODES * scale))
        updates, steps = (
            NUM_POINTS * max(8, round(number * scale / NUM_POINTS)) for number in (NUM_UPDATES, NUM_STEPS)
        )
        return Amounts(num_rows=rows, num_updates=updates, num_steps=steps, num_episodes=episodes)


CLUSTERS: dict[str, Network | None] = {
    "one": None,
    "three": None,
    "lossy": Network(delay_milliseconds=0.5, loss_percent=0.1),
    "far": Network(delay_milliseconds=5.0),
}


@contextlib.contextmanager
def cluster(name: str) -> Iterator[RayNodes]:
    """A head without CPUs; and one node of everything, or two for learners and trials and one for rollouts."""
    network = CLUSTERS[name]
    with contextlib.ExitStack() as stack:
        head, places = "127.0.0.1", [{}, {}, {}]
        if network is not None:
            head, places = stack.enter_context(slow_network(network, len(places)))
        nodes = stack.enter_context(RayNodes(head))
        if name == "one":
            nodes.add("all", 6, {"iql_learner": 3, "iql_rollout": 1})
        else:
            for number, place in enumerate(places[:2], 1):
                nodes.add(f"learner{number}", 2, {"iql_learner": 1}, **place)
            nodes.add("rollout", 2, {"iql_learner": 1, "iql_rollout": 1}, **places[2])
        yield nodes


def training(folder: Path, amounts: Amounts, **changes: Any) -> TrainConfig:
    return TrainConfig(
        dataset=str(folder / "data"),
        agent=IQLConfig(),
        eval_method="none",
        num_updates=amounts.num_updates,
        log_interval_updates=amounts.num_updates // NUM_POINTS,
        num_learners=2,
        learner_resources=LEARNERS,
        device="cpu",
        compile="off",
        storage=str(folder / "runs"),
        **changes,
    )


def train_rate(folder: Path, amounts: Amounts, **changes: Any) -> float:
    from iql_ray.distributed import training as running

    result = running.train(check(training(folder, amounts, **changes)))
    return curve_rate(Path(result["run_folder"]), "time/updates_per_second")


def curve_rate(run: Path, name: str) -> float:
    """A run's rate over its curve, but for the first point."""
    records = [record.fields for record in read_records(run) if record.kind == "metrics"]
    rates = [record["values"][name] for record in records if name in record["values"]]
    return statistics.harmonic_mean(rates[1:])


def prepare_rate(folder: Path, amounts: Amounts) -> float:
    started = time.perf_counter()
    out = folder / "again"
    prepare(PrepareConfig(source=f"parquet:{folder / 'source'}", out=out, action_bounds=(-1, 1), reader="ray"))
    shutil.rmtree(out)
    return amounts.num_rows / (time.perf_counter() - started)


def search_rate(folder: Path, amounts: Amounts) -> float:
    from iql_ray.distributed import search as searching

    common = {
        name: getattr(training(folder, amounts), name) for name in ("dataset", "agent", "device", "compile", "storage")
    }
    config = SearchConfig(
        **common,
        env=ENVIRONMENT,
        seeds=(0, 1, 2),
        members_per_trial=1,
        num_updates=amounts.num_updates,
        eval_interval_updates=amounts.num_updates,
        log_interval_updates=amounts.num_updates,
        num_eval_episodes=1,
        num_final_episodes=1,
        learner_resources=LEARNERS,
    )
    started = time.perf_counter()
    searching.search(check_search(config))
    return 3 * amounts.num_updates / (time.perf_counter() - started)


def finetune_rate(folder: Path, amounts: Amounts, **changes: Any) -> float:
    from iql_ray.distributed.finetuning import run_finetuning

    config = FinetuneConfig(
        run=str(source_run(folder)),
        env=ENVIRONMENT,
        num_env_steps=amounts.num_steps,
        learner_resources=LEARNERS,
        rollout_resources=ROLLOUTS,
        log_interval_env_steps=amounts.num_steps // NUM_POINTS,
        eval_interval_env_steps=10**9,
        num_eval_episodes=1,
        compile="off",
        device="cpu",
        storage=str(folder / "runs"),
        **changes,
    )
    result = run_finetuning(check_finetune(config))
    return curve_rate(Path(result["run_folder"]), "time/env_steps_per_second")


def source_run(folder: Path) -> Path:
    """A run that has been trained here."""
    return max(folder.glob("runs/*/checkpoints"), key=lambda path: path.stat().st_mtime).parent


def evaluate_rate(folder: Path, amounts: Amounts) -> float:
    from iql_ray.distributed.rollout_workers import RolloutWorkers

    policy, _ = checkpoint.load_policy(source_run(folder), "last")
    with RolloutWorkers(ENVIRONMENT, 3, num_cpus_each=1.0) as workers:
        workers.evaluate(policy, 3, seed=0)
        started = time.perf_counter()
        episodes = workers.evaluate(policy, amounts.num_episodes, seed=1)
        return sum(episode.length for episode in episodes) / (time.perf_counter() - started)


WORK: dict[str, Callable[[Path, Amounts], float]] = {
    "prepare": prepare_rate,
    "train": train_rate,
    "averaged": lambda folder, amounts: train_rate(folder, amounts, average_every=20),
    "finetune": finetune_rate,
    "blocks": lambda folder, amounts: finetune_rate(folder, amounts, mode="asynchronous", steps_per_block=16),
    "search": search_rate,
    "evaluate": evaluate_rate,
}


def drive(folder: Path, works: Sequence[str], repetitions: int, amounts: Amounts) -> None:
    """As a driver on the head: all the work, again and again; prints the rounds."""
    rounds: list[dict[str, float]] = []
    with ray_session():
        for _ in range(repetitions):
            rounds.append({})
            for name in works:
                rounds[-1][name] = WORK[name](folder, amounts)
                print(f"{name} {rounds[-1][name]:,.1f}/s", file=sys.stderr, flush=True)
    print(json.dumps(rounds))


def measure(name: str, folder: Path, works: Sequence[str], repetitions: int, scale: float) -> list[dict[str, float]]:
    """The rounds of one cluster."""
    with cluster(name) as nodes:
        command = [sys.executable, __file__, "--drive", str(folder), "--repetitions", str(repetitions)]
        command += ["--scale", str(scale), "--work", *works]
        done = subprocess.run(command, env=nodes.environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def make_data(folder: Path, num_rows: int) -> None:
    (folder / "source").mkdir()
    write_source(folder / "source", num_rows)
    prepare(PrepareConfig(source=f"parquet:{folder / 'source'}", out=folder / "data", action_bounds=(-1, 1)))


def rates_of(found: Mapping[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians, by cluster and work."""
    return {
        name: {work: statistics.median(each[work] for each in rounds) for work in rounds[0]}
        for name, rounds in found.items()
    }


def ratios_of(rates: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """By cluster and work: of the rate on one node."""
    return {
        name: {work: rate / rates["one"][work] for work, rate in of_cluster.items()}
        for name, of_cluster in rates.items()
        if "one" in rates
    }


def show(rates: Mapping[str, Mapping[str, float]], ratios: Mapping[str, Mapping[str, float]]) -> None:
    print(f"{'':10}" + "".join(f"{name:>18}" for name in rates))
    for work in next(iter(rates.values())):
        cells = (f"{rate[work]:,.0f}/s{_of_one(ratios.get(name), work):>7}" for name, rate in rates.items())
        print(f"{work:10}" + "".join(f"{cell:>18}" for cell in cells))


def _of_one(ratios: Mapping[str, float] | None, work: str) -> str:
    return f"{ratios[work]:.2f}" if ratios else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", nargs="+", choices=list(CLUSTERS), default=list(CLUSTERS))
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=list(WORK), help="after one that trains")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of everything is done")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--drive", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    amounts = Amounts.of(arguments.scale)
    if arguments.drive:
        drive(arguments.drive, arguments.work, arguments.repetitions, amounts)
        return 0
    names = [name for name in arguments.clusters if CLUSTERS[name] is None or can_be_slow()]
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder), amounts.num_rows)
        for name in names:
            print(f"{name} node{'s' * (name != 'one')}", file=sys.stderr, flush=True)
            found[name] = measure(name, Path(folder), arguments.work, arguments.repetitions, arguments.scale)
            result = result_of(found)
            if arguments.out:  # what there is: a cluster takes minutes
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    show(result["rates"], result["ratios"])
    print(json.dumps(result))
    return 0


def result_of(found: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    rates = rates_of(found)
    networks = {name: vars(network) for name in found if (network := CLUSTERS[name])}
    return {
        "rates": rates,
        "ratios": ratios_of(rates),
        "rounds": dict(found),
        "networks": networks,
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    sys.exit(main())
