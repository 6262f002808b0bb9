"""python examples/served_pendulum.py [--port 7777]: a system with limits and a stop of its own, served to a run.

Pendulums stand for robots: one that collects experience, and eight that evaluate. For a system of your own, write
another `Motor` and other limits.
"""

from __future__ import annotations

import argparse
import logging
import signal

import gymnasium
import numpy as np

from iql_ray.envs.action_limits import ActionLimits, LimitedActions
from iql_ray.envs.external import EnvironmentServer

LIMITS = ActionLimits(low=(-1.5,), high=(1.5,))
"""Not more than 1.5 of the motor's 2 N m, whatever a run may ask for."""
MAX_IDLE_SECONDS = 30.0
"""A run that is silent for longer within an episode counts as gone."""


class Motor(gymnasium.Wrapper):
    """Knows how to come to rest."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("Pendulum-v1"))

    def on_client_gone(self) -> None:
        """Called when the run leaves, dies or falls silent within an episode."""
        self.env.step(np.zeros(1, np.float32))
        print("client gone, motor off", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=7777)
    parser.add_argument("--num-environments", type=int, default=9)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    motors = [LimitedActions(Motor(), LIMITS) for _ in range(arguments.num_environments)]
    server = EnvironmentServer(motors, port=arguments.port, max_idle_seconds=MAX_IDLE_SECONDS)
    for ending in (signal.SIGINT, signal.SIGTERM):  # being ended is no reason to leave a motor on
        signal.signal(ending, lambda *_: server.stop())
    with server:
        server.serve()


if __name__ == "__main__":
    main()
