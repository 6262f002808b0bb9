"""At which numbers of updates something is due; from the configuration alone, so that all learners agree."""

from __future__ import annotations

from iql_ray.distributed.train_config import TrainConfig

STOP_INTERVAL_UPDATES = 32
"""Between two questions of several learners whether to end: each costs a message to all."""


def updates_until_due(config: TrainConfig, update_count: int) -> int:
    """Updates, 1 or more, that can be run before anything but a stop may be due again."""
    intervals = [config.log_interval_updates, config.checkpoint_interval_updates]
    if config.evaluation_method is not None:
        intervals.append(config.eval_interval_updates)
    if config.average_every is not None:
        intervals.append(config.average_every)
    return min(config.num_updates - update_count, *(each - update_count % each for each in intervals))


def is_average_due(config: TrainConfig, update_count: int) -> bool:
    """Where learners go by themselves in between: at their interval, and so that they agree in a checkpoint."""
    every = config.average_every
    return every is not None and (update_count % every == 0 or is_checkpoint_due(config, update_count))


def is_stop_possible(config: TrainConfig, update_count: int) -> bool:
    """Where learners ask each other whether to end: now and then, and where their networks are the same."""
    if config.average_every is not None:
        return is_average_due(config, update_count)
    return config.num_learners == 1 or update_count % STOP_INTERVAL_UPDATES == 0


def is_checkpoint_due(config: TrainConfig, update_count: int) -> bool:
    """At the checkpoint interval, with every evaluation, and at the end."""
    is_due = update_count % config.checkpoint_interval_updates == 0 or update_count == config.num_updates
    return is_due or is_evaluation_due(config, update_count)


def is_evaluation_due(config: TrainConfig, update_count: int) -> bool:
    """At the evaluation interval, before the first update and after the last; never where nothing evaluates."""
    is_due = update_count % config.eval_interval_updates == 0 or update_count == config.num_updates
    return is_due and config.evaluation_method is not None
