"""How well fitted Q evaluation ranks policies of known value, beside d3rlpy's on the same policies.

    python benchmarks/fqe.py [--hopper hopper-replay.npz] [--peer-python PYTHON_WITH_D3RLPY] [--out FILE.json]

Pendulum (the replay that comes along) and Hopper: snapshots of short IQL and behaviour cloning runs, a trained policy
with noise on its weights, scrambled weights, no torque at all; values by rollouts. The maze: stochastic policies, exact
values. Each dataset has ten policies or more. Ours spends what `iql-ray evaluate --method fqe` does by default, and
what training spends on a checkpoint; d3rlpy its own defaults for as many updates as the former.

rho: Spearman's, of estimates against values. Error: mean absolute, over the standard deviation of the true values.
Coverage: of the 95% intervals. Regret: value of the best policy less that of the one ranked first, in the same unit.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks._fqe_cases import Case, maze_case, pendulum_case, rollout_case
from iql_ray.algorithm.fqe_config import DURING_TRAINING, FQEConfig
from iql_ray.data.transforms import TransformConfig, Transforms
from iql_ray.evaluation.fqe import FittedQEvaluator
from iql_ray.evaluation.logged_episodes import LoggedEpisodes, read_episodes

PEER = Path(__file__).with_name("_d3rlpy_peer.py")
HOPPER, HOPPER_BOUNDS = "Hopper-v5", (-1.0, 1.0)


def ours(case: Case, config: FQEConfig) -> dict[str, Any]:
    """Estimates, intervals, warnings and seconds by policy; the behaviour policy's share of the time is the first's."""
    evaluator = FittedQEvaluator(episodes_of(case, config), config, discount=case.discount)
    result: dict[str, Any] = {}
    for label, policy in case.policies.items():
        started = time.perf_counter()
        verdict = evaluator.evaluate(policy, case.temperature)
        result[label] = {**verdict, "seconds": time.perf_counter() - started}
        low, high = verdict["value_ci"]
        kinds = ", ".join(warning["kind"] for warning in verdict["warnings"])
        print(
            f"  {label:24} true {case.values[label]:9.3f}  estimate {verdict['value']:9.3f} [{low:9.3f}, {high:9.3f}]"
            f"  {kinds}",
            flush=True,
        )
    return result


def episodes_of(case: Case, config: FQEConfig) -> LoggedEpisodes:
    return read_episodes(case.dataset, held_out_share=config.held_out_share, max_rows=config.max_rows, seed=0)


def peers(case: Case, config: FQEConfig, python: str) -> dict[str, Any]:
    """The same of d3rlpy, in a process of its own; what it needs is written to a folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_for_peer(folder, case, config)
        command = [python, str(PEER), str(folder), str(config.fqe_updates)]
        lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    found = [json.loads(line) for line in lines if line.startswith('{"index"')]
    labels = list(case.policies)
    return {labels[each["index"]]: {"value": each["value"], "seconds": each["seconds"]} for each in found}


def write_for_peer(folder: Path, case: Case, config: FQEConfig) -> None:
    """The episodes that are learned from, the first observations of those held out, and the policies' weights."""
    logged = episodes_of(case, config)
    rows = ~logged.is_held_out[logged.episodes]
    transforms = Transforms.fit(TransformConfig(), logged.manifest)
    arrays = {
        "observations": logged.observations[rows],
        "actions": transforms.agent_actions(logged.actions[rows]),
        "rewards": logged.rewards[rows],
        "terminations": logged.terminations[rows],
        "truncations": (logged.is_last & ~logged.terminations)[rows],
        "initial_observations": logged.observations[logged.starts[:-1][logged.is_held_out]],
        "discount": np.float64(case.discount),
        "is_discrete": np.bool_(logged.manifest.spaces.is_discrete),
    }
    np.savez(folder / "data.npz", **arrays)  # pyright: ignore[reportArgumentType]
    (folder / "policies").mkdir()
    for index, policy in enumerate(case.policies.values()):
        description = policy.description
        assert description.observation_mean is None, "the peer is given policies of raw observations"
        np.savez(folder / "policies" / f"{index:03d}.npz", **policy.weights)  # pyright: ignore[reportArgumentType]


def score(case: Case, estimates: dict[str, Any]) -> dict[str, float | None]:
    """What the table shows of one method on one case."""
    labels = list(case.policies)
    true = np.array([case.values[label] for label in labels])
    found = np.array([estimates[label]["value"] for label in labels])
    unit = true.std()
    intervals = [estimates[label].get("value_ci") for label in labels]
    covered = (
        [low <= value <= high for (low, high), value in zip(intervals, true, strict=True)] if intervals[0] else None
    )
    return {
        "rho": float(stats.spearmanr(true, found)[0]),  # pyright: ignore[reportArgumentType]
        "error": float(np.abs(true - found).mean() / unit),
        "coverage": float(np.mean(covered)) if covered else None,
        "regret": float((true.max() - true[found.argmax()]) / unit),
        "seconds": float(np.median([estimates[label]["seconds"] for label in labels])),
    }


def measure(case: Case, config: FQEConfig, cheap: FQEConfig, peer_python: str | None) -> dict[str, Any]:
    """Every method on one case."""
    print(f"{case.name}: {len(case.policies)} policies", flush=True)
    methods = {"ours": ours(case, config), "ours, during training": ours(case, cheap)}
    if peer_python:
        methods["d3rlpy"] = peers(case, config, peer_python)
    return {
        "discount": case.discount,
        "values": case.values,
        "behaviour_value": case.behaviour_value,
        "estimates": methods,
        "scores": {name: score(case, estimates) for name, estimates in methods.items()},
    }


def show(results: dict[str, Any]) -> None:
    print(f"{'':12}{'':24}{'rho':>7}{'error':>7}{'covered':>9}{'regret':>8}{'seconds':>9}")
    for case, result in results.items():
        for method, scores in result["scores"].items():
            covered = "-" if scores["coverage"] is None else f"{scores['coverage']:.2f}"
            print(
                f"{case:12}{method:24}{scores['rho']:7.2f}{scores['error']:7.2f}{covered:>9}{scores['regret']:8.2f}"
                f"{scores['seconds']:9.1f}"
            )


def cases(arguments: argparse.Namespace, folder: Path) -> Sequence[Case]:
    """Those asked for."""
    chosen = [maze_case(folder)] if "maze" in arguments.cases else []
    if "pendulum" in arguments.cases:
        chosen.append(pendulum_case(folder, arguments.num_episodes))
    if arguments.hopper:
        spec, name = f"npz:{arguments.hopper}", arguments.hopper.stem
        chosen.append(rollout_case(name, spec, HOPPER, HOPPER_BOUNDS, folder, arguments.num_episodes))
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=["maze", "pendulum"], choices=["maze", "pendulum"])
    parser.add_argument("--hopper", type=Path, help="an npz file of Hopper-v5 transitions")
    parser.add_argument("--num-updates", type=int, default=FQEConfig().fqe_updates)
    parser.add_argument("--num-episodes", type=int, default=100, help="rollouts behind a true value")
    parser.add_argument("--peer-python", help="an interpreter that has d3rlpy")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = replace(FQEConfig(), fqe_updates=arguments.num_updates)
    cheap = replace(DURING_TRAINING, fqe_updates=min(DURING_TRAINING.fqe_updates, arguments.num_updates))
    with tempfile.TemporaryDirectory() as name:
        results = {
            case.name: measure(case, config, cheap, arguments.peer_python) for case in cases(arguments, Path(name))
        }
    show(results)
    result = {"num_updates": arguments.num_updates, "torch": torch.__version__, "cases": results}
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({"scores": {name: each["scores"] for name, each in results.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
