"""What benchmarks of learning share: the demo's data as a prepared dataset, its rows in memory, and mean returns."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iql_ray.data import demo
from iql_ray.data.actions import resolve_actions
from iql_ray.data.packing import pack
from iql_ray.data.prepared import shard_paths
from iql_ray.data.sources import open_source
from iql_ray.data.transforms import Transforms
from iql_ray.data.writing import WritingPlan, write_dataset
from iql_ray.envs.acting import GROUP_WIDTH
from iql_ray.envs.catalog import environment_spaces, make_env
from iql_ray.evaluation.episodes import run_group, split_into_groups
from iql_ray.policy import Policy

EPISODE_SEED = 1


def prepare_demo(folder: Path) -> Path:
    """The demo's dataset without Ray."""
    source = open_source(f"npz:{demo.demo_dataset_path()}")
    spaces = environment_spaces(demo.DEMO_ENVIRONMENT)
    actions = resolve_actions(source.layout, source.recorded.spaces, spaces, demo.DEMO_ACTION_BOUNDS)
    plan = WritingPlan(
        source=source, actions=actions, destination=folder / "prepared", action_bounds=demo.DEMO_ACTION_BOUNDS
    )
    write_dataset((table for fragment in source.fragments for table in source.read(fragment)), plan)
    return folder / "prepared"


def packed_rows(dataset: Path, transforms: Transforms) -> np.ndarray:
    """All of a prepared dataset, (transitions, width)."""
    return pack(pa.concat_tables([pq.read_table(path) for path in shard_paths(dataset)]), transforms)


def mean_return(policy: Policy, environment: str, num_episodes: int) -> float:
    """Over episodes that are the same for every policy."""
    environments = [make_env(environment) for _ in range(GROUP_WIDTH)]
    groups = split_into_groups(num_episodes, EPISODE_SEED)
    return statistics.mean(each.episode_return for seeds in groups for each in run_group(policy, environments, seeds))
