"""What the record of every run begins with, whoever keeps it."""

from __future__ import annotations

from iql_ray import config as config_io
from iql_ray import run_folder
from iql_ray.data.lineage import lineage_tags
from iql_ray.data.locations import last_name
from iql_ray.data.prepared import Manifest
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.tracking.runs import RunLogger


def begin_record(logger: RunLogger, config: TrainConfig | FinetuneConfig, manifest: Manifest) -> None:
    """Settings, dataset and lineage of a run that has just started.

    The configuration's file comes last: it makes the folder a run that can be resumed.
    """
    logger.log_params(config_io.flatten(config_io.to_dict(config)))
    logger.log_dataset(
        name=last_name(str(config.dataset)),
        digest=manifest.digest,
        source=manifest.provenance.source,
        num_rows=manifest.num_rows,
        profile={"num_episodes": manifest.num_episodes, "return_mean": manifest.episode_returns.mean},
    )
    logger.set_tags(lineage_tags(manifest))
    config_io.save(config, logger.folder / run_folder.CONFIG_FILE)
    logger.log_artifact(run_folder.CONFIG_FILE)
