"""A module that registers an environment when it is imported, as packages of environments do."""

from __future__ import annotations

import gymnasium

gymnasium.register("Registered-v0", entry_point="tests.evaluation.toys:CountingEnv")
