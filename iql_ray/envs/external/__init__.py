"""Environments that live outside this program, a robot or a service, behind a local socket.

    where the robot is                             where the run is
    python -m iql_ray.envs.external --env ...      iql-ray finetune --env external://127.0.0.1:7777
    server.py, session.py: the environment  <--->  client.py: a gymnasium.Env
                     wire.py: frames of JSON and arrays, no pickle

The server needs gymnasium and numpy alone. No policy, no limits, no learning here.
"""

from iql_ray.envs.external.client import ExternalEnv, connect
from iql_ray.envs.external.server import EnvironmentServer, serve_environment

__all__ = ["EnvironmentServer", "ExternalEnv", "connect", "serve_environment"]
