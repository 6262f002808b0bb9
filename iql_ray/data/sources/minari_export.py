"""A small source written as a local Minari dataset, so that other libraries can learn from the same rows.

Reading one is `minari.py`. The rows are held in memory; nothing is uploaded.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iql_ray.data.schema import Records, records_from_table
from iql_ray.data.sources.source import Source

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer


def write_minari(dataset_id: str, source: Source) -> None:
    """Write a source's episodes under Minari's own root (`MINARI_DATASETS_PATH`), with its licence and description.

    Args:
        dataset_id: `namespace/name-v0`.
        source: has next observations and both flags, and records an environment whose id is registered here: the
            dataset gets its spaces.

    Raises:
        ValueError: no environment, an id that Minari refuses or has already, an episode that is not finished or whose
            observations do not follow one another: Minari keeps an episode as one chain of them.
    """
    recorded = source.recorded
    if recorded.environment_id is None:
        raise ValueError(f"Minari dataset '{dataset_id}' needs an environment id, got none; name the environment")
    buffers = _buffers(source)
    import minari

    with warnings.catch_warnings():
        # Minari asks for an author's address and a permalink; a dataset that stays on this machine has neither.
        warnings.simplefilter("ignore", UserWarning)
        dataset = minari.create_dataset_from_buffers(
            dataset_id, buffers, env=recorded.environment_id, description=recorded.details.get("description")
        )
    if recorded.licence is not None:
        dataset.storage.update_metadata({"license": recorded.licence})


def _buffers(source: Source) -> list[EpisodeBuffer]:
    """The episodes as Minari takes them, each with one observation more than actions."""
    from minari.data_collector import EpisodeBuffer

    tables = [table for fragment in source.fragments for table in source.read(fragment)]
    rows = records_from_table(pa.concat_tables(tables), source.layout.observation_dim, source.layout.action_dim)
    _check_chain(rows, source.spec)
    actions = rows["actions"][:, 0].astype(np.int64) if source.layout.is_discrete else rows["actions"]
    stops = np.flatnonzero(_ends(rows)) + 1
    buffer: Any = EpisodeBuffer  # it says lists, and takes arrays
    return [
        buffer(
            observations=np.concatenate([rows["observations"][start:stop], rows["next_observations"][stop - 1 : stop]]),
            actions=actions[start:stop],
            **{name: rows[name][start:stop] for name in ("rewards", "terminations", "truncations")},
        )
        for start, stop in zip(np.append(0, stops[:-1]), stops, strict=True)
    ]


def _ends(rows: Records) -> np.ndarray:
    """(rows,) true on the last row of each episode."""
    return rows["terminations"] | rows["truncations"]


def _check_chain(rows: Records, spec: str) -> None:
    goes_on = ~_ends(rows)
    if goes_on[-1]:
        raise ValueError(f"source '{spec}': the last episode ends neither terminal nor truncated; flag its last row")
    is_broken = (rows["next_observations"][:-1] != rows["observations"][1:]).any(axis=1) & goes_on[:-1]
    if is_broken.any():
        raise ValueError(
            f"source '{spec}': what row {int(np.argmax(is_broken))} leads to is not what the row after it in its"
            " episode observes; expected one chain of observations"
        )
