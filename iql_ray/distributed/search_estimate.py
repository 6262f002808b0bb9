"""What a search would amount to: its trials, memory and time, before any of it starts. Imports no Ray.

Time is measured, not guessed: some updates of the largest trial, on noise, in this process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from iql_ray.algorithm.agent import IQLAgent
from iql_ray.data.memory import GIB
from iql_ray.data.packed import RowLayout, UniformSampler
from iql_ray.distributed.compiling import resolved_compile
from iql_ray.distributed.data_memory import learner_data
from iql_ray.distributed.roles import Node, placed, room
from iql_ray.distributed.roles import in_words as placement_in_words
from iql_ray.distributed.run_roles import trial_role
from iql_ray.distributed.search_checking import CheckedSearch
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.search_plan import TrialSpec, members_per_trial, planned_trials, train_config, trial_config
from iql_ray.distributed.train_config import Compile
from iql_ray.distributed.trial_memory import trial_bytes

NUM_WARM_UP, NUM_MEASURED = 5, 30
NUM_NOISE_ROWS = 4096
MOST_TRIALS = 2**31
"""At a time, in any cluster."""


def estimate(checked: CheckedSearch, nodes: Sequence[Node]) -> dict[str, Any]:
    """What `--dry-run` says.

    Returns:
        num_trials, num_members, members_per_trial, num_concurrent_trials, updates_per_trial, data_gigabytes (once a
        node), trial_gigabytes (of the largest trial, beside the data), updates_per_second (of it here, plain, on one
        thread), hours, trials (their members). Time leaves out evaluation, and what asha saves.
    """
    config = checked.config
    has_gpu = any(node.total.get("GPU") for node in nodes) and torch.cuda.is_available()
    device = "cuda" if config.device != "cpu" and has_gpu else "cpu"
    slots = num_slots(config, device, nodes)
    config = replace(config, members_per_trial=members_per_trial(config, device, slots))
    assert config.members_per_trial is not None
    specs = planned_trials(config, config.members_per_trial) if config.search != "optuna" else _samples(config)
    largest = max(specs, key=lambda spec: spec.num_members)
    rate = measured_rate(checked, largest, device)
    num_updates = config.policy_updates
    if config.extract == "after" and config.critics_from is None:
        num_updates += config.num_updates
    rounds = math.ceil(len(specs) / slots)
    train, manifest = trial_config(config, largest), checked.run.manifest
    data = learner_data(train, manifest, checked.run.num_rows)
    train = replace(train, compile=resolved_search_compile(config, device))
    return {
        "num_trials": len(specs),
        "num_members": sum(spec.num_members for spec in specs),
        "members_per_trial": largest.num_members,
        "num_concurrent_trials": min(slots, len(specs)),
        "updates_per_trial": num_updates,
        "data_gigabytes": data.num_rows * data.row_width * 4 / GIB,
        "trial_gigabytes": trial_bytes(train, manifest.spaces) / GIB,
        "updates_per_second": rate,
        "hours": rounds * num_updates / rate / 3600,
        "trials": [described(spec) for spec in specs],
        "placement": placed([trial_role(config, device, min(slots, len(specs)))], nodes),
    }


def resolved_search_compile(config: SearchConfig, device: str) -> Compile:
    """What auto comes to: with pbt, every change of settings would compile anew."""
    if config.scheduler == "pbt" and config.compile == "auto" and config.precision == "float32":
        return "off"
    return resolved_compile(train_config(config), device)


def num_slots(config: SearchConfig, device: str, nodes: Sequence[Node]) -> int:
    """Trials that there is room for at a time."""
    slots = room(trial_role(config, device, MOST_TRIALS), nodes)
    return max(1, min(slots, config.max_concurrent_trials or slots))


def measured_rate(checked: CheckedSearch, spec: TrialSpec, device: str) -> float:
    """Updates a second of a trial's population on rows of noise."""
    config, spaces = trial_config(checked.config, spec), checked.run.manifest.spaces
    agent = IQLAgent(config.agent, spaces, population=config.population, device=device)
    layout = RowLayout.of(spaces, config.selection.with_next_actions)
    rows = torch.randn(NUM_NOISE_ROWS, layout.width, device=device)
    if spaces.is_discrete:
        rows = torch.zeros_like(rows)  # an action that there is
    batches = UniformSampler(rows, layout, config.batch_size, spec.seeds, 0)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(config.cpus_per_learner)
    try:
        for index in range(NUM_WARM_UP + NUM_MEASURED):
            if index == NUM_WARM_UP:
                _wait_for(device)
                started = time.perf_counter()
            agent.update(next(batches))
        _wait_for(device)
        return NUM_MEASURED / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(num_threads)


def described(spec: TrialSpec) -> dict[str, Any]:
    """A trial's members, as plain JSON types."""
    return {
        "trial": spec.name,
        "seeds": list(spec.seeds),
        "expectiles": list(spec.expectiles),
        "inverse_temperatures": list(spec.inverse_temperatures),
        **dict(spec.varied),
    }


def in_words(found: Mapping[str, Any]) -> str:
    """An estimate for people."""
    hours = found["hours"]
    duration = f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"
    lines = [
        f"{found['num_trials']} trials of up to {found['members_per_trial']} members, {found['num_members']} in all; "
        f"{found['num_concurrent_trials']} trials at a time",
        f"memory: about {found['trial_gigabytes']:.2g} GB a trial; data: {found['data_gigabytes']:.2g} GB, once a node",
        f"time: about {duration}, evaluation left out: {found['updates_per_trial']:,} updates a trial at "
        f"{found['updates_per_second']:.0f} a second, measured here",
        *(f"  {_line(trial)}" for trial in found["trials"]),
        placement_in_words(found["placement"]),
    ]
    return "\n".join(lines)


def _line(trial: Mapping[str, Any]) -> str:
    values = ((name, value) for name, value in trial.items() if name != "trial")
    words = (f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in values)
    return f"{trial['trial']}  {'  '.join(words)}"


def _samples(config: SearchConfig) -> list[TrialSpec]:
    """As many as Optuna will choose, such as chance would choose them."""
    return list(planned_trials(replace(config, search="random"), 1))


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
