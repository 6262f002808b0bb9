"""Reading a source's fragments on the whole cluster, in order and in bounded memory, through Ray Data.

Ray must be running, and every node must see the source's files. What is read is not interpreted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import DataContext, ExecutionResources

from iql_ray.data.reading import fragment_of, without_first
from iql_ray.data.sources import Fragment, Source, canonical_schema
from iql_ray.distributed.ordered_data import ordered_context

MAX_BLOCKS = 1_000
"""Fragments beyond this share a task: a folder of very many small files is not very many tasks."""

BLOCK_BYTES = 16 * 2**20
"""A task hands on its rows in blocks of about this size."""

OBJECT_STORE_BYTES = 256 * 2**20
"""What read-ahead may hold in the object store."""

REFUSAL = "refusal"
"""A column beside the data's: null, or why a fragment cannot be read. Raised in a task, the reason would reach the
user under pages of Ray Data's tracebacks."""


def read_in_order(source: Source, first_row: int = 0) -> Iterator[pa.Table]:
    """The source's tables in order, from `first_row` of the whole source on; tasks read ahead within
    `OBJECT_STORE_BYTES`.

    Raises:
        ValueError: a fragment that cannot be read, or does not hold what the source's header promised.
    """
    first, num_rows_before = fragment_of(source, first_row)
    return without_first(_read_fragments(source, source.fragments[first:]), first_row - num_rows_before)


def _read_fragments(source: Source, fragments: Sequence[Fragment]) -> Iterator[pa.Table]:
    num_fragments = len(fragments)

    def read(batch: Any) -> Iterator[Any]:
        for index in batch["id"]:
            yield from _read_or_refuse(source, fragments[int(index)])

    with DataContext.current(_context()):
        indices = ray.data.range(num_fragments, override_num_blocks=min(num_fragments, MAX_BLOCKS))
        tables = indices.map_batches(read, batch_size=None)
    batches: Iterable[Any] = tables.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    for table in batches:
        refusals = table.column(REFUSAL)
        if refusals.null_count < len(refusals):
            raise ValueError(refusals.drop_null()[0].as_py())
        yield table.drop_columns([REFUSAL])


def _read_or_refuse(source: Source, fragment: Fragment) -> Iterator[pa.Table]:
    """A fragment's tables with a column of refusals; a refused fragment ends in one row of it."""
    try:
        for table in source.read(fragment):
            yield table.append_column(REFUSAL, pa.nulls(table.num_rows, pa.string()))
    except (ValueError, OSError) as error:
        schema = canonical_schema(source.layout).append(pa.field(REFUSAL, pa.string()))
        yield pa.Table.from_pylist([{REFUSAL: f"source '{source.spec}': {error}"}], schema)


def _context() -> DataContext:
    """An ordered read whose blocks and read-ahead are bounded."""
    context = ordered_context()
    context.target_max_block_size = BLOCK_BYTES
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=OBJECT_STORE_BYTES)
    return context
