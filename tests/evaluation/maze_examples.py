"""What perfect learning would say of the maze, as if it had been read from a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iql_ray.algorithm.iql_config import Member
from iql_ray.envs.tabular import action_values, advantage_weighted_policy, single_q_values
from iql_ray.evaluation.maze_study import Learned, MazeStudy


def grid(
    critics: Sequence[tuple[str, float]], inverse_temperatures: Sequence[float] = (0.0, 10.0), num_seeds: int = 2
) -> list[Member]:
    """Members in the order of `Population.members()`."""
    return [
        Member(seed, expectile, inverse_temperature, critic)  # pyright: ignore[reportArgumentType]
        for seed in range(num_seeds)
        for critic, expectile in critics
        for inverse_temperature in inverse_temperatures
    ]


def learned_exactly(study: MazeStudy, members: Sequence[Member]) -> Learned:
    """Every critic and policy solved on the data's own frequencies; all seeds alike."""
    solved = {member[1:]: _solved(study, member) for member in members if member.seed == members[0].seed}
    num_temperatures = len({member.inverse_temperature for member in members})
    values, quality, probabilities = (
        np.stack(each) for each in zip(*(solved[member[1:]] for member in members), strict=True)
    )
    return Learned(
        members=members,
        values=values[::num_temperatures],
        action_values=quality[::num_temperatures],
        probabilities=probabilities,
    )


def _solved(study: MazeStudy, member: Member) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """V, Q and policy of one member; its seed plays no part."""
    quality = _action_values(study, member)
    values = (study.behaviour * quality).sum(axis=1)
    if member.critic == "implicit":
        values = study.exact_values(member.expectile)
    policy = advantage_weighted_policy(values, quality, study.behaviour, member.inverse_temperature)
    return values, quality, policy


def _action_values(study: MazeStudy, member: Member) -> np.ndarray:
    if member.critic == "single-q":
        return single_q_values(study.empirical_model, study.behaviour, member.expectile)
    if member.critic == "td":
        return action_values(study.model, study.optimal_values)
    expectile = 0.5 if member.critic == "sarsa" else member.expectile
    return action_values(study.empirical_model, study.exact_values(expectile))
