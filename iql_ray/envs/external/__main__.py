"""python -m iql_ray.envs.external --env module:EntryPoint --port 7777: serve an environment until Ctrl-C.

Where the token is set in IQL_RAY_ENV_TOKEN, clients must know it. The first line of stdout is the address.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal

from iql_ray.envs.catalog import make_env
from iql_ray.envs.external.server import EnvironmentServer
from iql_ray.envs.external.wire import TOKEN_VARIABLE


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m iql_ray.envs.external", description=__doc__)
    parser.add_argument("--env", required=True, help="a gymnasium id, or module:EntryPoint")
    parser.add_argument("--port", type=int, default=7777, help="0: any that is free")
    parser.add_argument("--host", default="127.0.0.1", help="beyond loopback only with a token")
    parser.add_argument("--num-environments", type=int, default=1, help="one client each; a robot is one")
    parser.add_argument("--max-idle-seconds", type=float, help="a client silent for longer in an episode is lost")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        server = _server(arguments)
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
    # Being ended is no reason to leave a robot moving.
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    with server:
        print(server.address, flush=True)
        try:
            server.serve()
        except KeyboardInterrupt:
            server.stop()


def _server(arguments: argparse.Namespace) -> EnvironmentServer:
    return EnvironmentServer(
        [make_env(arguments.env) for _ in range(arguments.num_environments)],
        port=arguments.port,
        host=arguments.host,
        token=os.environ.get(TOKEN_VARIABLE),
        max_idle_seconds=arguments.max_idle_seconds,
    )


if __name__ == "__main__":
    main()
