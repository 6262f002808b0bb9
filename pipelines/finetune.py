"""Improve a trained agent online, in its environment.

iql-ray finetune --run RUN --env AdroitHandPen-v1 --num-env-steps 1000000 --num-rollout-workers 8
iql-ray finetune --model models:/pen@champion --mode asynchronous
iql-ray finetune --resume RUN_ID
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iql_ray.distributed.finetune_config import FinetuneConfig
from pipelines import command_line
from pipelines.ray_session import cluster_nodes, ray_session
from pipelines.storing import check_lasting, stored

if TYPE_CHECKING:
    from iql_ray.distributed.finetune_checking import CheckedFinetune


MOST_CHECKED_ROWS = 50_000
"""Of the dataset, whose observations a check of actions looks at."""


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Fine-tune as configured; returns the run's id, folder, model, and what fine-tuning has changed."""
    from iql_ray.distributed.finetune_checking import check_finetune
    from pipelines.progress import say, shown_progress

    with stored(config) as config:
        checked = check_finetune(config)
        if config.dry_run_actions:
            return _check_actions(checked)
        asked = checked.config
        # Learner, evaluation and rollout workers, one logical CPU each; they share the cores that there are.
        num_cpus = asked.num_learners * asked.cpus_per_learner + asked.num_rollout_workers + asked.num_eval_workers + 1
        if config.dry_run:
            return _placement(checked, num_cpus)
        _check_destination(config)
        with ray_session(num_cpus), shown_progress(asked.num_env_steps, "environment steps") as show:
            from iql_ray.distributed.finetuning import run_finetuning

            result = run_finetuning(checked, show, say)
        return {**result, "saved_experience": _save_experience(asked, result)}


def _placement(checked: CheckedFinetune, num_cpus: int) -> dict[str, Any]:
    """Which nodes would take which processes."""
    from iql_ray.distributed.run_roles import finetune_roles
    from pipelines.placement import show_placement

    asked, learner = checked.config, checked.run.config
    roles_of = partial(finetune_roles, asked, learner)
    return show_placement(cluster_nodes(num_cpus), roles_of, learner.device, asked.num_learners)


def _check_actions(checked: CheckedFinetune) -> dict[str, Any]:
    """What the policy would do on the dataset's observations, held against the limits."""
    import numpy as np

    from iql_ray import checkpoint
    from iql_ray.evaluation.action_check import action_table, check_actions
    from iql_ray.evaluation.logged_episodes import read_episodes

    policy, _ = checkpoint.load_policy(checked.source, checked.num_source_updates)
    asked = checked.config
    logged = read_episodes(str(asked.dataset), held_out_share=0.5, max_rows=MOST_CHECKED_ROWS, seed=asked.seed)
    episodes = np.split(logged.observations, logged.starts[1:-1])
    found = check_actions(policy, episodes, asked.action_limits, asked.temperature, asked.seed)
    print(action_table(found), file=sys.stderr)
    return {"run": str(checked.source), "dataset": asked.dataset, **found}


def _check_destination(config: FinetuneConfig) -> None:
    if config.save_experience is not None:
        from iql_ray.data.work_folder import check_destination

        check_lasting("save_experience", config.save_experience)
        check_destination(Path(config.save_experience), overwrite=False)
    elif config.save_experience_minari is not None:
        raise ValueError(
            f"save_experience_minari = {config.save_experience_minari}: is written beside a prepared dataset; give "
            "--save-experience FOLDER, too"
        )


def _save_experience(asked: FinetuneConfig, result: dict[str, Any]) -> str | None:
    """Prepare what was collected as a dataset; where it lies, None where nobody asked or nothing was collected."""
    if asked.save_experience is None or result["num_transitions"] == 0:
        return None
    from pipelines.prepare import PrepareConfig, prepare

    prepare(
        PrepareConfig(
            source=f"experience:{result['run_folder']}",
            out=Path(asked.save_experience),
            env=asked.env,
            seed=asked.seed,
            minari=asked.save_experience_minari,
        )
    )
    return asked.save_experience


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(FinetuneConfig, finetune, argv, description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
