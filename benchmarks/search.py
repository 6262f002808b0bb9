"""What a search costs against the separate runs that it replaces.

    python benchmarks/search.py [--num-updates 5000] [--d3rlpy PYTHON] [--out benchmarks/results/search.json]

A 4 x 4 grid of expectiles and inverse temperatures, one seed, on Pendulum's replay with the paper's networks, in CPU
seconds of all processes: as 16 runs of `iql-ray train` (two are run, and their mean taken 16 times), as one
`iql-ray search`, with policies extracted after their critics, and with asha. Members are evaluated once, at their end.
d3rlpy's price is its measured rate of updates (--d3rlpy PYTHON: an interpreter that has it) times their number, without
any start or evaluation.

Then, in this process: whether asha finds the winner of the whole grid, on the maze with exact returns, ten times;
and two hundred small trials, what one more costs and how the driver's memory grows. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import torch

from benchmarks._process_tree import measured
from benchmarks._result import write_result
from benchmarks.learner import start_peers
from iql_ray.data.demo import DEMO_ACTION_BOUNDS, DEMO_ENVIRONMENT, demo_dataset_path
from iql_ray.data.packing import pack
from iql_ray.data.prepared import read_manifest, shard_paths
from iql_ray.data.transforms import Transforms
from iql_ray.distributed.search import search
from iql_ray.distributed.search_answer import Answer, find_answer
from iql_ray.distributed.search_checking import check_search
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.search_plan import planned_trials
from iql_ray.distributed.search_trainable import TrialData, TrialSettings, listed_spec, trial_plan
from iql_ray.distributed.search_trial import TrialRun
from iql_ray.distributed.search_tuning import SearchProgress
from iql_ray.envs.maze_map import state_observations
from iql_ray.envs.umaze_data import maze_data
from iql_ray.evaluation.maze_study import MazeStudy
from iql_ray.policy import Policy
from pipelines import command_line
from pipelines.prepare import PrepareConfig, prepare
from pipelines.ray_session import ray_session

EXPECTILES = (0.6, 0.7, 0.8, 0.9)
INVERSE_TEMPERATURES = (0.5, 1.0, 3.0, 10.0)
NUM_MEMBERS = len(EXPECTILES) * len(INVERSE_TEMPERATURES)
TARGETS = {"joint": 0.40, "after": 0.30, "asha": 0.20, "joint_over_d3rlpy": 0.12}
NUM_TRAIN_RUNS = 2
MAZE_EXPECTILES, MAZE_TEMPERATURES = (0.5, 0.7, 0.9, 0.95), (0.5, 1.0, 3.0, 10.0)
NEAR = 0.99
"""A winner that earns this share of the best one's return is as good as it, on a maze where several earn the same."""
NUM_SMALL_TRIALS = 200


def flags(settings: dict[str, Any]) -> list[str]:
    """Of the command line."""
    words = []
    for name, value in settings.items():
        words += [f"--{name}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words


def common(dataset: Path, storage: Path, num_updates: int) -> dict[str, Any]:
    """Of every run: an evaluation at the end alone."""
    return {
        "dataset": dataset,
        "env": DEMO_ENVIRONMENT,
        "recipe": "locomotion",
        "num-updates": num_updates,
        "eval-interval-updates": num_updates,
        "checkpoint-interval-updates": num_updates,
        "device": "cpu",
        "storage": storage,
    }


def prices(dataset: Path, folder: Path, num_updates: int) -> dict[str, Any]:
    """CPU seconds and seconds of each way to the same sixteen members."""
    found: dict[str, Any] = {}
    runs = []
    for index in range(NUM_TRAIN_RUNS):
        settings = common(dataset, folder / f"train-{index}", num_updates)
        runs.append(measured(["-m", "pipelines.train", *flags({**settings, "num-eval-episodes": 50})]))
        print(f"one run: {runs[-1].cpu_seconds:.0f} CPU seconds", flush=True)
    found["one_run"] = {
        "cpu_seconds": statistics.mean(each.cpu_seconds for each in runs),
        "seconds": statistics.mean(each.seconds for each in runs),
    }
    ways = {"joint": {}, "after": {"extract": "after"}, "asha": {"scheduler": "asha"}}
    for name, options in ways.items():
        settings = common(dataset, folder / name, num_updates)
        grid = {"expectiles": EXPECTILES, "inverse-temperatures": INVERSE_TEMPERATURES, **options}
        took = measured(["-m", "pipelines.search", *flags({**settings, **grid})])
        found[name] = {"cpu_seconds": took.cpu_seconds, "seconds": took.seconds, **json.loads(took.last_line)["best"]}
        print(f"{name}: {took.cpu_seconds:.0f} CPU seconds", flush=True)
    return found


class ExactReturns:
    """Scores a policy by what its most likely actions earn in the maze, exactly."""

    def __init__(self, study: MazeStudy) -> None:
        self._study, self._observations = study, state_observations(study.data.maze)

    def __call__(self, policy: Policy, is_final: bool) -> dict[str, Any]:
        probabilities = policy.probabilities(self._observations)
        most_likely = np.eye(probabilities.shape[1])[probabilities.argmax(1)]
        earned = self._study.earned(most_likely)
        return {"return_mean": earned, "return_ci": [earned, earned]}


def halving_on_the_maze(dataset: Path, folder: Path, num_repetitions: int) -> dict[str, Any]:
    """The winner of asha against that of the whole grid, by repetitions with seeds of their own."""
    judge, repetitions = ExactReturns(MazeStudy(data=maze_data("paper"))), []
    for seed in range(num_repetitions):
        settings = {
            "dataset": dataset, "recipe": "umaze", "seed": seed, "expectiles": MAZE_EXPECTILES,
            "inverse-temperatures": MAZE_TEMPERATURES, "eval-method": "fqe", "checkpoint-interval-updates": 100_000,
        }  # fmt: skip
        whole, halved = (
            in_this_process(
                command_line.parse(SearchConfig, flags({**settings, "scheduler": name})),
                folder / f"{name}-{seed}",
                judge,
            )
            for name in ("none", "asha")
        )
        scores = {standing.configuration: standing.mean for standing in whole.standings}
        best, winner = (answer.standings[0].configuration for answer in (whole, halved))
        repetitions.append(
            {
                "seed": seed,
                "winner": winner.settings,
                "is_same": winner == best,
                "is_as_good": scores[winner] >= NEAR * scores[best],
                "policy_updates_ratio": updates_of(halved) / updates_of(whole),
            }
        )
        print(f"maze: {repetitions[-1]}", flush=True)
    return {
        "num_repetitions": num_repetitions,
        "num_as_good": sum(each["is_as_good"] for each in repetitions),
        "num_same": sum(each["is_same"] for each in repetitions),
        "policy_updates_ratio": statistics.mean(each["policy_updates_ratio"] for each in repetitions),
        "repetitions": repetitions,
    }


def updates_of(answer: Answer) -> int:
    """Of all its policies together."""
    return sum(score.num_updates for score in answer.scores)


def in_this_process(config: SearchConfig, folder: Path, judge: ExactReturns) -> Answer:
    """A whole search without Ray, its trials one after another, in any order."""
    dataset, manifest = Path(config.dataset), read_manifest(config.dataset)
    transforms = Transforms.fit(config.transforms, manifest)
    rows = torch.from_numpy(np.concatenate([pack(pq.read_table(path), transforms) for path in shard_paths(dataset)]))
    settings = TrialSettings(
        config=config,
        search_folder=folder,
        spaces=manifest.spaces,
        dataset_digest=manifest.digest,
        device="cpu",
        critics_from=None,
        read_spec=listed_spec,
        data={(): TrialData(shard=[], transforms=transforms)},
        stop_order=None,
    )
    specs = list(planned_trials(config, len(config.inverse_temperatures)))
    random.Random(config.seed).shuffle(specs)
    for spec in specs:
        trial = TrialRun(trial_plan(settings, spec), rows, judge)
        while not trial.is_done:
            trial.advance()
    return find_answer(config, folder, specs)


def many_small_trials(dataset: Path, folder: Path) -> dict[str, Any]:
    """What a trial more costs beside its updates, and how the driver grows, over hundreds of next to nothing."""
    settings = {
        **common(dataset, folder / "small", num_updates=20), "search": "random", "num-samples": NUM_SMALL_TRIALS,
        "vary": "agent.learning_rate=1e-4..1e-3", "hidden-sizes": 8, "num-final-episodes": 1,
    }  # fmt: skip
    points: list[tuple[int, float, float]] = []

    def note(progress: SearchProgress) -> None:
        if not points or progress.num_finished > points[-1][0]:
            resident = psutil.Process().memory_info().rss / 1e6
            points.append((progress.num_finished, time.perf_counter(), resident))

    with ray_session(num_cpus=os.cpu_count()):
        search(check_search(command_line.parse(SearchConfig, flags(settings))), note)
    finished, seconds, megabytes = (np.array(column) for column in zip(*points, strict=True))
    quarter = len(points) // 4
    return {
        "num_trials": NUM_SMALL_TRIALS,
        "seconds_to_first": float(seconds[1] - seconds[0]) if len(seconds) > 1 else None,
        "seconds_per_trial_first_quarter": per_trial(finished[:quarter], seconds[:quarter]),
        "seconds_per_trial_last_quarter": per_trial(finished[-quarter:], seconds[-quarter:]),
        "driver_megabytes": [float(megabytes[quarter]), float(megabytes[-1])],
    }


def per_trial(finished: np.ndarray, seconds: np.ndarray) -> float:
    return float((seconds[-1] - seconds[0]) / max(1, finished[-1] - finished[0]))


def ratios(found: dict[str, Any], num_updates: int, d3rlpy_rate: float | None) -> dict[str, float]:
    """Against sixteen runs of ours, and of d3rlpy's updates alone."""
    separate = NUM_MEMBERS * found["one_run"]["cpu_seconds"]
    result = {name: found[name]["cpu_seconds"] / separate for name in ("joint", "after", "asha")}
    if d3rlpy_rate is not None:
        result["joint_over_d3rlpy"] = found["joint"]["cpu_seconds"] / (NUM_MEMBERS * num_updates / d3rlpy_rate)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-updates", type=int, default=5000)
    parser.add_argument("--num-repetitions", type=int, default=10)
    parser.add_argument("--d3rlpy", metavar="PYTHON")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset, maze = folder / "pendulum", folder / "maze"
        source = f"npz:{demo_dataset_path()}"
        prepare(PrepareConfig(source=source, out=dataset, env=DEMO_ENVIRONMENT, action_bounds=DEMO_ACTION_BOUNDS))
        prepare(PrepareConfig(source="umaze:paper", out=maze))
        found = prices(dataset, folder, arguments.num_updates)
        d3rlpy_rate = None
        if arguments.d3rlpy:
            peer = start_peers([f"d3rlpy={arguments.d3rlpy}"])["d3rlpy"]
            peer.rate(50)
            d3rlpy_rate = statistics.median(peer.rate(100) for _ in range(5))
            peer.close()
        result = {
            "num_updates": arguments.num_updates,
            "cpus": os.cpu_count(),
            "ratios": ratios(found, arguments.num_updates, d3rlpy_rate),
            "targets": TARGETS,
            "prices": found,
            "d3rlpy_updates_per_second": d3rlpy_rate,
            "maze": halving_on_the_maze(maze, folder, arguments.num_repetitions),
            "small_trials": many_small_trials(dataset, folder),
        }
    show(result)
    write_result(result, arguments.out)
    return 0


def show(result: dict[str, Any]) -> None:
    """A table for people."""
    print(f"{NUM_MEMBERS} members of {result['num_updates']:,} updates, CPU seconds")
    separate = NUM_MEMBERS * result["prices"]["one_run"]["cpu_seconds"]
    print(f"{'16 runs of iql-ray train':34}{separate:>10.0f}{1:>8.2f}")
    for name, label in (("joint", "iql-ray search"), ("after", "  --extract after"), ("asha", "  --scheduler asha")):
        seconds, ratio = result["prices"][name]["cpu_seconds"], result["ratios"][name]
        print(f"{label:34}{seconds:>10.0f}{ratio:>8.2f}   (at most {TARGETS[name]:.2f})")
    if "joint_over_d3rlpy" in result["ratios"]:
        print(f"search over d3rlpy's updates alone: {result['ratios']['joint_over_d3rlpy']:.2f}   (at most 0.12)")
    maze, small = result["maze"], result["small_trials"]
    print(f"asha's winner on the maze is as good in {maze['num_as_good']} of {maze['num_repetitions']} repetitions")
    print(
        f"{small['num_trials']} small trials: {small['seconds_per_trial_first_quarter']:.2f} s each at first, "
        f"{small['seconds_per_trial_last_quarter']:.2f} s at last; driver {small['driver_megabytes']} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
