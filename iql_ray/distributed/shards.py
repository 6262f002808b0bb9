"""From a prepared dataset to what each learner takes: one packed matrix in the object store, or a stream.

A matrix is read once through Ray Data. Learners on a node map the same read-only memory; none holds a copy. Training
itself is `learner.py`. Ray Data's workers import this file, so torch is imported only where rows are taken.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from ray import ObjectRef
from ray.data import DataContext

from iql_ray.data.locations import is_uri
from iql_ray.data.packing import column_values, pack
from iql_ray.data.prepared import Manifest, shard_paths
from iql_ray.data.schema import fixed_size_lists
from iql_ray.data.selection import ALL_ROWS, RowSelection, SelectedRows, check_enough_rows, select_rows
from iql_ray.data.transforms import Transforms
from iql_ray.distributed.ordered_data import ordered_context

if TYPE_CHECKING:
    import torch

    from iql_ray.data.streaming import StreamedRows

ROW = "row"


def learner_shards(
    dataset: str | Path,
    manifest: Manifest,
    transforms: Transforms,
    num_learners: int,
    selection: RowSelection = ALL_ROWS,
    groups_per_window: int | None = None,
) -> list[ObjectRef]:
    """What each learner takes its rows from (`learner_rows`), by rank: matrices, or one description of a stream.

    Args:
        groups_per_window: row groups that a learner has in memory at a time; None: it holds its whole share.

    Raises:
        ValueError: the selection leaves fewer rows than there are learners.
    """
    if groups_per_window is None:
        return packed_shards(dataset, manifest, transforms, num_learners, selection)
    from iql_ray.data.streaming import StreamedRows

    rows = StreamedRows.of(
        dataset,
        manifest,
        transforms,
        groups_per_window=groups_per_window,
        num_learners=num_learners,
        selection=selection,
    )
    check_enough_rows(dataset, manifest, selection, sum(group.num_rows for group in rows.groups), num_learners)
    return [ray.put(rows)] * num_learners


def learner_rows(shard: ObjectRef, device: torch.device) -> torch.Tensor | StreamedRows:
    """A learner's rows on its device: held there, or to be streamed there."""
    held = ray.get(shard)
    return resident_rows(shard, device) if isinstance(held, np.ndarray) else replace(held.here(), device=device)


def packed_shards(
    dataset: str | Path, manifest: Manifest, transforms: Transforms, num_shards: int, selection: RowSelection = ALL_ROWS
) -> list[ObjectRef]:
    """One (rows, width) float32 matrix per shard: equal consecutive parts of the selected rows, one more at most.

    The dataset was shuffled when it was prepared, so consecutive rows are a random sample. Rows keep their order,
    whatever the cluster: with the same configuration a resumed run sees the same rows at the same places. With next
    actions, the layout of a row has them too.

    Raises:
        ValueError: the selection leaves fewer rows than there are shards.
    """
    num_rows, selected = _selected(dataset, manifest, selection)
    check_enough_rows(dataset, manifest, selection, num_rows, num_shards)
    chosen = None if selected is None else ray.put(selected)  # once for all tasks, and here no longer
    del selected

    def pack_rows(table: pa.Table) -> pa.Table:
        kept, next_actions = (table, None) if chosen is None else ray.get(chosen).choose(table)
        return pa.table({ROW: fixed_size_lists(pack(kept, transforms, next_actions))})

    with DataContext.current(ordered_context()):
        rows = _tables(dataset).map_batches(pack_rows, batch_format="pyarrow").materialize()
        parts = rows.split_at_indices(_bounds(num_rows, num_shards)) if num_shards > 1 else [rows]
        shards = [_stack.remote(*part.to_arrow_refs()) for part in parts]
        ray.wait(shards, num_returns=len(shards), fetch_local=False)  # before the tables' references go
    return shards


def _tables(dataset: str | Path) -> ray.data.Dataset:
    """The rows as they are stored, in order; behind a URI, each node that takes part fetches them once."""
    paths = shard_paths(dataset)
    if not is_uri(dataset):
        return ray.data.read_parquet([str(path) for path in paths])

    def read(batch: Any) -> Iterator[Any]:
        for index in batch["id"]:
            yield pq.read_table(shard_paths(dataset)[int(index)])

    return ray.data.range(len(paths), override_num_blocks=len(paths)).map_batches(read, batch_size=None)


def _selected(dataset: str | Path, manifest: Manifest, selection: RowSelection) -> tuple[int, SelectedRows | None]:
    """How many rows are left, and which; None where all are."""
    if selection == ALL_ROWS:
        return manifest.num_rows, None
    selected = select_rows(dataset, manifest, selection)
    return selected.num_rows, selected


def _bounds(num_rows: int, num_shards: int) -> list[int]:
    return [num_rows * shard // num_shards for shard in range(1, num_shards)]


@ray.remote
def _stack(*tables: pa.Table) -> np.ndarray:
    """Blocks of packed rows as one matrix."""
    return np.concatenate([column_values(table, ROW) for table in tables if table.num_rows])


def resident_rows(shard: ObjectRef, device: torch.device) -> torch.Tensor:
    """A shard as a tensor on the device: on a CPU a view of the object store's own memory, never written to."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(ray.get(shard)).to(device)
