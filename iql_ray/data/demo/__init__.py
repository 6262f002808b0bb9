"""The data that comes along: a replay of Pendulum-v1, small enough for a package. NOTICE.md has its origin."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

DEMO_ENVIRONMENT = "Pendulum-v1"
DEMO_ACTION_BOUNDS = (-1.0, 1.0)
"""The box that the file's actions lie in; the torque is twice as much."""
DEMO_LICENCE = "Apache-2.0, RLlib test data (github.com/ray-project/ray)"


def demo_dataset_path() -> Path:
    """The npz file: 99,000 transitions in 500 episodes, returns -1769 to -0.7 with a mean of -180."""
    return Path(str(files(__name__) / "pendulum-replay.npz"))
