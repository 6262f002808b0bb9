"""Improve a trained agent online, in its environment.

iql-ray finetune --run RUN --env AdroitHandPen-v1 --num-env-steps 1000000 --num-rollout-workers 8
iql-ray finetune --model models:/pen@champion --mode asynchronous
iql-ray finetune --resume RUN_ID
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from iql_ray.distributed.finetune_config import FinetuneConfig
from pipelines import command_line
from pipelines.ray_session import ray_session


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Fine-tune as configured; returns the run's id, folder, model, and what fine-tuning has changed."""
    from iql_ray.distributed.finetune_checking import check_finetune
    from pipelines.progress import shown_progress

    checked = check_finetune(config)
    asked = checked.config
    # Learner, evaluation and rollout workers, one logical CPU each; they share the cores that there are.
    num_cpus = asked.num_learners * asked.cpus_per_learner + asked.num_rollout_workers + asked.num_eval_workers + 1
    with ray_session(num_cpus), shown_progress(asked.num_env_steps, "environment steps") as show:
        from iql_ray.distributed.finetuning import run_finetuning

        return run_finetuning(checked, show)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(FinetuneConfig, finetune, argv, description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
