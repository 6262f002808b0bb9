"""The roles of every command: how many processes of which kind its configuration comes to. Imports no Ray."""

from __future__ import annotations

from collections.abc import Sequence

from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.roles import SHARED_CPU, Node, Role, has_idle_head, parse_resources, worker_cpus
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.train_config import TrainConfig


def learner_role(config: TrainConfig, device: str) -> Role:
    """All learners must run at once.

    Args:
        device: cpu or cuda.
    """
    gpu = {"GPU": 1.0} if device == "cuda" else {}
    custom = parse_resources("learner_resources", config.learner_resources)
    each = {"CPU": float(config.cpus_per_learner), **gpu, **custom}
    return Role(name="learner", count=config.num_learners, each=each, minimum=config.num_learners)


def trial_role(config: SearchConfig, device: str, num_trials: int) -> Role:
    """Trials wait for each other, so that one place is enough."""
    gpu = {"GPU": config.gpus_per_trial} if device == "cuda" else {}
    custom = parse_resources("learner_resources", config.learner_resources)
    each = {"CPU": float(config.cpus_per_learner), **gpu, **custom}
    return Role(name="trial", count=num_trials, each=each, minimum=1)


def train_roles(config: TrainConfig, device: str, nodes: Sequence[Node]) -> list[Role]:
    """Learners, and who evaluates."""
    learners = learner_role(config, device)
    if config.evaluation_method != "rollouts":
        return [learners]
    cpus = cpus_of_workers(config, device, nodes, config.num_eval_workers)
    return [learners, _workers("evaluation worker", config, config.num_eval_workers, cpus, minimum=1)]


def finetune_roles(config: FinetuneConfig, learner: TrainConfig, device: str, nodes: Sequence[Node]) -> list[Role]:
    """Learners, who steps environments (in step, all must), and who evaluates.

    Args:
        learner: what its learners are told.
    """
    num_workers = config.num_rollout_workers
    cpus = cpus_of_workers(learner, device, nodes, num_workers + config.num_eval_workers)
    minimum = num_workers if config.mode == "synchronous" else min(1, num_workers)
    roles = [learner_role(learner, device)]
    if num_workers:
        roles.append(_workers("rollout worker", learner, num_workers, cpus, minimum))
    return [*roles, _workers("evaluation worker", learner, config.num_eval_workers, cpus, minimum=1)]


def evaluation_roles(num_workers: int, rollout_resources: Sequence[str]) -> list[Role]:
    """Episodes wait for whoever is there."""
    each = {"CPU": 1.0, **parse_resources("rollout_resources", rollout_resources)}
    return [Role(name="rollout worker", count=num_workers, each=each, minimum=1)]


def cpus_of_workers(config: TrainConfig, device: str, nodes: Sequence[Node], num_workers: int) -> float:
    """What each worker of a run asks for: a CPU where there are enough beside the learners; otherwise they share."""
    custom = parse_resources("rollout_resources", config.rollout_resources)
    return worker_cpus(learner_role(config, device), num_workers, custom, nodes)


def least_roles(roles: Sequence[Role], nodes: Sequence[Node]) -> list[Role]:
    """The same with what a cluster must have at the least: workers may share CPUs, learners and trials may not."""
    shared = SHARED_CPU if has_idle_head(nodes) else 0.0
    return [
        Role(name=role.name, count=role.count, each={**role.each, "CPU": shared}, minimum=role.minimum)
        if role.name.endswith("worker")
        else role
        for role in roles
    ]


def _workers(name: str, config: TrainConfig, count: int, cpus: float, minimum: int) -> Role:
    custom = parse_resources("rollout_resources", config.rollout_resources)
    return Role(name=name, count=count, each={"CPU": cpus, **custom}, minimum=minimum)
