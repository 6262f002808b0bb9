"""Named configurations: the values of the IQL paper per family of tasks, as overrides of the train configuration.

A recipe holds only what differs from the defaults and is right for its whole family. It names no dataset,
environment or run length (but the toy maze's), and computes nothing; a file or a flag wins over it.

Source: Kostrikov, Nair and Levine, "Offline Reinforcement Learning with Implicit Q-Learning" (arXiv:2110.06169),
section 5.1 and appendix B, and the configurations in the authors' published code.
"""

from __future__ import annotations

import copy
from typing import Any

LOCOMOTION = {
    "agent": {"expectile": 0.7, "inverse_temperature": 3.0},
    "transforms": {"reward_scale": "return-range"},
}
"""MuJoCo running and hopping: rewards times 1000 / (best - worst episode return of the data)."""

ANTMAZE = {
    "agent": {"expectile": 0.9, "inverse_temperature": 10.0},
    "transforms": {"reward_shift": -1.0},
    "eval_interval_updates": 100_000,
    "num_eval_episodes": 100,
}
"""Sparse reward at a distant goal: 1 is subtracted, so that every step short of it costs. A success is a yes or no,
and needs many episodes to measure."""

KITCHEN_ADROIT = {
    "agent": {"expectile": 0.7, "inverse_temperature": 0.5, "dropout_rate": 0.1},
}
"""Few human demonstrations, many dimensions: the policy stays close to the data and drops out; rewards are raw."""

UMAZE = {
    "agent": {
        "expectile": 0.95,
        "inverse_temperature": 10.0,
        "discount": 0.9,
        "hidden_sizes": [32, 32],
        "learning_rate": 2e-3,
        "target_update_rate": 0.05,
    },
    "batch_size": 64,
    "num_updates": 4000,
}
"""The toy maze: a few dozen cells, so that small networks and a fast target do; its discount is the maze's own."""

BEHAVIOUR_CLONING = {"agent": {"inverse_temperature": 0.0}}
"""All transitions weigh alike: the policy imitates the data."""

PERCENT_CLONING = {"agent": {"inverse_temperature": 0.0}, "top_episode_share": 0.1}
"""10%BC of the paper's comparisons: imitate the tenth of the episodes that returned most."""

RECIPES: dict[str, dict[str, Any]] = {
    "locomotion": LOCOMOTION,
    "antmaze": ANTMAZE,
    "kitchen_adroit": KITCHEN_ADROIT,
    "umaze": UMAZE,
    "bc": BEHAVIOUR_CLONING,
    "percent_bc": PERCENT_CLONING,
}


def recipe(name: str) -> dict[str, Any]:
    """The overrides that `name` stands for, nested as the train configuration is.

    Raises:
        ValueError: no recipe has this name; the message lists those there are.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe '{name}'; expected one of: {', '.join(RECIPES)}")
    return copy.deepcopy(RECIPES[name])
