"""Whole episodes under a policy, in one process, so that a policy and a seed give the same returns to the last bit.

The policy always acts on a full batch of GROUP_WIDTH rows (`envs/acting.py` says why), and a group of that many
episodes is the unit of work, whoever runs it. Between machines whose processors differ, the last bits may still
differ. Knows no Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import gymnasium
import numpy as np

from iql_ray.envs.acting import GROUP_WIDTH, RowNoise, success_after
from iql_ray.envs.catalog import check_spaces, environment_spaces, name_of
from iql_ray.experience import EpisodeResult, Spaces
from iql_ray.policy import Policy
from iql_ray.seeding import child_seed, child_seed_32

MAX_EPISODE_STEPS = 200_000
"""An episode longer than this is taken for one without an end."""


class EpisodeError(RuntimeError):
    """An environment failed in an episode; names the environment, the episode's seed and the step."""


def split_into_groups(num_episodes: int, seed: int) -> list[tuple[int, ...]]:
    """The seeds of all episodes, in episode order, in groups of GROUP_WIDTH; the last group may be smaller.

    An episode's seed depends on `seed` and its index alone: the first 10 of 100 episodes are the 10 of 10.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes is {num_episodes}, expected at least 1")
    seeds = [child_seed_32(seed, "episode", index) for index in range(num_episodes)]
    return [tuple(seeds[start : start + GROUP_WIDTH]) for start in range(0, num_episodes, GROUP_WIDTH)]


def run_group(
    policy: Policy,
    environments: Sequence[gymnasium.Env],
    seeds: Sequence[int],
    temperature: float = 0.0,
    discount: float = 1.0,
) -> list[EpisodeResult]:
    """One episode per seed, stepped side by side; results in the order of the seeds.

        row       0    1    2   ...  7
        step 1    o    o    o   ...  0     fewer seeds than rows: the rest stays zero
        step 2    o    x    o   ...  0     x: over; its last observation stays, its environment rests
        step 3    o    x    o   ...  0     until all are over

    Args:
        policy: acts on raw observations, (GROUP_WIDTH, observation_dim).
        environments: at least as many as seeds; each is reset with its episode's seed, so they can be used again.
        seeds: at most GROUP_WIDTH.
        temperature: of `Policy.act`; 0 acts without noise. Above, every episode draws from a generator of its own.
        discount: of the returns, in (0, 1].

    Raises:
        EpisodeError: an environment raised, gave a value that is not finite, or did not end.
    """
    if not 0 < len(seeds) <= min(GROUP_WIDTH, len(environments)):
        raise ValueError(f"a group has 1 to {GROUP_WIDTH} seeds and an environment each, got {len(seeds)} seeds")
    episodes = [_Episode(environment, seed, discount) for environment, seed in zip(environments, seeds, strict=False)]
    observations = np.zeros((GROUP_WIDTH, policy.description.observation_dim), np.float32)
    for row, episode in enumerate(episodes):
        observations[row] = episode.reset()
    generators = [np.random.default_rng(child_seed(seed, "action noise")) for seed in seeds]
    noise = cast(np.random.Generator, RowNoise(dict(enumerate(generators))))
    while running := [row for row, episode in enumerate(episodes) if not episode.is_over]:
        actions = policy.act(observations, temperature=temperature, generator=noise)
        for row in running:
            observations[row] = episodes[row].step(actions[row])
    return [episode.result() for episode in episodes]


def policy_spaces(policy: Policy) -> Spaces:
    """The spaces that the policy was trained in."""
    description = policy.description
    return Spaces(
        observation_dim=description.observation_dim,
        action_dim=1 if description.kind == "categorical" else len(description.action_low),
        action_low=description.action_low,
        action_high=description.action_high,
        num_actions=description.num_actions,
    )


def check_policy(policy: Policy, environment_id: str) -> None:
    """Refuse, before any worker starts, an environment that the policy cannot act in.

    Raises:
        ValueError: the environment cannot be made, or its spaces differ from the policy's.
    """
    check_spaces(environment_id, environment_spaces(environment_id), policy_spaces(policy), "the policy")


class _Episode:
    """One episode on its way through an environment."""

    def __init__(self, environment: gymnasium.Env, seed: int, discount: float) -> None:
        self.is_over = False
        self._discount = discount
        self._environment = environment
        self._seed = seed
        self._return = 0.0
        self._length = 0
        self._is_success: bool | None = None

    def reset(self) -> Any:
        try:
            observation, _ = self._environment.reset(seed=self._seed)
        except Exception as error:
            raise self._failure(f"reset raised {type(error).__name__}: {error}") from error
        return self._finite(observation, "observation")

    def step(self, action: Any) -> Any:
        self._length += 1
        try:
            observation, reward, is_terminated, is_truncated, info = self._environment.step(action)
        except Exception as error:
            raise self._failure(f"step raised {type(error).__name__}: {error}") from error
        self._return += self._discount ** (self._length - 1) * float(self._finite(reward, "reward"))
        self._is_success = success_after(self._is_success, info)
        self.is_over = bool(is_terminated or is_truncated)
        if not self.is_over and self._length >= MAX_EPISODE_STEPS:
            raise self._failure("the episode does not end; limit it with gymnasium.wrappers.TimeLimit")
        return self._finite(observation, "observation")

    def result(self) -> EpisodeResult:
        return EpisodeResult(
            seed=self._seed, episode_return=self._return, length=self._length, is_success=self._is_success
        )

    def _finite(self, value: Any, what: str) -> Any:
        if not np.isfinite(value).all():
            raise self._failure(f"the {what} is not finite: {value}")
        return value

    def _failure(self, cause: str) -> EpisodeError:
        return EpisodeError(
            f"environment '{name_of(self._environment)}', episode with seed {self._seed}, step {self._length}: {cause}"
        )
