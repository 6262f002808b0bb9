"""Extract policies for other inverse temperatures from the critics of a run, which stay as they are.

iql-ray extract --run RUN --inverse-temperatures 0.5 1 3 10

The critic does not depend on the policy, so this takes a fraction of a run. It is a search over those policies: they
are ranked, each gets a run of its own, and `iql-ray search --resume` finishes an interrupted one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from iql_ray.algorithm.fqe_config import DURING_TRAINING, FQEConfig
from iql_ray.distributed.search_config import SearchConfig
from pipelines import command_line
from pipelines.search import search
from pipelines.storing import with_fetched_runs


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Extract policies from the critics of a run that has been trained, or searched."""

    run: str
    """Run id or folder: of iql-ray train, of a member of a search, or a grid."""
    inverse_temperatures: tuple[float, ...]
    """Of the policies, for each of the run's seeds and expectiles."""
    num_updates: int | None = None
    """Updates of the policies; default: as many as the run's."""
    seeds: tuple[int, ...] = ()
    """Those of the run's to take; empty: all."""
    expectiles: tuple[float, ...] = ()
    """Those of the run's to take; empty: all."""
    dataset: str | None = None
    """The prepared dataset, where it lies elsewhere by now."""
    env: str | None = None
    """Environment to rank in; default: the run's."""
    eval_method: Literal["auto", "rollouts", "fqe"] = "auto"
    """How policies are ranked: by episodes in env, or by fitted Q evaluation on the dataset."""
    fqe: Annotated[FQEConfig, tyro.conf.arg(name="")] = DURING_TRAINING
    """What fitted Q evaluation spends on a policy."""
    eval_interval_updates: int = 5000
    """Updates between two evaluations by episodes along the way."""
    num_eval_episodes: int = 10
    """Episodes of each of those."""
    num_final_episodes: int = 50
    """Episodes by which a policy is ranked."""
    score: Literal["return", "discounted-return"] = "return"
    """Of an episode; see iql-ray search."""
    members_per_trial: int | None = None
    """Policies trained side by side in one process."""
    storage: str = "runs"
    """Folder of all runs."""
    tracking_uri: str | None = None
    """MLflow store; default MLFLOW_TRACKING_URI, else an SQLite file in the storage folder."""
    experiment: str = "iql_ray"
    """MLflow experiment that the runs belong to."""
    run_name: str | None = None
    """MLflow name of the search's own run."""
    register_as: str | None = None
    """Register the best policy under this name."""
    dry_run: bool = False
    """Say what would be trained, and stop."""


def extract(config: ExtractConfig) -> dict[str, Any]:
    """Extract and rank; returns what `iql-ray search` does."""
    return search(search_config(config))


def search_config(asked: ExtractConfig) -> SearchConfig:
    """The search that an extraction is.

    Raises:
        ValueError: no such run.
    """
    if not asked.inverse_temperatures:
        raise ValueError("inverse_temperatures is empty: expected one or more, as --inverse-temperatures 0.5 1 3 10")
    from iql_ray import config as config_io
    from iql_ray import run_folder
    from iql_ray.distributed.train_config import TrainConfig

    folder = run_folder.find_run(with_fetched_runs(asked).storage, asked.run)
    trained = config_io.load(TrainConfig, folder / run_folder.CONFIG_FILE)
    env = asked.env if asked.env is not None or asked.eval_method == "fqe" else trained.env
    return SearchConfig(
        critics_from=str(folder),
        extract="after",
        extract_updates=asked.num_updates or trained.num_updates,
        num_updates=trained.num_updates,
        batch_size=trained.batch_size,
        cpus_per_learner=trained.cpus_per_learner,
        agent=replace(trained.agent, inverse_temperature=asked.inverse_temperatures[0]),
        dataset=asked.dataset or trained.dataset,
        env=env,
        **{
            name: getattr(asked, name)
            for name in (
                "inverse_temperatures", "seeds", "expectiles", "eval_method", "fqe", "eval_interval_updates",
                "num_eval_episodes", "num_final_episodes", "score", "members_per_trial", "storage", "tracking_uri",
                "experiment", "run_name", "register_as", "dry_run",
            )
        },
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(ExtractConfig, extract, argv, description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
