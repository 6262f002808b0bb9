"""Policies of known value on datasets to judge them by: what `fqe.py` measures its estimates against.

A value is the mean discounted return of rollouts so long that what follows weighs nothing, or exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
import pyarrow as pa
import torch

from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import IQLConfig, Population
from iql_ray.data.actions import resolve_actions
from iql_ray.data.demo import DEMO_ACTION_BOUNDS, DEMO_ENVIRONMENT, demo_dataset_path
from iql_ray.data.packed import RowLayout, UniformSampler
from iql_ray.data.packing import pack
from iql_ray.data.prepared import read_manifest, shard_paths
from iql_ray.data.sources import Source, open_source
from iql_ray.data.sources.recorded_episodes import from_columns
from iql_ray.data.sources.source import Recorded
from iql_ray.data.transforms import TransformConfig, Transforms
from iql_ray.data.writing import WritingPlan, write_dataset
from iql_ray.distributed.learner import export_policy
from iql_ray.envs.catalog import environment_spaces
from iql_ray.envs.maze_map import tabular_model
from iql_ray.envs.tabular import (
    TabularModel,
    action_values,
    advantage_weighted_policy,
    behaviour_values,
    expectile_values,
    greedy_policy,
    optimal_values,
    policy_values,
)
from iql_ray.envs.umaze import ENVIRONMENT_IDS
from iql_ray.envs.umaze_data import maze_data
from iql_ray.policy import Policy, PolicyDescription

TAIL_WEIGHT = 1e-3
"""Rollouts go on until the discount has shrunk a reward's weight to this."""
SNAPSHOTS = (300, 1000, 10_000)
"""Updates after which a policy in training is kept."""
RANDOM_SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
SMALLEST_PROBABILITY = 1e-30
WEIGHT_NOISES = (0.1, 0.3)
"""Standard deviations of noise on a trained policy's weights, over the weights' own."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One dataset, and policies with what they are really worth at its first observations."""

    name: str
    dataset: Path
    discount: float
    policies: dict[str, Policy]
    values: dict[str, float]
    temperature: float = 0.0
    """At which the policies act."""
    behaviour_value: float | None = None
    """What made the data is worth, where that is known."""


def pendulum_case(folder: Path, num_episodes: int) -> Case:
    """The replay that comes along."""
    source = f"npz:{demo_dataset_path()}"
    return rollout_case("pendulum", source, DEMO_ENVIRONMENT, DEMO_ACTION_BOUNDS, folder, num_episodes)


def rollout_case(
    name: str, spec: str, environment_id: str, bounds: tuple[float, float], folder: Path, num_episodes: int
) -> Case:
    """Policies trained on a file's data for a while, disturbed and random ones; values by rollouts."""
    source = open_source(spec)
    dataset = prepared(source, folder / name, environment_id, bounds)
    policies = trained_policies(dataset)
    policies |= random_policies(policies["iql 10000"])
    discount = 0.99
    values = {
        label: rollout_value(policy, environment_id, discount, num_episodes) for label, policy in policies.items()
    }
    return Case(name=name, dataset=dataset, discount=discount, policies=policies, values=values)


def maze_case(folder: Path, map_name: str = "paper") -> Case:
    """One-hot states, four moves; the best policy with ever more random moves, policies that follow from the data, and
    exact values of the start."""
    data = maze_data(map_name)
    environment_id = ENVIRONMENT_IDS[map_name, "one-hot"]  # pyright: ignore[reportArgumentType]
    recorded = Recorded(spaces=environment_spaces(environment_id), environment_id=environment_id)
    dataset = prepared(from_columns(f"umaze:{map_name}", data.columns(), recorded), folder / "maze")
    model = tabular_model(data.maze)
    best = action_values(model, optimal_values(model))
    mixtures = {f"best, {share:.0%} at random": _mixed(greedy_policy(best), share) for share in RANDOM_SHARES}
    mixtures |= {
        f"expectile {expectile:g}": _advised(data.empirical_model, data.behaviour, expectile)
        for expectile in (0.5, 0.7, 0.9)
    }
    policies = {label: _tabular_policy(probabilities) for label, probabilities in mixtures.items()}
    start = data.maze.start_state
    values = {label: float(policy_values(model, each)[start]) for label, each in mixtures.items()}
    behaviour = float(behaviour_values(model, data.behaviour)[data.maze.start_state])
    return Case(
        name="maze",
        dataset=dataset,
        discount=model.discount,
        policies=policies,
        values=values,
        temperature=1.0,
        behaviour_value=behaviour,
    )


def _mixed(policy: np.ndarray, share: float) -> np.ndarray:
    """The policy, and that share of uniformly random moves."""
    return (1 - share) * policy + share / policy.shape[1]


def _advised(model: TabularModel, behaviour: np.ndarray, expectile: float) -> np.ndarray:
    """What IQL's fixed point on this model makes of the data, softened: inverse temperature 10."""
    values = expectile_values(model, behaviour, expectile)
    return advantage_weighted_policy(values, action_values(model, values), behaviour, 10.0)


def _tabular_policy(probabilities: np.ndarray) -> Policy:
    """Takes each state's actions with these probabilities, (states, actions), at temperature 1."""
    num_states, num_actions = probabilities.shape
    description = PolicyDescription(
        kind="categorical", observation_dim=num_states, num_hidden_layers=0, num_actions=num_actions
    )
    logits = np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)).astype(np.float32)
    return Policy({"logits.weight": logits, "logits.bias": np.zeros(num_actions, np.float32)}, description)


def prepared(
    source: Source, out: Path, environment_id: str | None = None, bounds: tuple[float, float] | None = None
) -> Path:
    """The source as a prepared dataset, read in this process."""
    environment = environment_spaces(environment_id) if environment_id else None
    actions = resolve_actions(source.layout, source.recorded.spaces, environment, bounds)
    plan = WritingPlan(source=source, actions=actions, destination=out, action_bounds=bounds)
    write_dataset((table for fragment in source.fragments for table in source.read(fragment)), plan)
    return out


def trained_policies(dataset: Path) -> dict[str, Policy]:
    """Snapshots of IQL and of behaviour cloning, one population on the same minibatches."""
    import pyarrow.parquet as pq

    manifest = read_manifest(dataset)
    transforms = Transforms.fit(TransformConfig(reward_scale="return-range"), manifest)
    rows = torch.from_numpy(pack(pa.concat_tables([pq.read_table(path) for path in shard_paths(dataset)]), transforms))
    config = IQLConfig(hidden_sizes=(64, 64), learning_rate=1e-3)
    population = Population(seeds=(0,), expectiles=(0.7,), inverse_temperatures=(3.0, 0.0))
    agent = IQLAgent(config, manifest.spaces, population=population, num_updates=SNAPSHOTS[-1])
    sampler = UniformSampler(rows, RowLayout.of(manifest.spaces), 256, (0,), rank=0)
    policies = {}
    for update in range(1, SNAPSHOTS[-1] + 1):
        agent.update(next(sampler))
        if update in SNAPSHOTS:
            for member, label in enumerate(("iql", "bc")):
                weights = agent.policy_weights(member)
                policies[f"{label} {update}"] = export_policy(weights, manifest.spaces, transforms)
    return policies


def random_policies(trained: Policy) -> dict[str, Policy]:
    """A trained policy with noise on its weights, a network of nothing but noise, and one that does nothing."""
    policies = {}
    for index, noise in enumerate(WEIGHT_NOISES):
        generator = np.random.default_rng(index)
        disturbed = {
            name: value + noise * value.std() * generator.standard_normal(value.shape).astype(np.float32)
            for name, value in trained.weights.items()
        }
        policies[f"iql 10000 + noise {noise:g}"] = Policy(disturbed, trained.description)
    generator = np.random.default_rng(9)
    scrambled = {
        name: generator.permutation(value.ravel()).reshape(value.shape) for name, value in trained.weights.items()
    }
    policies["scrambled"] = Policy(scrambled, trained.description)
    zeros = {name: np.zeros_like(value) for name, value in trained.weights.items()}
    policies["zero"] = Policy(zeros, trained.description)
    return policies


def rollout_value(policy: Policy, environment_id: str, discount: float, num_episodes: int) -> float:
    """Mean discounted return from the environment's first states, its own time limit lifted."""
    horizon = int(np.ceil(np.log(TAIL_WEIGHT) / np.log(discount)))
    environments = [gymnasium.make(environment_id, max_episode_steps=horizon) for _ in range(num_episodes)]
    observations = np.stack([each.reset(seed=10_000 + index)[0] for index, each in enumerate(environments)])
    returns = np.zeros(num_episodes)
    running = list(range(num_episodes))
    for step in range(horizon):
        actions = policy.act(observations[running].astype(np.float32))
        still: list[int] = []
        for index, action in zip(running, actions, strict=True):
            observations[index], reward, is_terminated, _, _ = environments[index].step(action)
            returns[index] += discount**step * float(reward)
            still += [] if is_terminated else [index]
        running = still
        if not running:
            break
    for environment in environments:
        environment.close()
    return float(returns.mean())
