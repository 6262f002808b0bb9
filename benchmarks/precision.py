"""What products in bfloat16 (`--precision bf16`) do to the policy that is learned.

    python benchmarks/precision.py [--dataset PREPARED --env ID] [--seeds 0 1 2] [--num-updates 10000]
        [--out FILE.json]

The same seeds on the same minibatches, once in float32 and once in bf16, all seeds of a precision as one compiled
population in a process of its own on one thread; returns are over new episodes that are the same for all. Without a
dataset: Pendulum's demo data. Two hidden layers of 256, batch 256. The last line is JSON.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks._result import write_result
from benchmarks._returns import mean_return, packed_rows, prepare_demo
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.compiled_update import Precision
from iql_ray.algorithm.iql_config import IQLConfig, Population
from iql_ray.data import demo
from iql_ray.data.packed import RowLayout, UniformSampler
from iql_ray.data.prepared import read_manifest
from iql_ray.data.transforms import TransformConfig, Transforms
from iql_ray.distributed.learner import export_policy

ROOT = Path(__file__).resolve().parent.parent
BATCH_SIZE = 256
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")


def learned_returns(
    dataset: Path, environment: str, precision: Precision, seeds: list[int], num_updates: int, num_episodes: int
) -> list[float]:
    """The mean return of every seed's policy after training."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    manifest, config = read_manifest(dataset), IQLConfig()
    transforms = Transforms.fit(TransformConfig(reward_scale="return-range"), manifest)
    rows = torch.from_numpy(packed_rows(dataset, transforms))
    population = Population(
        seeds=tuple(seeds), expectiles=(config.expectile,), inverse_temperatures=(config.inverse_temperature,)
    )
    agent = IQLAgent(
        config,
        manifest.spaces,
        population=population,
        num_updates=num_updates,
        is_compiled=True,
        precision=precision,
    )
    sampler = UniformSampler(rows, RowLayout.of(manifest.spaces), BATCH_SIZE, population.seeds, rank=0)
    for _ in range(num_updates):
        agent.update(next(sampler))
    policies = [
        export_policy(agent.policy_weights(member), manifest.spaces, transforms) for member in range(len(seeds))
    ]
    return [mean_return(policy, environment, num_episodes) for policy in policies]


def show(returns: dict[str, list[float]]) -> None:
    print(f"{'':10}{'mean return':>12}{'between seeds':>15}   of each seed")
    for precision, values in returns.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(
            f"{precision:10}{statistics.mean(values):>12.1f}{spread:>15.1f}   {', '.join(f'{v:.1f}' for v in values)}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="a prepared dataset")
    parser.add_argument("--env", help="its environment")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num-updates", type=int, default=10_000)
    parser.add_argument("--num-episodes", type=int, default=100, help="of every policy")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--precision", choices=PRECISIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if (arguments.dataset is None) != (arguments.env is None):
        parser.error("--dataset and --env belong together")
    if arguments.precision:
        of_seeds = learned_returns(
            arguments.dataset,
            arguments.env,
            arguments.precision,
            arguments.seeds,
            arguments.num_updates,
            arguments.num_episodes,
        )
        print(*of_seeds)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        dataset = arguments.dataset or prepare_demo(Path(folder))
        environment = arguments.env or demo.DEMO_ENVIRONMENT
        command = [sys.executable, __file__, "--dataset", str(dataset), "--env", environment]
        command += ["--num-updates", str(arguments.num_updates), "--num-episodes", str(arguments.num_episodes)]
        command += ["--seeds", *map(str, arguments.seeds)]
        processes = {
            precision: subprocess.Popen(
                [*command, "--precision", precision],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for precision in PRECISIONS
        }
        said = {precision: process.communicate()[0] for precision, process in processes.items()}
    failed = {precision: process.returncode for precision, process in processes.items() if process.returncode}
    if failed:
        raise RuntimeError(f"learning failed, exit codes {failed}")
    returns = {precision: [float(each) for each in text.split()] for precision, text in said.items()}
    show(returns)
    result = {
        "environment": environment,
        "num_updates": arguments.num_updates,
        "seeds": arguments.seeds,
        "num_episodes": arguments.num_episodes,
        "torch": torch.__version__,
        "returns": returns,
    }
    write_result(result, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
