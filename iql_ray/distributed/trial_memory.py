"""How much memory a trial takes beside its data: its process, its agents, and what an update works in.

Arithmetic that was fitted to measurements on a CPU (docs/search.md has both); starts nothing, imports no Ray.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from iql_ray.algorithm.action_kinds import action_kind
from iql_ray.algorithm.update_rule import NUM_CRITICS
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.experience import Spaces

PROCESS_BYTES = 530e6
"""Python, torch, Ray and the first update of anything; environments that are evaluated in come on top."""
COMPILED_BYTES = 100e6
"""More where the update is compiled."""
FLOAT_BYTES = 4
COPIES_TRAINED = 4
"""Of each trained parameter: itself, its gradient, Adam's two moments."""
COPIES_TARGET = 1
ROWS_OF_CRITICS = 2 + 2 * NUM_CRITICS
"""Batches that a critic's networks hold in an update: V of both ends of a transition, the twins and their targets."""


def trial_bytes(config: TrainConfig, spaces: Spaces) -> float:
    """Of one trial's process.

    Args:
        config: of all its members.
    """
    kind, agent, population = action_kind(spaces), config.agent, config.population
    value = num_parameters((spaces.observation_dim, *agent.hidden_sizes, 1))
    twin = num_parameters((kind.critic_inputs, *agent.hidden_sizes, kind.critic_outputs))
    policy = num_parameters((spaces.observation_dim, *agent.hidden_sizes, kind.policy_outputs))
    of_critic = COPIES_TRAINED * value + NUM_CRITICS * (COPIES_TRAINED + COPIES_TARGET) * twin
    networks = population.num_critics * of_critic + population.num_policies * COPIES_TRAINED * policy
    batches = ROWS_OF_CRITICS * population.num_critics + population.num_policies
    work = batches * config.batch_size * sum(agent.hidden_sizes)
    process = PROCESS_BYTES + (COMPILED_BYTES if config.is_compiled else 0)
    return process + FLOAT_BYTES * (networks + work)


def num_parameters(sizes: Sequence[int]) -> int:
    """Weights and biases of fully connected layers."""
    return sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(sizes))
