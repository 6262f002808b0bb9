"""One trial of a search: a population trained from wherever its folder says it stands, judged along its way.

    TRIAL/config.json        the training configuration of all its members
    TRIAL/critics/           phase one of --extract after: a folder of checkpoints like this one, without policies
    TRIAL/checkpoints/       as of any run; those before members left are kept
    TRIAL/history.jsonl      curves and evaluations, member by member

A trial is advanced from stop to stop, and can be killed anywhere: what was evaluated or decided is not done again, and
the rest goes on from the last checkpoint. It is plain Python, and knows neither Tune nor MLflow.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from iql_ray import checkpoint, run_folder
from iql_ray import config as config_io
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import Member
from iql_ray.algorithm.update_rule import Learns
from iql_ray.data.streaming import StreamedRows
from iql_ray.distributed.learner import (
    Lap,
    Learner,
    RunPlan,
    checkpoint_of,
    export_policy,
)
from iql_ray.distributed.members import load_agent
from iql_ray.distributed.search_generations import read_generation, settings_of, with_settings
from iql_ray.distributed.search_rungs import rung_file, who_goes_on
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.evaluation.schedules import Change
from iql_ray.policy import Policy

TRIALS_FOLDER = "trials"
HISTORY_FILE = "history.jsonl"
CRITICS_FOLDER = "critics"
NUM_CHECKPOINTS = 2
"""The last ones that are kept: should one be damaged, the one before it is there."""
NUM_GENERATIONS = 2
"""Whose checkpoints are kept: the one that others may still take over, and the one before."""

Judge = Callable[[Policy, bool], dict[str, Any]]
"""From a policy, and whether it is its last, to what `summarize` says of its episodes or `fqe_summary` of its value."""


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """What a trial is to do, beyond its configuration."""

    run: RunPlan
    """Its folder is the trial's; its configuration's `num_updates` is of the phase that learns policies."""
    search_folder: Path
    critic_updates: int | None = None
    """Of a phase of its own before the policies'; None: they are learned side by side."""
    critics_from: Path | None = None
    """The run whose critics policies are extracted from."""
    rungs: tuple[int, ...] = ()
    """Updates after which members may leave."""
    reduction_factor: int = 2
    generations: tuple[int, ...] = ()
    """Updates after which settings may change; the trial is then one configuration."""
    setting_names: tuple[str, ...] = ()
    """Of that configuration, where they may change."""
    is_judged_on_the_way: bool = True


class TrialRun:
    """A trial as it stands.

    Args:
        rows: what its learner learns from.
        judge: scores a policy.
        is_stop_ordered: once it says so, a phase saves where it stands and stops there.
    """

    def __init__(
        self,
        plan: TrialPlan,
        rows: Tensor | StreamedRows,
        judge: Judge,
        is_stop_ordered: Callable[[], bool] = lambda: False,
    ) -> None:
        self._plan, self._rows, self._judge, self._is_stop_ordered = plan, rows, judge, is_stop_ordered
        self.folder = plan.run.run_folder
        self.folder.mkdir(parents=True, exist_ok=True)
        config_io.save(plan.run.config, self.folder / run_folder.CONFIG_FILE)
        self.is_done = False
        self._score: float | None = None
        self._messages: list[str] = []
        lines = run_folder.read_lines(self.folder / HISTORY_FILE)
        self._evaluations = {line["num_updates"]: line for line in lines if line["kind"] == "evaluation"}
        self._phase = self._critics_phase() if self._needs_critics() else self._policies_phase()
        self._settle()

    def advance(self) -> dict[str, Any]:
        """Train to the next stop, and do what is due there.

        Returns:
            num_updates, phase, score (of its best configuration so far, None before any), num_members, messages
            (everything that it has had to say so far).
        """
        if not self.is_done and not self.is_waiting:
            if self._change() is not None:
                self._phase = self._policies_phase()
            self._phase.advance(self._is_stop_ordered)
            self._settle()
        return self.state()

    @property
    def is_waiting(self) -> bool:
        """Whether it is to be decided whether its settings change here."""
        count, plan = self._phase.agent.update_count, self._plan
        return count in plan.generations and read_generation(plan.search_folder, count) is None

    def state(self) -> dict[str, Any]:
        """As `advance` returns it."""
        return {
            "num_updates": self._phase.agent.update_count,
            "phase": "critics" if self._phase.learns == "critics" else "policies",
            "score": self._score,
            "num_members": self._phase.agent.population.num_policies,
            "messages": list(self._messages),
        }

    def _needs_critics(self) -> bool:
        """Whether phase one is there and not over."""
        plan = self._plan
        if plan.critic_updates is None:
            return False
        return plan.critic_updates not in run_folder.checkpoint_updates(self.folder / CRITICS_FOLDER)

    def _critics_phase(self) -> Phase:
        """Without policies to keep: one inverse temperature, which no critic depends on."""
        folder, run = self.folder / CRITICS_FOLDER, self._plan.run
        folder.mkdir(exist_ok=True)
        saved = checkpoint.load_newest(folder, self._messages.append)
        assert self._plan.critic_updates is not None
        temperatures = run.config.population.inverse_temperatures[:1]
        config = replace(run.config, num_updates=self._plan.critic_updates, inverse_temperatures=temperatures)
        config_io.save(config, folder / run_folder.CONFIG_FILE)
        plan = replace(run, config=config, run_folder=folder)
        members = run.config.population.members()
        return Phase(plan, self._rows, "critics", self.folder, saved, members=members)

    def _policies_phase(self) -> Phase:
        plan = self._plan
        is_extracted = plan.critic_updates is not None or plan.critics_from is not None
        learns: Learns = "policies" if is_extracted else "everything"
        stops = set(plan.rungs)
        if plan.generations:
            stops |= set(plan.generations)
        elif plan.is_judged_on_the_way:
            interval = plan.run.config.eval_interval_updates
            stops |= set(range(interval, plan.run.config.num_updates, interval))
        run, saved = self._where_it_stands()
        kept = (*plan.rungs, *plan.generations)
        members, num_kept = (), None
        if plan.generations:  # others may take this one over as it was, until all are at the next generation
            members, num_kept = plan.run.config.population.members(), NUM_GENERATIONS
        phase = Phase(run, self._rows, learns, self.folder, saved, tuple(stops), kept, members, num_kept)
        if is_extracted and phase.agent.update_count == 0:
            critics, _ = load_agent(plan.critics_from or self.folder / CRITICS_FOLDER)
            phase.agent.adopt(critics, critics_alone=True)
        return phase

    def _where_it_stands(self) -> tuple[RunPlan, checkpoint.Checkpoint | None]:
        """The newest checkpoint, and the plan as it is there: members may have left, or settings have changed.

        Where it is to take another trial over: that one's checkpoint, and the settings to go on with.
        """
        plan, run = self._plan, self._plan.run
        saved = checkpoint.load_newest(self.folder, self._messages.append)
        if saved is None:
            return run, None
        change = self._change(saved.update_count)
        if change is not None:
            config = with_settings(run.config, change.settings)
            saved = checkpoint.load(self.folder.with_name(change.source), saved.update_count)
            saved = replace(saved, configuration=config_io.to_dict(config))
        elif plan.generations:
            before = config_io.from_dict(TrainConfig, saved.configuration)
            config = with_settings(run.config, settings_of(before, plan.setting_names))
        else:
            config = replace(run.config, inverse_temperatures=tuple(saved.configuration["inverse_temperatures"]))
        return replace(run, config=config), saved

    def _change(self, num_updates: int | None = None) -> Change | None:
        """Of its settings after so many updates, or where it stands."""
        count = self._phase.agent.update_count if num_updates is None else num_updates
        if count not in self._plan.generations:
            return None
        return (read_generation(self._plan.search_folder, count) or {}).get(self.folder.name)

    def _settle(self) -> None:
        """Do what is due where the trial stands: judge its members, let some leave, go on to the next phase."""
        phase, plan = self._phase, self._plan
        if phase.learns == "critics":
            if phase.is_over:
                self._phase = self._policies_phase()
            return
        count = phase.agent.update_count
        if count == 0 or count not in phase.stops:
            return
        scores = self._scores(phase.is_over)
        self._score, self.is_done = max(scores.values()), phase.is_over
        if count in plan.rungs:
            file = rung_file(plan.search_folder, count, self.folder.name)
            go_on = who_goes_on(file, list(scores.values()), plan.reduction_factor)
            self.is_done = not go_on
            if go_on:
                phase.keep([list(scores)[index][1] for index in go_on])

    def _scores(self, is_final: bool) -> dict[tuple[float, float], float]:
        """By expectile and inverse temperature, the mean over seeds."""
        by_configuration: dict[tuple[float, float], list[float]] = {}
        for evaluated in self._evaluated(is_final)["members"]:
            key = evaluated["expectile"], evaluated["inverse_temperature"]
            by_configuration.setdefault(key, []).append(evaluated["result"]["return_mean"])
        return {key: statistics.fmean(values) for key, values in by_configuration.items()}

    def _evaluated(self, is_final: bool) -> dict[str, Any]:
        """The evaluation of all members where the trial stands; read back where it is done already."""
        agent = self._phase.agent
        if agent.update_count in self._evaluations:
            return self._evaluations[agent.update_count]
        members, plan = [], self._plan
        named = plan.run.config.population if plan.generations else agent.population  # by what they began with
        for index, member in enumerate(named.members()):
            policy = export_policy(agent.policy_weights(index), agent.spaces, plan.run.transforms)
            members.append({**_named(member), "result": self._judge(policy, is_final)})
        line = {"kind": "evaluation", "num_updates": agent.update_count, "is_final": is_final, "members": members}
        if plan.generations:
            line["settings"] = settings_of(self._phase.config, plan.setting_names)
        run_folder.append_line(self.folder / HISTORY_FILE, line)
        self._evaluations[agent.update_count] = line
        return line


class Phase:
    """A population, what of it is learned, and the updates where it stops: at `stops`, at checkpoints and at the end.

    Args:
        plan: whose folder holds the phase's checkpoints.
        history: the folder whose history gets its curves.
        saved: the checkpoint that it goes on from.
        kept: updates whose checkpoints stay, all of them or the last `num_kept`; of others the last few do.
        members: whose curves are kept, where the phase has not all of their policies; the population's otherwise.
    """

    def __init__(
        self,
        plan: RunPlan,
        rows: Tensor | StreamedRows,
        learns: Learns,
        history: Path,
        saved: checkpoint.Checkpoint | None,
        stops: Sequence[int] = (),
        kept: Sequence[int] = (),
        members: Sequence[Member] = (),
        num_kept: int | None = None,
    ) -> None:
        self._members = members
        self._plan, self._rows, self._history = plan, rows, history
        self.learns: Learns = learns
        self._kept, self._num_kept = sorted(kept), num_kept or len(kept)
        self._learner = Learner(self._plan, rows, 0, None, learns)
        if saved is not None:
            self._learner.restore(saved)
        config = plan.config
        self.stops = {*stops, config.num_updates}
        interval = config.checkpoint_interval_updates
        self._due = self.stops | set(range(interval, config.num_updates, interval))
        self._updates, self._lap = self._learner.updates(self._learner.sampler), Lap(self.agent.update_count)

    @property
    def agent(self) -> IQLAgent:
        return self._learner.agent

    @property
    def config(self) -> TrainConfig:
        """As it is now."""
        return self._plan.config

    @property
    def is_over(self) -> bool:
        return self.agent.update_count >= self._plan.config.num_updates

    def advance(self, is_stop_ordered: Callable[[], bool]) -> None:
        """Update until a stop or a checkpoint is due, or a stop is ordered, and save there."""
        learner, agent, log_interval = self._learner, self.agent, self._plan.config.log_interval_updates
        while not self.is_over:
            due = min(each for each in self._due if each > agent.update_count)
            until_log = log_interval - agent.update_count % log_interval
            self._updates.run(min(due - agent.update_count, until_log))
            is_due = agent.update_count in self._due or is_stop_ordered()
            if is_due or agent.update_count % log_interval == 0:
                self._record()
            if is_due:
                break
        folder = self._plan.run_folder
        checkpoint.save(folder, checkpoint_of(learner), learner.policy())
        kept = [each for each in self._kept if each <= agent.update_count][-self._num_kept :]
        checkpoint.keep_only(folder, {*kept, *run_folder.checkpoint_updates(folder)[-NUM_CHECKPOINTS:]})

    def keep(self, inverse_temperatures: Sequence[float]) -> None:
        """Go on with the members of these inverse temperatures alone."""
        config = self._plan.config
        if tuple(inverse_temperatures) == config.population.inverse_temperatures:
            return
        whole = self._learner
        self._plan = replace(self._plan, config=replace(config, inverse_temperatures=tuple(inverse_temperatures)))
        self._learner = Learner(self._plan, self._rows, 0, None, self.learns)
        self._learner.agent.adopt(whole.agent)
        self._learner.sampler.load(whole.sampler.random_states())
        self._updates = self._learner.updates(self._learner.sampler)

    def _record(self) -> None:
        """A point of every member's curves; critics' numbers are those of the critic that it hangs on."""
        of_members = self._members or self.agent.population.members()
        means = self._updates.means.take_by_member()
        rate = self._lap.take(self.agent.update_count)
        members = []
        for index, member in enumerate(of_members):
            own = {name: values[index * len(values) // len(of_members)] for name, values in means.items()}
            members.append({**_named(member), "values": {**own, **rate}})
        line = {"kind": "curve", "phase": self.learns, "num_updates": self.agent.update_count, "members": members}
        run_folder.append_line(self._history / HISTORY_FILE, {"time": int(time.time() * 1000), **line})


def _named(member: Member) -> dict[str, Any]:
    return {
        "seed": member.seed,
        "expectile": member.expectile,
        "inverse_temperature": member.inverse_temperature,
    }
