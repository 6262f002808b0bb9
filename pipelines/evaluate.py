"""iql-ray evaluate --run RUN --num-episodes 100, or --model models:/pendulum@champion --env Pendulum-v1
iql-ray evaluate --method fqe --run RUN, or --model models:/pen@champion --dataset data/pen

A policy in its environment: whole episodes on rollout workers, and what they say. Or, where there is no environment, a
verdict from logged data alone, by fitted Q evaluation. Parse, call, print.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from iql_ray.algorithm.fqe_config import FQEConfig
from iql_ray.distributed.roles import parse_resources
from pipelines import command_line
from pipelines.ray_session import cluster_nodes, ray_session
from pipelines.storing import with_fetched_runs

if TYPE_CHECKING:
    from iql_ray.evaluation.fqe import FittedQEvaluator
    from iql_ray.policy import Policy


DEFAULT_DISCOUNT = 0.99

SETTINGS_OF = {
    "rollouts": ("env", "num_episodes", "num_workers", "rollout_resources", "dry_run"),
    "fqe": ("dataset", "discount", "device", "fqe"),
}
"""What belongs to one method alone."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Run a policy in its environment and report returns with intervals; or judge it from logged data alone."""

    method: Literal["rollouts", "fqe"] = "rollouts"
    """Episodes in the environment, or fitted Q evaluation on a dataset, which needs none."""

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
    """Environment id; by default the one that the run was trained for. Rollouts only."""
    num_episodes: int = 100
    """Episodes; rollouts only. The same seed gives the same returns on any number of workers."""
    num_workers: int = 2
    """Rollout workers at most; each keeps 8 environments and one CPU busy."""
    rollout_resources: tuple[str, ...] = ()
    """Custom resources of the cluster that each rollout worker asks for, as NAME=AMOUNT ..., such as
    iql_rollout=0.001."""
    dry_run: bool = False
    """Say which nodes of the cluster would take which rollout workers, and stop."""
    dataset: str | None = None
    """Folder made by `iql-ray prepare`, or its URI, to judge the policy by; by default the one that the run learned
    from. Fqe only, as are all below that begin with fqe."""
    discount: float | None = None
    """Discount of the value that fqe estimates, in [0, 1); by default the run's own, and 0.99 for a model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where fqe computes; auto takes a GPU where there is one."""
    fqe: Annotated[FQEConfig, tyro.conf.arg(name="")] = field(default_factory=FQEConfig)
    """What fitted Q evaluation spends."""
    seed: int = 0
    """Of the episodes, or of everything that fqe draws."""
    temperature: float = 0.0
    """0 acts at the mean, as the paper evaluates, or takes the most likely of discrete actions. Above 0 it scales
    the noise, or samples from softmax(logits / temperature)."""
    storage: str = "runs"
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
        if self.discount is not None and not 0 <= self.discount < 1:
            raise ValueError(f"discount is {self.discount}, expected a number in [0, 1)")
        parse_resources("rollout_resources", self.rollout_resources)
        self._check_method()

    def _check_method(self) -> None:
        """Refuse what the chosen method would ignore, and a model without data to judge it by."""
        defaults = {each.name: each.default_factory() if each.name == "fqe" else each.default for each in fields(self)}  # pyright: ignore
        for method, names in SETTINGS_OF.items():
            given = [name for name in names if getattr(self, name) != defaults[name]]
            if method != self.method and given:
                flags = ", ".join(_flags(self, given))
                raise ValueError(f"{flags}: of --method {method}, not of {self.method}; leave out, or change --method")
        if self.method == "fqe" and self.model is not None and self.dataset is None:
            raise ValueError("a model does not say which data to judge it by; name a prepared dataset with --dataset")


def _flags(config: EvaluateConfig, names: Sequence[str]) -> list[str]:
    """The settings as the user gives them; of a group, those that differ from its defaults."""
    changed = [each.name for each in fields(FQEConfig) if getattr(config.fqe, each.name) != each.default]
    return [f"--{name.replace('_', '-')}" for each in names for name in (changed if each == "fqe" else [each])]


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
    dataset: str | None = None
    """What it learned from, where that is recorded."""
    discount: float | None = None
    """What it learned with, where that is recorded."""


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Load the policy, then run its episodes or judge it from data.

    Returns:
        What was evaluated, and the statistics of `evaluation.statistics.summarize` or the verdict of
        `evaluation.fqe.FittedQEvaluator.evaluate`.

    Raises:
        ValueError: no such run, checkpoint, model, dataset or environment, or one that the policy does not fit.
        RuntimeError: the environment failed in an episode, again and again.
    """
    evaluated = _load_run(config) if config.run is not None else _load_model(config)
    statistics = _fitted(config, evaluated) if config.method == "fqe" else _rolled_out(config, evaluated)
    return {
        "policy": evaluated.source,
        "num_updates": evaluated.num_updates,
        "member": evaluated.member,
        "method": config.method,
        "seed": config.seed,
        "temperature": config.temperature,
        **statistics,
    }


def _rolled_out(config: EvaluateConfig, evaluated: Evaluated) -> dict[str, Any]:
    """Check the environment against the policy, run the episodes."""
    from iql_ray.distributed.run_roles import evaluation_roles
    from iql_ray.evaluation.episodes import check_policy, split_into_groups
    from pipelines.placement import show_placement
    from pipelines.progress import say

    environment_id = config.env or evaluated.environment_id
    if environment_id is None:
        raise ValueError(f"{evaluated.source} does not say in which environment it acts; name one with --env")
    check_policy(evaluated.policy, environment_id)
    num_workers = min(config.num_workers, len(split_into_groups(config.num_episodes, config.seed)))
    roles = evaluation_roles(num_workers, config.rollout_resources)
    if config.dry_run:
        return show_placement(cluster_nodes(), lambda device, nodes: roles, "cpu", num_workers)
    resources = parse_resources("rollout_resources", config.rollout_resources)
    with ray_session():
        from iql_ray.distributed.cluster_room import await_room
        from iql_ray.distributed.rollout_workers import RolloutWorkers

        await_room(roles, say)
        with RolloutWorkers(environment_id, num_workers, resources=resources) as workers:
            results = workers.evaluate(evaluated.policy, config.num_episodes, config.seed, config.temperature)
    from iql_ray.evaluation.statistics import summarize

    return {"environment_id": environment_id, **summarize(results, environment_id)}


def _fitted(config: EvaluateConfig, evaluated: Evaluated) -> dict[str, Any]:
    """Read the data, fit Q of what made them and of the policy; what speaks against the result is said on stderr."""
    dataset = config.dataset or evaluated.dataset
    if dataset is None:
        raise ValueError(
            f"{evaluated.source} does not say what it learned from; name a prepared dataset with --dataset"
        )
    discount = next(each for each in (config.discount, evaluated.discount, DEFAULT_DISCOUNT) if each is not None)
    evaluator = fitted_evaluator(dataset, config.fqe, discount=discount, seed=config.seed, device=config.device)
    evaluator.check(evaluated.policy)
    print(f"fitting Q of the data's policy and of this one, 2 x {config.fqe.fqe_updates:,} updates", file=sys.stderr)
    verdict = evaluator.evaluate(evaluated.policy, config.temperature)
    _say(verdict)
    return {"dataset": dataset, "dataset_digest": evaluator.logged.manifest.digest, **verdict}


def fitted_evaluator(dataset: str, settings: FQEConfig, *, discount: float, seed: int, device: str) -> FittedQEvaluator:
    """Read the data that policies are judged by.

    Raises:
        ValueError: no such dataset, one of too few episodes, or a GPU that is not there.
    """
    import torch

    from iql_ray.evaluation.fqe import FittedQEvaluator
    from iql_ray.evaluation.logged_episodes import read_episodes

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device cuda needs a GPU, and torch {torch.__version__} finds none; use --device cpu")
    is_cuda = device != "cpu" and torch.cuda.is_available()
    if not is_cuda:
        torch.set_num_threads(1)  # networks this small gain little from more, and lose much where cores are busy
    logged = read_episodes(
        dataset, held_out_share=settings.fqe_held_out_share, max_rows=settings.fqe_max_rows, seed=seed
    )
    return FittedQEvaluator(logged, settings, discount=discount, seed=seed, device="cuda" if is_cuda else "cpu")


def _say(verdict: dict[str, Any]) -> None:
    """The verdict in a few lines for people."""
    lines = (
        ("value", "value_ci", "this policy"),
        ("behaviour_value", "behaviour_ci", "the data's policy, estimated in the same way"),
        ("improvement", "improvement_ci", "difference"),
        ("logged_return", "logged_return_ci", "the data's returns as logged"),
    )
    print(f"discounted at {verdict['discount']:g}, raw rewards, 95% intervals:", file=sys.stderr)
    for name, interval, label in lines:
        low, high = verdict[interval]
        print(f"  {verdict[name]:10.5g}  [{low:.5g}, {high:.5g}]  {label}", file=sys.stderr)
    for warning in verdict["warnings"]:
        print(f"warning: {warning['message']}", file=sys.stderr)


def _load_run(settings: EvaluateConfig) -> Evaluated:
    from iql_ray import checkpoint, config, run_folder

    settings = with_fetched_runs(settings)
    folder = run_folder.find_run(settings.storage, str(settings.run))
    try:
        policy, member, num_updates = _policy_of(folder, settings)
    except checkpoint.CorruptCheckpointError as error:
        others = run_folder.checkpoint_updates(folder)
        raise ValueError(f"{error}; choose another with --checkpoint, of {others}") from error
    configuration = config.read(folder / run_folder.CONFIG_FILE)
    return Evaluated(
        policy=policy,
        environment_id=configuration.get("env"),
        source=str(folder),
        num_updates=num_updates,
        member=member,
        dataset=configuration.get("dataset"),
        discount=configuration.get("agent", {}).get("discount"),
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


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(EvaluateConfig, evaluate, argv, description=EvaluateConfig.__doc__)


if __name__ == "__main__":
    sys.exit(main())
