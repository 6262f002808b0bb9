"""From a source's rows to a prepared dataset: checked, linked, shuffled once, written whole or not at all.

One pass over the source, one over the shuffled rows; memory holds a few blocks, a bucket, and a shard for each thread.
An interrupted preparation goes on where it stood, and its bytes are those of one that was not.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iql_ray import config
from iql_ray.data.describing import ContentHash, Tally, describe, file_sha256
from iql_ray.data.first_pass import FirstPass, ReadFrom
from iql_ray.data.intake import WritingPlan
from iql_ray.data.prepared import MANIFEST_FILE, Manifest, Shard
from iql_ray.data.reading import num_threads, without_first
from iql_ray.data.schema import Records, records_from_table, table_from_records
from iql_ray.data.shuffling import ShuffledRows
from iql_ray.data.work_folder import DATASET_FOLDER, Say, work_folder

ROWS_PER_GROUP = 65_536

SAY_SECONDS = 10.0
"""Between two lines about how far the writing is."""


def write_dataset(tables: Iterable[pa.Table], plan: WritingPlan) -> Manifest:
    """As `prepare_dataset`, of a source's tables from its first row on; they come once, so that a repair that needs a
    survey finds its facts in the plan."""
    return prepare_dataset(lambda first_row: without_first(tables, first_row), plan)


def prepare_dataset(read: ReadFrom, plan: WritingPlan, say: Say = lambda line: None) -> Manifest:
    """Write the whole prepared dataset into `plan.destination`, or what an interrupted call left to write.

    Args:
        read: the source's rows in order, from a row on; called once for what is left, before it once for a survey.
        say: takes lines for the user: what was found of earlier work, and how far this is.

    Raises:
        ValueError: anything wrong with the rows or with the destination; then nothing is left behind or overwritten.
    """
    with work_folder(plan, say) as folder:
        first_pass = FirstPass(plan, folder, read)
        if first_pass.num_rows_read:
            say(_found(first_pass.num_rows_read, plan, folder))
        shuffled = first_pass.run()
        if shuffled.num_rows == 0:
            raise ValueError(f"source '{plan.source.spec}' has no row with a next observation; nothing to learn from")
        shards, tally, content = write_shards(folder, shuffled, plan.rows_per_shard, say)
        manifest = describe(plan, first_pass, shards, tally, content)
        config.save(manifest, folder / DATASET_FOLDER / MANIFEST_FILE)
    return manifest


def _found(num_rows_read: int, plan: WritingPlan, folder: Path) -> str:
    num_shards = len(list((folder / DATASET_FOLDER).glob("shard-*.parquet")))
    return (
        f"goes on where an earlier run was interrupted: {num_rows_read:,} of {plan.source.num_rows:,} rows are read,"
        f" {num_shards} shards are written"
    )


def balanced_sizes(num_rows: int, rows_per_shard: int) -> list[int]:
    """As few shards as hold the rows, whose sizes differ by one at most: 10 rows by at most 4 are 4, 3 and 3."""
    num_shards = -(-num_rows // rows_per_shard)
    return [num_rows // num_shards + (index < num_rows % num_shards) for index in range(num_shards)]


def write_shards(
    folder: Path, shuffled: ShuffledRows, rows_per_shard: int, say: Say
) -> tuple[tuple[Shard, ...], Tally, ContentHash]:
    """Cut the shuffled rows into shards and write those that are not there yet, a few at a time.

    Rows are hashed in order here; encoding, compression and statistics are for the threads. Buckets go once all their
    rows are in shards.
    """
    shards: list[Shard] = []
    tally, content = Tally(), ContentHash()
    pending: deque[Future[tuple[Shard, Tally]]] = deque()
    bounds = np.cumsum([0, *balanced_sizes(shuffled.num_rows, rows_per_shard)]).tolist()
    said_at = time.monotonic()
    with ThreadPoolExecutor(num_threads(), thread_name_prefix="write") as pool:
        for index, (start, stop) in enumerate(pairwise(bounds)):
            path = folder / DATASET_FOLDER / f"shard-{index:05d}.parquet"
            records = _read_shard(path, shuffled, stop - start) if path.exists() else shuffled.rows(start, stop)
            content.add(records)
            pending.append(pool.submit(_finish_shard, records, path, folder / path.name))
            del records
            while len(pending) > (num_threads() if stop < shuffled.num_rows else 0):
                shard, of_shard = pending.popleft().result()
                shards.append(shard)
                tally.merge(of_shard)
                shuffled.drop_before(bounds[len(shards)])
            if time.monotonic() - said_at >= SAY_SECONDS:
                say(f"wrote {bounds[len(shards)]:,} of {shuffled.num_rows:,} rows")
                said_at = time.monotonic()
    return tuple(shards), tally, content


def _finish_shard(records: Records, path: Path, partial: Path) -> tuple[Shard, Tally]:
    """Write the shard where it is not there yet, whole or not at all, and say what is in it."""
    if not path.exists():
        table = table_from_records(records)
        pq.write_table(table, partial, row_group_size=ROWS_PER_GROUP, compression="zstd", use_dictionary=False)
        partial.rename(path)
    tally = Tally()
    tally.add(records)
    return Shard(file=path.name, num_rows=len(records), num_bytes=path.stat().st_size, sha256=file_sha256(path)), tally


def _read_shard(path: Path, shuffled: ShuffledRows, num_rows: int) -> Records:
    """The rows of a shard that was written before an interruption.

    Raises:
        ValueError: it is damaged, as a loss of power may leave it.
    """
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"the interrupted run left damage, run again to begin anew: {path}: {error}") from None
    assert table.num_rows == num_rows, path
    return records_from_table(table, shuffled.dtype["observations"].shape[0], shuffled.dtype["actions"].shape[0])
