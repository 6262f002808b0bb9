"""How well fitted Q evaluation ranks policies of known value, beside d3rlpy's on the same policies.

    python -m benchmarks.fqe [--hopper hopper-replay.npz] [--peer-python PYTHON_WITH_D3RLPY] [--out FILE.json]

Pendulum (the replay that comes along) and Hopper: snapshots of short IQL and behaviour cloning runs, a trained policy
with noise on its weights, scrambled weights, no torque at all; values by rollouts. The maze: stochastic policies, exact
values. Each dataset has nine policies or ten. Ours spends what `iql-ray evaluate --method fqe` does by default, and
what training spends on a checkpoint; d3rlpy its own defaults for as many updates as the former.

rho: Spearman's, of estimates against values. Error: mean absolute, raw and over the standard deviation of the true
values. Coverage: of the 95% intervals. Regret: value of the best policy less that of the one ranked first, in the same
unit. Far off: policies whose error is above half of it; warned: how many of those the verdict warned of, and of the
others. What FILE.json already holds of other cases and methods is kept. The last line is JSON.
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
OURS, CHEAP, D3RLPY = "ours", "ours, during training", "d3rlpy"
LARGE_ERROR = 0.5
"""Over the standard deviation of the true values."""


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
    return read_episodes(case.dataset, held_out_share=config.fqe_held_out_share, max_rows=config.fqe_max_rows, seed=0)


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


def score(values: dict[str, float], estimates: dict[str, Any]) -> dict[str, float | None]:
    """What the table shows of one method on one case."""
    labels = list(values)
    true = np.array([values[label] for label in labels])
    found = np.array([estimates[label]["value"] for label in labels])
    unit, errors = true.std(), np.abs(true - found)
    return {
        "rho": float(stats.spearmanr(true, found)[0]),  # pyright: ignore[reportArgumentType]
        "error": float(errors.mean() / unit),
        "raw_error": float(errors.mean()),
        "regret": float((true.max() - true[found.argmax()]) / unit),
        "seconds": float(np.median([estimates[label]["seconds"] for label in labels])),
        **_of_intervals([estimates[label] for label in labels], true, errors / unit),
    }


def _of_intervals(verdicts: list[dict[str, Any]], true: np.ndarray, errors: np.ndarray) -> dict[str, float | None]:
    """Coverage, and which errors the warnings told of; a method without either has None."""
    is_large = errors > LARGE_ERROR
    if "value_ci" not in verdicts[0]:
        return {"coverage": None, "num_far_off": int(is_large.sum()), "num_warned": None, "num_false_alarms": None}
    low, high = np.array([verdict["value_ci"] for verdict in verdicts]).T
    is_warned = np.array([bool(verdict["warnings"]) for verdict in verdicts])
    return {
        "coverage": float(((low <= true) & (true <= high)).mean()),
        "num_far_off": int(is_large.sum()),
        "num_warned": int((is_large & is_warned).sum()),
        "num_false_alarms": int((~is_large & is_warned).sum()),
    }


def measure(case: Case, methods: Sequence[str], num_updates: int, peer_python: str | None) -> dict[str, Any]:
    """The estimates of the methods asked for on one case, by method."""
    config = replace(FQEConfig(), fqe_updates=num_updates)
    cheap = replace(DURING_TRAINING, fqe_updates=min(DURING_TRAINING.fqe_updates, num_updates))
    print(f"{case.name}: {len(case.policies)} policies", flush=True)
    estimates = {}
    for name, budget in ((OURS, config), (CHEAP, cheap)):
        if name in methods:
            estimates[name] = ours(case, budget)
    if D3RLPY in methods and peer_python:
        estimates[D3RLPY] = peers(case, config, peer_python)
    elif D3RLPY in methods:
        print("d3rlpy is skipped: name an interpreter that has it with --peer-python", flush=True)
    return estimates


def with_earlier(case: Case, estimates: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """All that is known of a case: its values, every method's estimates, and their scores.

    Raises:
        ValueError: the earlier estimates are of other policies.
    """
    if earlier and earlier["values"] != case.values:
        raise ValueError(f"the results of {case.name} in the file are of other policies; write to another file")
    estimates = {**earlier.get("estimates", {}), **estimates}
    return {
        "discount": case.discount,
        "values": case.values,
        "behaviour_value": case.behaviour_value,
        "scores": {name: score(case.values, each) for name, each in estimates.items()},
        "estimates": estimates,
    }


def show(results: dict[str, Any]) -> None:
    heads = ("rho", "error", "raw", "covered", "regret", "far off", "warned", "others", "seconds")
    print(f"{'':14}{'':24}" + "".join(f"{head:>9}" for head in heads))
    for case, result in results.items():
        for method, of in result["scores"].items():
            numbers = (of["rho"], of["error"], of["raw_error"], of["coverage"], of["regret"])
            counts = (of["num_far_off"], of["num_warned"], of["num_false_alarms"], round(of["seconds"]))
            cells = ["-" if each is None else f"{each:.2f}" for each in numbers]
            cells += ["-" if each is None else str(each) for each in counts]
            print(f"{case:14}{method:24}" + "".join(f"{cell:>9}" for cell in cells))


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
    parser.add_argument("--methods", nargs="+", default=[OURS, CHEAP, D3RLPY], choices=[OURS, CHEAP, D3RLPY])
    parser.add_argument("--num-updates", type=int, default=FQEConfig().fqe_updates)
    parser.add_argument("--num-episodes", type=int, default=100, help="rollouts behind a true value")
    parser.add_argument("--peer-python", help="an interpreter that has d3rlpy")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out: Path | None = arguments.out
    results = json.loads(out.read_text())["cases"] if out and out.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        for case in cases(arguments, Path(name)):
            estimates = measure(case, arguments.methods, arguments.num_updates, arguments.peer_python)
            results[case.name] = with_earlier(case, estimates, results.get(case.name, {}))
    show(results)
    if out:
        result = {"num_updates": arguments.num_updates, "torch": torch.__version__, "cases": results}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({"scores": {name: each["scores"] for name, each in results.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
