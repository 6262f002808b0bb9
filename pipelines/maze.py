"""The paper's story on a toy maze, with real numbers, in one picture.

    make maze

Four datasets of a small maze, every method of the story trained on each through the ordinary pipeline, ten seeds side
by side in one run; what was learned is compared with exact solutions of the same data.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iql_ray import recipes
from pipelines import command_line
from pipelines.ray_session import ray_session

if TYPE_CHECKING:
    from iql_ray.distributed.train_config import TrainConfig
    from iql_ray.evaluation.maze_comparison import MazeComparison
    from iql_ray.evaluation.maze_study import Learned, MazeStudy

EXPECTILES = (0.5, 0.7, 0.9, 0.95, 0.99)
INVERSE_TEMPERATURE = float(recipes.UMAZE["agent"]["inverse_temperature"])
LOG_INTERVAL_UPDATES = 250
WITH_CLONING = (0.0, INVERSE_TEMPERATURE)
"""Inverse temperature 0 is behaviour cloning: a policy more on the same critics."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The members trained side by side on one dataset, times the seeds."""

    critics: tuple[tuple[str, float], ...]
    """Objective and expectile of each."""
    inverse_temperatures: tuple[float, ...] = (INVERSE_TEMPERATURE,)
    is_tenth_cloned: bool = False
    """Whether cloning of the best tenth of the episodes is trained too, in a run of its own."""


EVERY_CRITIC = (*(("implicit", expectile) for expectile in EXPECTILES), ("sarsa", 0.5), ("single-q", 0.9), ("td", 0.9))
GRIDS = {
    "paper": Grid(critics=EVERY_CRITIC, inverse_temperatures=WITH_CLONING, is_tenth_cloned=True),
    "stitching": Grid(critics=EVERY_CRITIC, inverse_temperatures=WITH_CLONING, is_tenth_cloned=True),
    "narrow": Grid(
        critics=(("implicit", 0.5), ("implicit", 0.9), ("implicit", 0.99), ("td", 0.9)),
        inverse_temperatures=WITH_CLONING,
    ),
    "lucky": Grid(critics=(("implicit", 0.95), ("single-q", 0.95))),
}
"""By dataset, in the order of the picture."""


@dataclass(frozen=True, kw_only=True)
class MazeConfig:
    """Every critic of the paper's story on a toy maze, beside exact solutions, in minutes on two cores."""

    out: Path = Path("runs/maze")
    """Folder of the datasets, runs and picture; another comparison adds runs to it."""
    num_updates: int = recipes.UMAZE["num_updates"]
    """Updates of the critics and their policies."""
    num_cloning_updates: int = 1000
    """Updates of the runs that clone the best tenth of the episodes."""
    num_seeds: int = 10
    """Seeds that train side by side; intervals are over them."""

    def __post_init__(self) -> None:
        for name in ("num_updates", "num_cloning_updates", "num_seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")


def maze(config: MazeConfig) -> dict[str, Any]:
    """Run the whole comparison.

    Returns:
        By dataset: `returns` of every method with their intervals, `v_star_start`, `value_error` by expectile,
        `td_overestimate`, `single_q_overestimate`; `picture`, `run_ids`, `seconds`, ...
    """
    from iql_ray.envs.umaze_data import DESCRIPTIONS
    from iql_ray.report.maze_table import maze_table

    started = time.monotonic()
    comparisons: dict[str, MazeComparison] = {}
    run_ids: dict[str, str] = {}
    with ray_session():
        for index, name in enumerate(GRIDS, 1):
            _say(f"{index}/{len(GRIDS) + 1}  {name}: {DESCRIPTIONS[name]}")
            comparisons[name], ids = _compare(config, name)
            run_ids |= ids
    _say(f"{len(GRIDS) + 1}/{len(GRIDS) + 1}  draw the picture")
    picture = _draw(config, comparisons)
    _say(f"\n{maze_table(comparisons)}\n\nthe picture  {picture}")
    return {
        **_by_measure(comparisons),
        "picture": str(picture),
        "run_ids": run_ids,
        "tracking_uri": _tracking_uri(config),
        "seconds": round(time.monotonic() - started, 1),
    }


def _compare(config: MazeConfig, name: str) -> tuple[MazeComparison, dict[str, str]]:
    """One dataset: made, trained on, measured. With the ids of its runs."""
    from iql_ray.envs.umaze_data import maze_data
    from iql_ray.evaluation.maze_comparison import compare
    from iql_ray.evaluation.maze_study import MazeStudy
    from pipelines.train import train

    grid, study = GRIDS[name], MazeStudy(data=maze_data(name))
    _prepare(config, name)
    run = train(_train_config(config, name, name, _grid_flags(grid, config.num_updates)))
    run_ids, best_tenth = {name: run["run_id"]}, None
    if grid.is_tenth_cloned:
        run_name = f"{name}-10%bc"
        cloning = train(_train_config(config, name, run_name, _cloning_flags(config.num_cloning_updates)))
        run_ids[run_name] = cloning["run_id"]
        best_tenth = _learned(cloning["run_folder"], study)
    return compare(study, _learned(run["run_folder"], study), best_tenth), run_ids


def _prepare(config: MazeConfig, name: str) -> None:
    from pipelines.prepare import PrepareConfig, prepare

    prepare(PrepareConfig(source=f"umaze:{name}", out=_dataset(config, name), overwrite=True))


def _grid_flags(grid: Grid, num_updates: int) -> dict[str, Sequence[object]]:
    objectives, expectiles = zip(*grid.critics, strict=True)
    return {
        "critics": objectives,
        "expectiles": expectiles,
        "inverse-temperatures": grid.inverse_temperatures,
        "num-updates": [num_updates],
    }


def _cloning_flags(num_updates: int) -> dict[str, Sequence[object]]:
    """Recipe percent_bc's share, for networks of the maze's size."""
    return {
        "top-episode-share": [recipes.PERCENT_CLONING["top_episode_share"]],
        "inverse-temperature": [recipes.PERCENT_CLONING["agent"]["inverse_temperature"]],
        "num-updates": [num_updates],
    }


def _train_config(config: MazeConfig, name: str, run_name: str, flags: Mapping[str, Sequence[object]]) -> TrainConfig:
    """A run of all seeds; its state is saved at its end alone, since starting anew costs less."""
    from iql_ray.distributed.train_config import TrainConfig

    every = {
        "dataset": [_dataset(config, name)],
        "recipe": ["umaze"],
        "eval-method": ["none"],
        "seeds": range(config.num_seeds),
        "checkpoint-interval-updates": flags["num-updates"],
        "log-interval-updates": [LOG_INTERVAL_UPDATES],
        "storage": [config.out / "runs"],
        "tracking-uri": [_tracking_uri(config)],
        "experiment": ["maze"],
        "run-name": [run_name],
        **flags,
    }
    words = [str(word) for flag, values in every.items() for word in (f"--{flag}", *values)]
    return command_line.parse(TrainConfig, words)


def _learned(run_folder: str, study: MazeStudy) -> Learned:
    """What every member of a run says of every state of the maze."""
    import numpy as np
    import torch

    from iql_ray.distributed.learner import export_policy
    from iql_ray.distributed.members import load_agent
    from iql_ray.envs.maze_map import state_observations
    from iql_ray.evaluation.maze_study import Learned

    agent, transforms = load_agent(Path(run_folder))
    observations, members = state_observations(study.data.maze), agent.population.members()
    inputs = torch.from_numpy(transforms.observations(observations))
    policies = [export_policy(agent.policy_weights(index), agent.spaces, transforms) for index in range(len(members))]
    return Learned(
        members=members,
        values=agent.values(inputs).double().numpy(),
        action_values=agent.all_action_values(inputs).double().numpy(),
        probabilities=np.stack([policy.probabilities(observations) for policy in policies]),
    )


def _by_measure(comparisons: Mapping[str, MazeComparison]) -> dict[str, dict[str, Any]]:
    """Every measure, by dataset where that has it."""
    plain = {name: comparison.plain() for name, comparison in comparisons.items()}
    measures = dict.fromkeys(measure for each in plain.values() for measure in each)
    return {
        measure: {name: each[measure] for name, each in plain.items() if each[measure] not in ({}, None)}
        for measure in measures
    }


def _draw(config: MazeConfig, comparisons: Mapping[str, MazeComparison]) -> Path:
    from iql_ray.report.maze_figure import maze_figure
    from iql_ray.report.maze_story import lucky_panel, maze_row

    rows = [maze_row(comparison) for name, comparison in comparisons.items() if name != "lucky"]
    return maze_figure(config.out / "maze.png", rows, lucky_panel(comparisons["lucky"]))


def _dataset(config: MazeConfig, name: str) -> Path:
    return config.out / "data" / name


def _tracking_uri(config: MazeConfig) -> str:
    """The embedded store, whatever the environment says: the comparison needs no server."""
    from iql_ray.tracking.store import default_tracking_uri

    return default_tracking_uri(config.out / "runs")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(MazeConfig, maze, argv, description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
