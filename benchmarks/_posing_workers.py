"""A thousand collecting workers on a machine that has room for a few: handles that share two processes.

What the learner's process does for each worker is all real: a handle, calls under way, an answer of the full size to
receive, keep and pack. The processes behind answer at once, with experience made beforehand; no environment is stepped
and no policy acts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import ray

from iql_ray.data.experience_log import ExperienceLog
from iql_ray.data.packed import RowLayout
from iql_ray.data.replay import ReplayRing
from iql_ray.data.transforms import Transforms
from iql_ray.distributed import collecting
from iql_ray.distributed.actor_pool import ActorPool, PooledActor
from iql_ray.distributed.background_writer import BackgroundWriter
from iql_ray.distributed.collecting import CollectingWorkers
from iql_ray.distributed.director import Director
from iql_ray.distributed.finetune import Share
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.experience import Collected, Experience, Spaces, Stand

SPACES = Spaces(observation_dim=17, action_dim=6, action_low=(-1.0,) * 6, action_high=(1.0,) * 6)
"""HalfCheetah's."""
NUM_PROCESSES = 2
ENVS_PER_WORKER = 8
RING_ROWS = 1_000_000
POLICY_BYTES = 300_000
"""The paper's policy in float32."""


class PosingWorkers:
    """The process behind many workers."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, int], Collected] = {}

    def apply(self, environments: Sequence[int], func: Any, **arguments: Any) -> Any:
        """What a worker with these environments would answer."""
        if func.__name__ == "ping":
            return "pong"
        if func.__name__ != "collect":
            return None
        key = environments[0], arguments["num_steps"]
        if key not in self._blocks:
            self._blocks[key] = block_of_zeros(environments, arguments["num_steps"])
        block = self._blocks[key]
        versions = np.full(len(block.experience), arguments["policy_version"])
        return replace(block, experience=replace(block.experience, policy_versions=versions))


def block_of_zeros(environments: Sequence[int], num_steps: int) -> Collected:
    """What HalfCheetah would fill, by its size."""
    num_rows = len(environments) * num_steps
    counts = np.zeros(num_rows, np.int32)
    noise_state = dict(np.random.default_rng(0).bit_generator.state)
    return Collected(
        experience=Experience(
            observations=np.zeros((num_rows, SPACES.observation_dim), np.float32),
            actions=np.zeros((num_rows, SPACES.action_dim), np.float32),
            rewards=np.zeros(num_rows, np.float32),
            next_observations=np.zeros((num_rows, SPACES.observation_dim), np.float32),
            terminations=np.zeros(num_rows, bool),
            truncations=np.zeros(num_rows, bool),
            environments=np.tile(np.asarray(environments, np.int32), num_steps),
            episodes=counts,
            steps=counts,
            policy_versions=counts.astype(np.int64),
        ),
        # Another episode every time, so that the driver does not keep the actions of an endless one.
        stands=tuple(Stand(environment=each, episode=1, noise_state=noise_state) for each in environments),
    )


@dataclass(frozen=True)
class _Apply:
    process: Any
    environments: Sequence[int]

    def remote(self, func: Any, **arguments: Any) -> Any:
        return self.process.apply.remote(self.environments, func, **arguments)


@dataclass(frozen=True)
class _Handle:
    apply: _Apply


class PosingPool(ActorPool):
    """In place of `ActorPool` of `CollectingWorkers`."""

    def _start(self, actor_class: type[PooledActor], arguments: Sequence[tuple[Any, ...]], **options: Any) -> list[Any]:
        self._processes: list[Any] = [ray.remote(num_cpus=0)(PosingWorkers).remote() for _ in range(NUM_PROCESSES)]
        return [
            _Handle(_Apply(self._processes[number % NUM_PROCESSES], environments))
            for number, (_, environments, _) in enumerate(arguments)
        ]

    def close(self) -> None:
        for process in self._processes:
            ray.kill(process)


class NoRecorder:
    """Neither keeps nor evaluates anything."""

    def record(self, step: int, metrics: dict[str, float]) -> None: ...

    def checkpoint_saved(self, update_count: int, step: int) -> None: ...

    def evaluation(self, update_count: int) -> dict[str, Any]:
        raise AssertionError("there is no floor")

    def warn(self, message: str) -> None:
        raise RuntimeError(message)


def collecting_of(num_workers: int, steps_per_block: int, seconds: float) -> dict[str, float]:
    """What the learner's process takes in from so many workers, once all are there."""
    policy: Any = np.zeros(POLICY_BYTES // 4, np.float32)
    ring = ReplayRing(RING_ROWS, RowLayout.of(SPACES).width)
    share = Share(0, 1, ring)
    config = FinetuneConfig(
        run="none",
        env="none",
        mode="asynchronous",
        num_env_steps=10**9,
        updates_per_env_step=0.01,
        num_rollout_workers=num_workers,
        envs_per_worker=ENVS_PER_WORKER,
        steps_per_block=steps_per_block,
        without_offline_data=True,
        num_initial_env_steps=0,
        log_interval_env_steps=10**6,
        eval_interval_env_steps=10**9,
        checkpoint_interval_env_steps=10**9,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(collecting, "ActorPool", PosingPool),
        CollectingWorkers("none", num_workers, ENVS_PER_WORKER, seed=0) as workers,
        BackgroundWriter() as writer,
    ):
        log = ExperienceLog(Path(folder))
        transforms = Transforms(action_low=SPACES.action_low, action_high=SPACES.action_high)
        layout = RowLayout.of(SPACES)
        director = Director(config, layout, transforms, workers, log, lambda: policy, NoRecorder(), 0, None, {})
        loop = Loop(director, share, writer)
        loop.run_until(lambda: share.num_seen >= 4 * num_workers * ENVS_PER_WORKER * steps_per_block)
        started, before, cpu_before = time.perf_counter(), share.num_seen, time.process_time()
        loop.run_until(lambda: time.perf_counter() - started >= seconds)
        num_rows, taken = share.num_seen - before, time.perf_counter() - started
        cpu_seconds = time.process_time() - cpu_before
    num_blocks = num_rows / (steps_per_block * ENVS_PER_WORKER)
    return {
        "steps_per_second": num_rows / taken,
        "blocks_per_second": num_blocks / taken,
        "cpu_seconds_per_block": cpu_seconds / num_blocks,
    }


class Loop:
    """That of fine-tuning (`finetune`), but no update is made."""

    def __init__(self, director: Director, share: Share, writer: BackgroundWriter) -> None:
        self._director, self._share, self._writer = director, share, writer
        self._num_updates = 0

    def run_until(self, is_enough: Callable[[], bool]) -> None:
        while not is_enough():
            turn = self._director.next_turn(self._num_updates)
            self._share.add(turn.rows, turn.policy_versions)
            self._num_updates += turn.num_updates
            if self._director.is_spill_due():
                self._writer.wait()
                self._writer.submit(self._director.write_experience())
