"""What the tests of fine-tuning share: environments in this process behind the collector's words, a run over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from iql_ray import checkpoint
from iql_ray.algorithm.denormals import flushed_denormals
from iql_ray.data.experience_log import ExperienceLog, discard_from, with_actions
from iql_ray.data.packed import RowLayout
from iql_ray.data.replay import ReplayRing
from iql_ray.distributed.director import Director
from iql_ray.distributed.finetune import Share, finetune
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.finetuning import (
    OnlinePlan,
    begin_from_source,
    evaluated_update,
    online_sampler,
    restored_share,
    ring_capacity,
)
from iql_ray.distributed.learner import Learner, RunPlan
from iql_ray.distributed.local_collector import LocalCollector
from iql_ray.envs.catalog import make_env
from iql_ray.experience import Stand
from tests.distributed.examples import ENVIRONMENT, Notes, all_rows


class OnlineNotes(Notes):
    """A recorder that remembers, and says of each evaluation what it was told to."""

    def __init__(self, returns: Sequence[float] = ()) -> None:
        super().__init__()
        self._returns = iter(returns)
        self.warnings: list[str] = []

    def evaluation(self, update_count: int) -> dict[str, Any]:
        return {"return_mean": next(self._returns)}

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def online_config(**changes: Any) -> FinetuneConfig:
    """Forty steps of two environments, one update a step, everything due every ten steps."""
    settings = {
        "run": "somewhere",
        "env": ENVIRONMENT,
        "num_env_steps": 40,
        "envs_per_worker": 2,
        "log_interval_env_steps": 10,
        "checkpoint_interval_env_steps": 10,
        "eval_interval_env_steps": 20,
    }
    return FinetuneConfig(**{**settings, **changes})


@flushed_denormals()
def run_online(
    plan: RunPlan,
    config: FinetuneConfig,
    notes: OnlineNotes,
    saved: checkpoint.Checkpoint | None = None,
    online: OnlinePlan | None = None,
    num_updates_before_stop: int | None = None,
) -> Learner:
    """Fine-tune in this process, with its arithmetic as learners have it: from a new agent, the run that `online`
    names, or a checkpoint; until a stop is ordered."""
    rows = torch.from_numpy(all_rows(Path(plan.config.dataset), plan.transforms))
    layout = RowLayout.of(plan.spaces)
    if config.without_offline_data:
        rows = rows[:0]
    ring = ReplayRing(ring_capacity(config), layout.width)
    learner = Learner(plan, rows, 0, None, make_sampler=partial(online_sampler, config, ring))
    if online is not None:
        begin_from_source(learner, online)
    share, stands, totals = Share(0, 1, ring), (), {}
    if saved is not None:
        learner.restore(saved)
        num_rows = saved.online["num_rows"]
        discard_from(plan.run_folder, num_rows)
        share = restored_share(plan, ring, 0, 1, num_rows)
        stands = with_actions(plan.run_folder, [Stand(**each) for each in saved.online["stands"]], num_rows)
        totals = saved.online["totals"]
    director = Director(
        config,
        layout,
        plan.transforms,
        LocalCollector(config, partial(make_env, str(config.env)), stands),
        ExperienceLog(plan.run_folder, share.num_seen),
        learner.policy,
        notes,
        learner.agent.update_count,
        evaluated_update(saved),
        totals,
    )
    finetune(learner, share, director, notes, lambda: learner.agent.update_count == num_updates_before_stop)
    return learner


def online_plan(plan: RunPlan) -> RunPlan:
    """The same learner, with the constant rate of fine-tuning."""
    agent = replace(plan.config.agent, policy_schedule="constant")
    return replace(plan, config=replace(plan.config, agent=agent))
