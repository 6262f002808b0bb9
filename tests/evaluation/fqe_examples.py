"""What the tests of fitted Q evaluation share: small prepared datasets, read in order, and policies by table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from iql_ray.algorithm.fqe_config import FQEConfig
from iql_ray.envs.maze_map import ACTIONS
from iql_ray.envs.umaze_data import MazeData
from iql_ray.evaluation.logged_episodes import LoggedEpisodes, read_episodes
from iql_ray.experience import Spaces
from iql_ray.policy import Policy, PolicyDescription
from tests.data.examples import prepare_here, write_npz

SHORT = FQEConfig(fqe_members=3, fqe_updates=60, fqe_batch_size=32, fqe_hidden_sizes=(8,), fqe_target_rate=0.2)
"""Too little to learn anything by."""


def prepared(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    prepare_here(write_npz(folder / "rows.npz", columns), folder / "prepared", **options)
    return folder / "prepared"


def prepared_maze(folder: Path, data: MazeData) -> Path:
    """The maze's rows; their episodes end where a flag says so."""
    columns = {name: column for name, column in data.columns().items() if name != "episode"}
    spaces = Spaces(observation_dim=data.maze.num_states, action_dim=1, num_actions=len(ACTIONS))
    return prepared(folder, columns, environment=spaces)


def logged(dataset: Path, seed: int = 0, max_rows: int = 1_000_000) -> LoggedEpisodes:
    """A fifth of the episodes held out."""
    return read_episodes(dataset, held_out_share=0.2, max_rows=max_rows, seed=seed)


def narrow_columns(num_episodes: int = 60, num_steps: int = 10) -> dict[str, np.ndarray]:
    """Random observations in [-1, 1]; actions within 0.1 of the middle; every step is worth 1 and nothing ends."""
    generator = np.random.default_rng(0)
    num_rows = num_episodes * num_steps
    observations = generator.uniform(-1, 1, (num_rows + 1, 2)).astype(np.float32)
    return {
        "observations": observations[:-1],
        "actions": generator.uniform(-0.1, 0.1, (num_rows, 1)).astype(np.float32),
        "rewards": np.ones(num_rows, np.float32),
        "next_observations": observations[1:],
        "terminations": np.zeros(num_rows, bool),
        "truncations": np.arange(num_rows) % num_steps == num_steps - 1,
    }


def constant_policy(action: float, observation_dim: int = 2) -> Policy:
    """Does the same everywhere, in the box [-1, 1]."""
    description = PolicyDescription(
        observation_dim=observation_dim,
        num_hidden_layers=0,
        action_low=(-1.0,),
        action_high=(1.0,),
        log_std_min=-5.0,
        log_std_max=2.0,
    )
    weights = {
        "mean.weight": np.zeros((observation_dim, 1), np.float32),
        "mean.bias": np.array([np.arctanh(action)], np.float32),
        "log_std": np.zeros(1, np.float32),
    }
    return Policy(weights, description)


def tabular_policy(probabilities: np.ndarray) -> Policy:
    """Of one-hot states, (states, actions), at temperature 1."""
    num_states, num_actions = probabilities.shape
    description = PolicyDescription(
        kind="categorical", observation_dim=num_states, num_hidden_layers=0, num_actions=num_actions
    )
    logits = np.log(np.maximum(probabilities, 1e-30)).astype(np.float32)
    return Policy({"logits.weight": logits, "logits.bias": np.zeros(num_actions, np.float32)}, description)
