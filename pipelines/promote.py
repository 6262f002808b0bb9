"""iql-ray promote --run RUN --name pendulum --env Pendulum-v1
iql-ray promote --candidate models:/pendulum/7 --name pendulum --dataset data/pendulum

The gate of the registry: a candidate becomes @champion only if it is better than the champion, by the lower 95% bound
of their paired difference. Parse, call, print.
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from iql_ray.algorithm.fqe_config import FQEConfig
from iql_ray.tracking.names import check_model_name
from pipelines import command_line

if TYPE_CHECKING:
    from iql_ray.evaluation.comparison import Comparison, Gate
    from iql_ray.policy import Policy
    from iql_ray.tracking.candidates import Candidate
    from iql_ray.tracking.promotion import Proposal, Record

SETTINGS_OF = {"env": ("num_episodes", "num_workers"), "dataset": ("discount", "device", "fqe")}
"""What belongs to one way of judging alone."""

Judge = Callable[["Policy", "Policy | None", "str | None"], "Comparison"]
"""From the candidate, the champion and the champion's version to what the protocol says of both."""


@dataclass(frozen=True, kw_only=True)
class PromoteConfig:
    """Make a policy the champion of its name, if it is better than the one that is."""

    name: str
    """The registered model whose champion it is to become."""
    run: str | None = None
    """A run's id or folder: the policy that it handed on. Either this or --candidate."""
    candidate: str | None = None
    """models:/NAME/VERSION, models:/NAME@ALIAS, models:/MODEL_ID, or a folder with a policy. What is no version of the
    name yet becomes one."""
    env: str | None = None
    """Environment id in which candidate and champion act, from the same seeds. Either this or --dataset."""
    dataset: str | None = None
    """Where there is no simulator: a prepared dataset, or its URI, by which fitted Q evaluation judges both."""
    require_simulator: bool = False
    """Refuse to judge from data alone."""
    margin: float = 0.0
    """What the lower 95% bound of the paired difference has to exceed, in units of the score."""
    floor: float | None = None
    """What the lower 95% bound of the score of a first champion has to exceed; without, the first one is taken."""
    num_episodes: int = 100
    """Episodes of each of the two, in env."""
    num_workers: int = 2
    """Rollout workers at most."""
    seed: int = 0
    """Of the episodes, or of everything that fqe draws. Better not one that the candidate was chosen by."""
    temperature: float = 0.0
    """0 acts at the mean, or takes the most likely of discrete actions."""
    discount: float = 0.99
    """Of the value that fqe estimates, in [0, 1)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where fqe computes; auto takes a GPU where there is one."""
    fqe: Annotated[FQEConfig, tyro.conf.arg(name="")] = field(default_factory=FQEConfig)
    """What fitted Q evaluation spends."""
    dry_run: bool = False
    """Compare, say what would be decided, and write nothing."""
    storage: Path = Path("runs")
    """The folder of all runs."""
    tracking_uri: str | None = None
    """The store; MLFLOW_TRACKING_URI, then the one beside the runs, if not given."""

    def __post_init__(self) -> None:
        check_model_name(self.name)
        if (self.run is None) == (self.candidate is None):
            raise ValueError("promote needs either --run RUN or --candidate URI, and not both")
        if self.require_simulator and self.env is None:
            raise ValueError("--require-simulator: data alone cannot try a policy; name an environment with --env")
        if (self.env is None) == (self.dataset is None):
            raise ValueError("promote needs either --env ID or --dataset DIR to judge by, and not both")
        for name, minimum in (("num_episodes", 2), ("num_workers", 1), ("seed", 0)):
            if getattr(self, name) < minimum:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {minimum}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature is {self.temperature}, expected 0 or more")
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"margin is {self.margin}, expected 0 or more")
        if not 0 <= self.discount < 1:
            raise ValueError(f"discount is {self.discount}, expected a number in [0, 1)")
        self._check_method()

    def _check_method(self) -> None:
        """Refuse what the chosen way of judging would ignore."""
        defaults = {each.name: each.default_factory() if each.name == "fqe" else each.default for each in fields(self)}  # pyright: ignore
        for way, names in SETTINGS_OF.items():
            given = [name for name in names if getattr(self, name) != defaults[name]]
            if getattr(self, way) is None and given:
                raise ValueError(f"{', '.join(given)}: judges with --{way}, which was not given; leave it out")


def promote(config: PromoteConfig) -> dict[str, Any]:
    """Find, compare, decide.

    Returns:
        name, version, model_uri, decision (promoted, kept or already champion), reason, and the record of the version.

    Raises:
        ValueError: no such run, model, dataset or environment, or policies that do not fit it or each other.
        StoreUnavailableError: the store does not answer.
        RuntimeError: the environment failed in an episode, again and again.
    """
    from iql_ray.policy import Policy
    from iql_ray.tracking.candidates import find_candidate, run_uri
    from iql_ray.tracking.promotion import champion_of
    from iql_ray.tracking.reaching import answering
    from iql_ray.tracking.store import open_client, require_store, resolve_tracking_uri
    from iql_ray.tracking.verdicts import already_champion

    uri = resolve_tracking_uri(config.tracking_uri, config.storage)
    require_store(uri)
    with answering(uri):
        client = open_client(uri)
        source = config.candidate or run_uri(str(config.run), config.storage)
        candidate = find_candidate(client, uri, source, config.name, config.storage)
        policy = Policy.load(candidate.folder)
        champion = champion_of(client, config.name)
        if champion is not None and candidate.version == champion:
            return _result(config, already_champion(champion))
        _check(config, policy, _champion_policy(config, uri, champion))
        with _judging(config) as judge:
            record = _decided(config, client, uri, candidate, policy, judge)
    _say(record)
    return _result(config, record)


def _check(config: PromoteConfig, policy: Policy, champion: Policy | None) -> None:
    """Refuse, before anything is spent, two that cannot be compared, or an environment that the candidate does not fit.

    Raises:
        ValueError: says which, and what is expected.
    """
    from iql_ray.evaluation.episodes import check_policy, policy_spaces

    if config.env is not None:
        check_policy(policy, config.env)
    if champion is not None and policy_spaces(policy) != policy_spaces(champion):
        raise ValueError(
            f"the candidate acts in {policy_spaces(policy)}, the champion of '{config.name}' in "
            f"{policy_spaces(champion)}; register what does another task under another --name"
        )


def _champion_policy(config: PromoteConfig, uri: str, version: str | None) -> Policy | None:
    from iql_ray.policy import Policy
    from iql_ray.tracking.registry import download_policy

    if version is None:
        return None
    try:
        return Policy.load(download_policy(f"models:/{config.name}/{version}", uri))
    except ValueError as error:
        raise ValueError(f"the champion of '{config.name}', version {version}, cannot be compared: {error}") from error


def _decided(
    config: PromoteConfig, client: Any, uri: str, candidate: Candidate, policy: Policy, judge: Judge
) -> dict[str, Any]:
    """Compare with the champion and decide, anew where the champion has changed meanwhile."""
    from iql_ray.tracking import promotion

    @functools.cache
    def version() -> str:
        return candidate.version or ("" if config.dry_run else candidate.register())

    def propose(champion: str | None) -> Proposal:
        theirs = _champion_policy(config, uri, champion)
        _check(config, policy, theirs)
        comparison = judge(policy, theirs, champion)
        return promotion.Proposal(
            name=config.name,
            version=version(),
            compared_with=champion,
            comparison=comparison,
            gate=_gate(config),
            source=candidate.source,
            dataset_sha256=candidate.tags.get("dataset.sha256"),
        )

    def decide(proposal: Proposal) -> Record | None:
        if config.dry_run:
            return promotion.would_decide(proposal)
        if _takes_turns_in_cluster(config, uri):
            from iql_ray.distributed.promotion_queue import decide_in_turn

            return decide_in_turn(uri, proposal)
        return promotion.decide(client, uri, proposal)

    return promotion.promote(propose, lambda: promotion.champion_of(client, config.name), decide)


def _gate(config: PromoteConfig) -> Gate:
    from iql_ray.evaluation.comparison import Gate

    return Gate(margin=config.margin, floor=config.floor)


def _takes_turns_in_cluster(config: PromoteConfig, uri: str) -> bool:
    """Where a Ray cluster was joined, and its nodes can reach the store; a file is of this machine alone."""
    from iql_ray.tracking.store import is_embedded

    return config.env is not None and bool(os.environ.get("RAY_ADDRESS")) and not is_embedded(uri)


@contextmanager
def _judging(config: PromoteConfig) -> Iterator[Judge]:
    """What compares two policies; each is evaluated once, however often the candidate is compared."""
    with _evaluating(config) as (evaluate, compare):
        known: dict[str, Any] = {}

        def judge(candidate: Policy, champion: Policy | None, version: str | None) -> Comparison:
            for label, policy in (("candidate", candidate), (f"version {version}", champion)):
                if policy is not None and label not in known:
                    print(f"evaluating the {label.replace('version', 'champion, version')}", file=sys.stderr)
                    known[label] = evaluate(policy)
            return compare(known["candidate"], known.get(f"version {version}"))

        yield judge


@contextmanager
def _evaluating(config: PromoteConfig) -> Iterator[tuple[Callable[[Policy], Any], Callable[[Any, Any], Comparison]]]:
    """By rollouts or by fqe: what evaluates one policy, and what compares two of its answers."""
    from iql_ray.evaluation import comparison

    if config.env is None:
        yield _fitted(config)
        return
    protocol = comparison.rollout_protocol(config.env, config.num_episodes, config.seed, config.temperature)
    from iql_ray.evaluation.episodes import split_into_groups
    from pipelines.ray_session import ray_session

    num_groups = len(split_into_groups(config.num_episodes, config.seed))
    with ray_session():
        from iql_ray.distributed.rollout_workers import RolloutWorkers

        with RolloutWorkers(config.env, min(config.num_workers, num_groups)) as workers:
            yield (
                lambda policy: workers.evaluate(policy, config.num_episodes, config.seed, config.temperature),
                lambda candidate, champion: comparison.compare_episodes(protocol, candidate, champion),
            )


def _fitted(config: PromoteConfig) -> tuple[Callable[[Policy], Any], Callable[[Any, Any], Comparison]]:
    from iql_ray.evaluation.comparison import compare_values, fqe_protocol
    from pipelines.evaluate import fitted_evaluator

    assert config.dataset is not None
    evaluator = fitted_evaluator(
        config.dataset, config.fqe, discount=config.discount, seed=config.seed, device=config.device
    )
    digest = evaluator.logged.manifest.digest
    protocol = fqe_protocol(digest, config.fqe, config.discount, config.seed, config.temperature)
    return (
        lambda policy: evaluator.judge(policy, config.temperature),
        lambda candidate, champion: compare_values(protocol, candidate, champion),
    )


def _result(config: PromoteConfig, record: dict[str, Any]) -> dict[str, Any]:
    version = record["version"]
    uri = f"models:/{config.name}/{version}" if version else None
    return {"name": config.name, "model_uri": uri, "is_dry_run": config.dry_run, **record}


def _say(record: dict[str, Any]) -> None:
    """The decision in a few lines for people."""
    from iql_ray.tracking.verdicts import decision_in_words, with_interval

    if "score" not in record:
        return
    for label in ("score", "champion_score", "difference"):
        if record[label] is not None:
            interval = record[f"{label}_ci"]
            print(f"  {with_interval(record[label], interval)}  {label.replace('_', ' ')}", file=sys.stderr)
    for warning in record["warnings"]:
        print(f"warning: {warning['message']}", file=sys.stderr)
    print(f"{decision_in_words(record)}: {record['reason']}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(PromoteConfig, promote, argv, description=PromoteConfig.__doc__)


if __name__ == "__main__":
    sys.exit(main())
