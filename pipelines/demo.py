"""The main job on data that comes along: prepare, train, evaluate, register, and act with what was registered.

    make demo

Real logged data (the replay of an agent that learned Pendulum-v1), no server, no network, no account. Behaviour
cloning is trained beside IQL, because imitation is what logged data gives without reinforcement learning.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipelines import command_line
from pipelines.ray_session import ray_session

MODEL_NAME = "pendulum"
SAMPLE_EPISODES = 20


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """From a folder of logged data to a registered policy, in a few minutes on two cores."""

    out: Path = Path("runs/demo")
    """Folder of the demo's dataset, runs and picture; a second demo adds runs to it."""
    num_updates: int = 15_000
    """Updates of IQL."""
    num_cloning_updates: int = 5000
    """Updates of behaviour cloning."""
    num_episodes: int = 100
    """Episodes of each final evaluation."""


def demo(config: DemoConfig) -> dict[str, Any]:
    """Run every step, and say what it gave.

    Returns:
        `return_mean`, `return_ci` of the registered policy, `bc_return_mean`, `data_return_mean`, `model_uri`,
        `run_id`, ...
    """
    started = time.monotonic()
    with ray_session():
        dataset = _prepare(config)
        _say(
            f"2/6  train by implicit Q-learning, {config.num_updates:,} updates (expectile 0.7, inverse temperature 3)"
        )
        iql = _train(config, "iql", num_updates=config.num_updates, register_as=MODEL_NAME)
        if iql["model_uri"] is None:
            raise RuntimeError(f"the policy was not registered; look at the run's folder {iql['run_folder']}")
        _say(f"3/6  clone the behaviour in the data, {config.num_cloning_updates:,} updates, for comparison")
        cloning = _train(config, "behaviour-cloning", num_updates=config.num_cloning_updates, inverse_temperature=0.0)
        _say(f"4/6  evaluate both over {config.num_episodes} new episodes each")
        iql_result = _evaluate(config, model=iql["model_uri"])
        cloning_result = _evaluate(config, run=cloning["run_id"])
    _say("5/6  load the registered model in a fresh process, without this package, and act")
    acted = _act(config, iql["model_uri"])
    _say("6/6  draw the learning curves")
    picture = _draw(config, iql["run_folder"], cloning["run_folder"], dataset["return_mean"])
    untrained_return_mean = _curve(iql["run_folder"]).means[0]
    _tell(config, dataset, iql_result, cloning_result, acted, untrained_return_mean, picture)
    return {
        "return_mean": iql_result["return_mean"],
        "return_ci": iql_result["return_ci"],
        "bc_return_mean": cloning_result["return_mean"],
        "data_return_mean": dataset["return_mean"],
        "untrained_return_mean": untrained_return_mean,
        "model_uri": iql["model_uri"],
        "run_id": iql["run_id"],
        "tracking_uri": _tracking_uri(config),
        "picture": str(picture),
        "seconds": round(time.monotonic() - started, 1),
    }


def _prepare(config: DemoConfig) -> dict[str, Any]:
    from iql_ray.data import demo
    from pipelines.prepare import PrepareConfig, prepare

    _say("1/6  prepare the logged data: one schema, shuffled shards, a manifest")
    return prepare(
        PrepareConfig(
            source=f"npz:{demo.demo_dataset_path()}",
            out=config.out / "pendulum",
            env=demo.DEMO_ENVIRONMENT,
            action_bounds=demo.DEMO_ACTION_BOUNDS,
            licence=demo.DEMO_LICENCE,
            overwrite=True,
        )
    )


def _train(config: DemoConfig, run_name: str, **settings: Any) -> dict[str, Any]:
    from pipelines.train import TrainConfig, train

    inverse_temperature = settings.pop("inverse_temperature", 3.0)
    arguments = {
        "dataset": config.out / "pendulum",
        "env": "Pendulum-v1",
        "recipe": "locomotion",
        "inverse-temperature": inverse_temperature,
        "eval-interval-updates": 1000,
        "num-eval-episodes": SAMPLE_EPISODES,
        "storage": config.out / "runs",
        "tracking-uri": _tracking_uri(config),
        "experiment": "demo",
        "run-name": run_name,
        **{name.replace("_", "-"): value for name, value in settings.items()},
    }
    return train(command_line.parse(TrainConfig, [f"--{name}={value}" for name, value in arguments.items()]))


def _evaluate(config: DemoConfig, **which: Any) -> dict[str, Any]:
    from pipelines.evaluate import EvaluateConfig, evaluate

    return evaluate(
        EvaluateConfig(
            env="Pendulum-v1",
            num_episodes=config.num_episodes,
            seed=1,  # other episodes than those that chose the model
            storage=str(config.out / "runs"),
            tracking_uri=_tracking_uri(config),
            **which,
        )
    )


def _act(config: DemoConfig, model_uri: str) -> dict[str, Any]:
    """One episode by `iql_ray/tracking/act.py`, run as a script in a process of its own."""
    script = str(files("iql_ray.tracking") / "act.py")
    command = [sys.executable, script, model_uri, "Pendulum-v1", "--tracking-uri", _tracking_uri(config)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stderr}")
    return json.loads(finished.stdout.splitlines()[-1])


def _draw(config: DemoConfig, iql_folder: str, cloning_folder: str, data_return_mean: float) -> Path:
    from iql_ray.report.figures import learning_curve

    return learning_curve(
        config.out / "learning_curve.png",
        {"IQL": _curve(iql_folder), "behaviour cloning": _curve(cloning_folder)},
        {"mean of the data": data_return_mean},
        "Pendulum-v1, learned from logged data alone",
    )


def _curve(folder: str) -> Any:
    from iql_ray import run_folder
    from iql_ray.report.figures import Curve

    evaluations = [result for _, result in sorted(run_folder.read_evaluations(Path(folder)).items())]
    return Curve(
        updates=[each["num_updates"] for each in evaluations],
        means=[each["return_mean"] for each in evaluations],
        lower=[each["return_ci"][0] for each in evaluations],
        upper=[each["return_ci"][1] for each in evaluations],
    )


def _tell(
    config: DemoConfig,
    dataset: dict[str, Any],
    iql: dict[str, Any],
    cloning: dict[str, Any],
    acted: dict[str, Any],
    untrained_return_mean: float,
    picture: Path,
) -> None:
    """What came out, and where to look next; to stderr, as all but the result."""
    low, high = iql["return_ci"]
    _say(
        f"""
return of an episode (0 is perfect)
  untrained                    {untrained_return_mean:8.1f}   over {SAMPLE_EPISODES} episodes
  mean of the logged data      {dataset["return_mean"]:8.1f}
  behaviour cloning            {cloning["return_mean"]:8.1f}
  IQL, the registered policy   {iql["return_mean"]:8.1f}   95% interval [{low:.1f}, {high:.1f}]
  one episode of it, acted by a process that imports {acted["imported"] or "neither iql_ray, nor ray, nor torch"}: \
{acted["episode_returns"][0]:.1f}

look next
  the learning curves   {picture}
  runs and the model    {Path(sys.executable).parent / "mlflow"} ui --backend-store-uri {_tracking_uri(config)}
  your own logs         iql-ray prepare --help, then iql-ray train --help
"""
    )


def _tracking_uri(config: DemoConfig) -> str:
    """The embedded store, whatever the environment says: the demo needs no server."""
    from iql_ray.tracking.store import default_tracking_uri

    return default_tracking_uri(config.out / "runs")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(DemoConfig, demo, argv, description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
