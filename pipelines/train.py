"""Train a policy from logged data by implicit Q-learning.

iql-ray train --dataset data/pen --env AdroitHandPen-v1 --recipe kitchen_adroit --num-updates 1000000
iql-ray train --resume RUN_ID
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from iql_ray.distributed.train_config import TrainConfig
from pipelines import command_line
from pipelines.ray_session import cluster_nodes, ray_session
from pipelines.storing import stored


def train(config: TrainConfig) -> dict[str, Any]:
    """Train as configured; returns the run's id, folder, model and final evaluation."""
    from iql_ray.distributed.checking import check
    from pipelines.progress import say, shown_progress

    with stored(config) as config:
        run = check(config)
        if config.dry_run:
            return placement(run.config)
        with ray_session(), shown_progress(run.config.num_updates) as show:
            from iql_ray.distributed import training

            return training.train(run, show, say=say)


def placement(config: TrainConfig) -> dict[str, Any]:
    """Which nodes would take which processes; starts nothing."""
    from iql_ray.distributed.run_roles import train_roles
    from pipelines.placement import show_placement

    return show_placement(cluster_nodes(), partial(train_roles, config), config.device, config.num_learners)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(TrainConfig, train, argv, description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
