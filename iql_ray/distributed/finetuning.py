"""Fine-tuning from its configuration to its result, on the same worker group, record and monitor as training.

The first learner has the environments: its rollout workers are its own, and end with it. What it collects is on disk
with every checkpoint, so a killed worker, a killed learner and a killed driver are one case.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iql_ray import checkpoint, run_folder
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import Member, Population
from iql_ray.data.experience_log import (
    EXPERIENCE_FOLDER,
    ExperienceLog,
    discard_from,
    finished_episodes,
    newest_stands,
    read_experience,
    rows_on_disk,
    with_actions,
)
from iql_ray.data.packed import RowLayout
from iql_ray.data.packing import pack_columns
from iql_ray.data.replay import MixedSampler, ReplayRing, ReplaySampler, Sampler, online_share
from iql_ray.data.streaming import StreamedRows, sampler_of
from iql_ray.distributed import collective
from iql_ray.distributed.cluster_room import Say
from iql_ray.distributed.collecting import CollectingWorkers
from iql_ray.distributed.director import Director
from iql_ray.distributed.finetune import Share, finetune
from iql_ray.distributed.finetune_checking import CheckedFinetune
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.learner import (
    Learner,
    MonitorRecorder,
    RunPlan,
    begin_learning,
    device_of_worker,
    newest_for_all,
)
from iql_ray.distributed.local_collector import LocalCollector
from iql_ray.distributed.members import load_trained
from iql_ray.distributed.monitor import Conclusion
from iql_ray.distributed.roles import parse_resources
from iql_ray.distributed.run_roles import finetune_roles
from iql_ray.distributed.shards import learner_rows
from iql_ray.distributed.stopping import listener_to
from iql_ray.distributed.training import Show, Work, train
from iql_ray.envs.action_limits import maker_of
from iql_ray.evaluation.online_curve import online_curve, summarize_online
from iql_ray.experience import Stand
from iql_ray.report.online_figure import TrainingEpisodes, online_figure

SUMMARY_FILE, FIGURE_FILE = "online.json", "online.png"


@dataclass(frozen=True, kw_only=True)
class OnlinePlan:
    """What learners need to know of fine-tuning beside their own plan."""

    config: FinetuneConfig
    source: Path
    """The run whose agent goes on, first."""
    num_source_updates: int
    member: Member


def run_finetuning(
    checked: CheckedFinetune, show: Show = lambda progress: None, say: Say = lambda line: None
) -> dict[str, Any]:
    """Fine-tune as configured, or finish interrupted fine-tuning; Ray must be initialised.

    Returns:
        As `training.train`; and the curve's summary, what was collected and lost, and where it lies.

    Raises:
        ValueError: the cluster does not have what the configuration asks for.
        RuntimeError: as `training.train`; or every environment has failed.
    """
    config = checked.config
    online = OnlinePlan(
        config=config,
        source=checked.source,
        num_source_updates=checked.num_source_updates,
        member=checked.member,
    )
    work = Work(
        execute=run_online_learner,
        settings={"online": online},
        recorded_config=config,
        num_other_workers=config.num_rollout_workers,
        roles=partial(finetune_roles, config, checked.run.config),
        has_data=not config.without_offline_data,
        needs_held_data=not config.without_offline_data and config.online_fraction is None,
        conclude=partial(conclude, online),
    )
    return train(checked.run, show, work, say)


def run_online_learner(settings: dict[str, Any]) -> None:
    """What each worker of the trainer executes: take the shard, go on where the run or its source stands, fine-tune.

    Args:
        settings: `plan` (RunPlan), `online` (OnlinePlan), `shards` and `monitor` as for `run_learner`.
    """
    plan: RunPlan = settings["plan"]
    online: OnlinePlan = settings["online"]
    rank, num_learners = collective.rank(), collective.num_learners()
    begin_learning(plan.config)
    device = device_of_worker(plan)
    layout = RowLayout.of(plan.spaces)
    rows = torch.zeros((0, layout.width), device=device)
    if not online.config.without_offline_data:
        rows = learner_rows(settings["shards"][rank], device)
    ring = ReplayRing(ring_capacity(online.config), layout.width, device)
    make_sampler = partial(online_sampler, online.config, ring)
    average = collective.average if num_learners > 1 else None
    learner = Learner(plan, rows, rank, average, make_sampler=make_sampler)
    recorder = MonitorRecorder(settings["monitor"])
    saved = newest_for_all(plan.run_folder, recorder.warn)
    if saved is None:
        begin_from_source(learner, online)
    else:
        learner.restore(saved)
    num_rows = collective.from_first(_num_rows_to_keep(plan, online.config, saved) if rank == 0 else 0)
    share = restored_share(plan, ring, rank, num_learners, num_rows)
    if rank > 0:
        finetune(learner, share, None, recorder)
        return
    with listener_to(settings["monitor"]) as stop, collector_of(plan, online, saved, num_rows) as collector:
        director = Director(
            online.config,
            layout,
            plan.transforms,
            collector,
            ExperienceLog(plan.run_folder, num_rows),
            learner.policy,
            recorder,
            learner.agent.update_count,
            evaluated_update(saved),
            saved.online["totals"] if saved is not None else {},
        )
        finetune(learner, share, director, recorder, stop.is_set)


def evaluated_update(saved: checkpoint.Checkpoint | None) -> int | None:
    """Whether where the run stands is to be evaluated: its first policy always is."""
    if saved is None:
        return 0
    return saved.update_count if saved.is_to_be_evaluated else None


def ring_capacity(config: FinetuneConfig) -> int:
    """Rows that each learner keeps of what is collected."""
    largest_block = config.block_steps * config.num_environments
    capacity = config.replay_capacity or config.num_env_steps + 3 * largest_block
    return -(-capacity // config.num_learners)


def online_sampler(
    config: FinetuneConfig,
    ring: ReplayRing,
    rows: Tensor | StreamedRows,
    layout: RowLayout,
    batch_size: int,
    seeds: Sequence[int],
    rank: int,
) -> Sampler:
    """Minibatches of offline rows and the ring, as configured."""
    if config.online_fraction is None:
        assert isinstance(rows, Tensor), "a uniform draw is over rows that are held"
        return ReplaySampler(rows, ring, layout, batch_size, seeds, rank)
    num_online = online_share(batch_size, config.online_fraction)
    offline = sampler_of(rows, layout, batch_size - num_online, seeds, rank)
    return MixedSampler(offline, ring, layout, num_online, seeds, rank)


def begin_from_source(learner: Learner, online: OnlinePlan) -> None:
    """Take over networks, target and optimisers of the run that goes on; updates count from 0 again.

    Raises:
        ValueError: its checkpoint is gone, or of another architecture.
    """
    trained = load_trained(online.source, online.num_source_updates)
    agent, member = trained.agent, online.member
    alone = IQLAgent(agent.config, agent.spaces, population=_population_of(member), num_updates=agent.num_updates)
    alone.adopt(agent)
    learner.agent.load(alone.tensors(), learner.agent.random_states(), 0)


def _population_of(member: Member) -> Population:
    return Population(
        seeds=(member.seed,),
        expectiles=(member.expectile,),
        critics=(member.critic,),
        inverse_temperatures=(member.inverse_temperature,),
    )


def _num_rows_to_keep(plan: RunPlan, config: FinetuneConfig, saved: checkpoint.Checkpoint | None) -> int:
    """How many rows of the log the run goes on with: the checkpoint's, where the rest comes again; all otherwise."""
    if not config.is_exact:
        return rows_on_disk(plan.run_folder)
    num_rows = saved.online["num_rows"] if saved is not None else 0
    discard_from(plan.run_folder, num_rows)
    return num_rows


def restored_share(plan: RunPlan, ring: ReplayRing, rank: int, num_learners: int, num_rows: int) -> Share:
    """A learner's ring as it was after the first `num_rows` rows of the run."""
    first = max(0, num_rows - num_learners * len(ring.rows))
    ring.skip((first - rank + num_learners - 1) // num_learners)
    share = Share(rank, num_learners, ring, first)
    for experience in read_experience(plan.run_folder, first, num_rows):
        share.add(pack_columns(vars(experience), plan.transforms), experience.policy_versions)
    return share


def collector_of(
    plan: RunPlan, online: OnlinePlan, saved: checkpoint.Checkpoint | None, num_rows: int
) -> CollectingWorkers | LocalCollector:
    """The run's environments, where the first `num_rows` rows have left them."""
    config, stands = online.config, _stands(plan, saved, num_rows)
    make = maker_of(str(config.env), config.action_limits, is_checked=False)
    if config.num_rollout_workers == 0:
        return LocalCollector(config, make, stands)
    return CollectingWorkers(
        make,
        config.num_rollout_workers,
        config.envs_per_worker,
        name=str(config.env),
        seed=config.seed,
        temperature=config.temperature,
        epsilon=config.epsilon,
        step_timeout_seconds=config.step_timeout_seconds,
        max_env_failures=config.max_env_failures,
        is_replayed=config.replays_episodes,
        num_cpus_each=plan.num_cpus_per_worker,
        resources=parse_resources("rollout_resources", config.rollout_resources),
        stands=stands,
    )


def _stands(plan: RunPlan, saved: checkpoint.Checkpoint | None, num_rows: int) -> tuple[Stand, ...]:
    stands = tuple(Stand(**each) for each in saved.online["stands"]) if saved is not None else ()
    num_rows_of_stands = saved.online["num_rows"] if saved is not None else 0
    stands = newest_stands(plan.run_folder, stands, num_rows_of_stands)
    return with_actions(plan.run_folder, stands, num_rows)


def conclude(online: OnlinePlan, folder: Path) -> Conclusion:
    """What a run of fine-tuning comes to: its curve in numbers and as a picture."""
    curve = online_curve(list(run_folder.read_evaluations(folder).values()))
    newest = run_folder.checkpoint_updates(folder)[-1]
    state = checkpoint.read_state(run_folder.checkpoint_folder(folder, newest))
    floor = online.config.floor
    result = {
        "num_env_steps": state.step,
        "num_updates": state.update_count,
        "num_transitions": state.online["num_rows"],
        "source_run": str(online.source),
        "stopped_by": "floor" if floor is not None and curve.scores[-1] < floor else None,
        **asdict(summarize_online(curve)),
        **state.online["totals"],
        "experience": str(folder / EXPERIENCE_FOLDER),
    }
    (folder / SUMMARY_FILE).write_text(json.dumps(result, indent=2) + "\n")
    ends, returns = finished_episodes(folder)
    episodes = TrainingEpisodes(num_env_steps=ends, returns=returns)
    online_figure(folder / FIGURE_FILE, [curve], f"fine-tuning in {online.config.env}", training_episodes=episodes)
    tags = {"finetuned_from": str(online.source), "stopped_by": str(result["stopped_by"])}
    return Conclusion(artifacts=(folder / SUMMARY_FILE, folder / FIGURE_FILE), tags=tags, result=result)
