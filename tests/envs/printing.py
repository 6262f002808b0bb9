"""An environment for a process of its own: says which heavy libraries are loaded there, and when its client is gone."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

HEAVY = ("torch", "ray", "mlflow", "matplotlib", "scipy", "pyarrow", "safetensors", "tyro", "yaml")


class PrintingEnv(gymnasium.Env):
    """One number, all zero."""

    observation_space = Box(-1, 1, (1,))
    action_space = Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(1, np.float32), {"heavy": " ".join(name for name in HEAVY if name in sys.modules)}

    def on_client_gone(self) -> None:
        print("gone")
