"""iql-ray evaluate --run RUN --num-episodes 100, or --model models:/pendulum@champion --env Pendulum-v1

A policy in its environment: whole episodes on rollout workers, and what they say. Parse, call, print.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines import command_line
from pipelines.ray_session import ray_session

if TYPE_CHECKING:
    from iql_ray.policy import Policy


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Run a policy in its environment and report returns with intervals."""

    run: str | None = None
    """The run's id, or the path of its folder. Either this or --model."""
    model: str | None = None
    """A registered or logged model: models:/NAME/VERSION, models:/NAME@ALIAS, runs:/RUN_ID/policy, or a folder."""
    checkpoint: Literal["last", "best"] | int = "last"
    """Which of the run's checkpoints: the last, the best by evaluation, or the one after N updates."""
    member: int | None = None
    """Which member of a run that trained several, the first by default; inverse temperatures vary fastest, seeds
    slowest."""
    env: str | None = None
    """Environment id; by default the one that the run was trained for."""
    num_episodes: int = 100
    """Episodes. The same seed gives the same returns on any number of workers."""
    num_workers: int = 2
    """Rollout workers at most; each keeps 8 environments and one CPU busy."""
    seed: int = 0
    """Of the episodes."""
    temperature: float = 0.0
    """0 acts at the mean, as the paper evaluates, or takes the most likely of discrete actions. Above 0 it scales
    the noise, or samples from softmax(logits / temperature)."""
    storage: Path = Path("runs")
    """The folder of all runs."""
    tracking_uri: str | None = None
    """The store that knows the model; MLFLOW_TRACKING_URI, then the one beside the runs, if not given."""

    def __post_init__(self) -> None:
        if (self.run is None) == (self.model is None):
            raise ValueError("evaluate needs either --run RUN or --model URI, and not both")
        if self.model is not None and self.checkpoint != "last":
            raise ValueError(f"--checkpoint {self.checkpoint} chooses within a run; a model is one policy: use --run")
        if self.model is not None and self.member is not None:
            raise ValueError(f"--member {self.member} chooses within a run; a model is one policy: use --run")
        for name, minimum in (("num_episodes", 1), ("num_workers", 1), ("seed", 0)):
            if getattr(self, name) < minimum:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {minimum}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature is {self.temperature}, expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What is to be evaluated, and where it came from."""

    policy: Policy
    environment_id: str | None
    """The one that it was trained for, where that is recorded."""
    source: str
    num_updates: int | None = None
    """Updates behind the policy, where that is known."""
    member: dict[str, Any] | None = None
    """Seed, expectile, inverse temperature and critic of the member of a run, where one was asked for."""


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Load, check the environment against the policy, run the episodes.

    Returns:
        The statistics of `evaluation.statistics.summarize`, and what was evaluated.

    Raises:
        ValueError: no such run, checkpoint, model or environment, or an environment that the policy does not fit.
        RuntimeError: the environment failed in an episode, again and again.
    """
    from iql_ray.evaluation.episodes import check_policy, split_into_groups

    evaluated = _load_run(config) if config.run is not None else _load_model(config)
    environment_id = config.env or evaluated.environment_id
    if environment_id is None:
        raise ValueError(f"{evaluated.source} does not say in which environment it acts; name one with --env")
    check_policy(evaluated.policy, environment_id)
    num_groups = len(split_into_groups(config.num_episodes, config.seed))
    with ray_session():
        from iql_ray.distributed.rollout_workers import RolloutWorkers

        with RolloutWorkers(environment_id, min(config.num_workers, num_groups)) as workers:
            results = workers.evaluate(evaluated.policy, config.num_episodes, config.seed, config.temperature)
    from iql_ray.evaluation.statistics import summarize

    return {**_description(config, evaluated, environment_id), **summarize(results, environment_id)}


def _load_run(settings: EvaluateConfig) -> Evaluated:
    from iql_ray import checkpoint, config, run_folder

    folder = run_folder.find_run(settings.storage, str(settings.run))
    try:
        policy, member, num_updates = _policy_of(folder, settings)
    except checkpoint.CorruptCheckpointError as error:
        others = run_folder.checkpoint_updates(folder)
        raise ValueError(f"{error}; choose another with --checkpoint, of {others}") from error
    return Evaluated(
        policy=policy,
        environment_id=config.read(folder / run_folder.CONFIG_FILE).get("env"),
        source=str(folder),
        num_updates=num_updates,
        member=member,
    )


def _policy_of(folder: Path, settings: EvaluateConfig) -> tuple[Policy, dict[str, Any] | None, int]:
    """The policy, the member that it is, and its updates; a member other than the first is made from the agent."""
    if settings.member is None:
        from iql_ray import checkpoint

        policy, num_updates = checkpoint.load_policy(folder, settings.checkpoint)
        return policy, None, num_updates
    from iql_ray.distributed.members import load_member

    policy, member, num_updates = load_member(folder, settings.checkpoint, settings.member)
    return policy, member._asdict(), num_updates


def _load_model(settings: EvaluateConfig) -> Evaluated:
    from iql_ray.policy import Policy
    from iql_ray.tracking.registry import download_policy
    from iql_ray.tracking.store import resolve_tracking_uri

    uri = str(settings.model)
    folder = download_policy(uri, resolve_tracking_uri(settings.tracking_uri, settings.storage))
    return Evaluated(policy=Policy.load(folder), environment_id=None, source=uri)


def _description(config: EvaluateConfig, evaluated: Evaluated, environment_id: str) -> dict[str, Any]:
    return {
        "policy": evaluated.source,
        "num_updates": evaluated.num_updates,
        "member": evaluated.member,
        "environment_id": environment_id,
        "seed": config.seed,
        "temperature": config.temperature,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(EvaluateConfig, evaluate, argv, description=EvaluateConfig.__doc__)


if __name__ == "__main__":
    sys.exit(main())
