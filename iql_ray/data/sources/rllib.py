"""RLlib's logged experience: Parquet of columns, JSON lines of sample batches, or Parquet of whole episodes.

RLlib's own column names are known (`obs`, `new_obs`, `terminateds` or `dones`, `eps_id`), so no mapping is needed; one
may be given. Ray is not imported, and nothing is unpickled: columns that RLlib compressed are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iql_ray.data.sources import parquet, rllib_episodes
from iql_ray.data.sources.columns import layout_from_headers, refuse_time, resolve_columns, resolve_extra
from iql_ray.data.sources.files import SourceFile, find_files, naming, openable, source_file
from iql_ray.data.sources.source import Fragment, Layout, Source
from iql_ray.data.sources.tables import Block, gathered, tables_from_blocks

NAMES = {
    "observations": ("obs",),
    "actions": ("actions",),
    "rewards": ("rewards",),
    "next_observations": ("new_obs",),
    "terminations": ("terminateds", "dones"),
    "truncations": ("truncateds",),
    "episode": ("eps_id",),
}
JSON_SUFFIXES = (".json", ".jsonl")
COMPRESSED = (
    "is compressed by RLlib (a pickle), which is not opened here because unpickling runs what a file says; write it"
    " with output_compress_columns=[]"
)


def describe(spec: str, location: str, chosen: dict[str, str]) -> Source:
    """Open RLlib's files: Parquet by its footers, JSON and whole episodes by reading them through once.

    Raises:
        ValueError: no file, an unreadable one, files of several formats, compressed columns, a column missing or of
            the wrong kind.
    """
    refuse_time(spec, chosen)
    files = find_files(spec, location, (*parquet.SUFFIXES, *JSON_SUFFIXES), "Parquet or JSON")
    kinds = {file.name.endswith(JSON_SUFFIXES) for file in files}
    if len(kinds) > 1:
        raise ValueError(f"source '{spec}' has Parquet and JSON files; prepare one kind at a time, with a glob")
    if True in kinds:
        return _describe_json(spec, files, chosen)
    with naming(f"source '{spec}': {files[0]}", known_by=files[0].name):
        schema = pq.read_schema(openable(str(files[0])))
    if rllib_episodes.is_of_episodes(schema):
        return rllib_episodes.describe_files(spec, files, chosen)
    for name in {"obs", "new_obs", "actions"} & set(schema.names):
        kind = schema.field(name).type
        if pa.types.is_string(kind) or pa.types.is_binary(kind):
            raise ValueError(f"source '{spec}': column {name} {COMPRESSED}")
    return parquet.describe_files(spec, files, chosen, NAMES)


def _describe_json(spec: str, files: tuple[SourceFile, ...], chosen: Mapping[str, str]) -> Source:
    """The layout of the first line that has rows; every line is parsed, to count the rows."""
    fragments, first = [], None
    for file in files:
        num_rows = num_lines = 0
        for batch in _batches(file):
            first = first or batch
            num_lines += 1
            num_rows += len(batch["rewards"])
        fragments.append(Fragment(path=str(file), start=0, stop=num_lines, first_row=0, num_rows=num_rows))
    if first is None:
        raise ValueError(f"source '{spec}' has zero rows; expected at least one transition")
    columns = resolve_columns(spec, first, chosen, NAMES)
    success = resolve_extra(spec, "success", first, chosen)
    used = [name for group in columns.values() for name in group if name in first]
    with naming(f"source '{spec}': line 0 of {files[0].name}", known_by=spec):
        headers = {name: (values.dtype, values.shape) for name, values in _arrays(first, used).items()}
    layout = layout_from_headers(spec, columns, headers, success=success)
    return Source(spec=spec, layout=layout, fragments=tuple(fragments), files=files, read_fragment=read)


def read(fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
    """The file's rows, a table at a time."""
    return tables_from_blocks(gathered(_blocks(fragment, layout)), layout, fragment)


def _blocks(fragment: Fragment, layout: Layout) -> Iterator[Block]:
    for line, batch in enumerate(_batches(source_file(fragment.path))):
        try:
            yield _arrays(batch, layout.own_columns)
        except ValueError as error:
            raise ValueError(f"line {line} of {fragment.file_name}: {error}") from error


def _batches(file: SourceFile) -> Iterator[dict[str, Any]]:
    """The file's lines as columns of rows; a line that holds one transition is a batch of one.

    Raises:
        ValueError: a line is no JSON, or no batch with rows; names file and line.
    """
    with file.open("rb") as lines:
        for number, line in enumerate(lines):
            try:
                record = _sample_batch(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} of {file.name} is no sample batch of RLlib's: {error}") from error
            yield record


def _sample_batch(record: Any) -> dict[str, Any]:
    """One line's record, of either of RLlib's types.

    Raises:
        ValueError: several policies, or no rewards.
    """
    if isinstance(record, dict) and record.get("type") == "MultiAgentBatch":
        policies = record.get("policy_batches")
        if not isinstance(policies, dict) or len(policies) != 1:
            raise ValueError("it holds several policies; expected one, write one policy's batches at a time")
        (record,) = policies.values()
    if not isinstance(record, dict) or "rewards" not in record:
        raise ValueError("it has no rewards; expected an object of columns, as RLlib's JSON writer leaves them")
    if not isinstance(record["rewards"], list):
        record = {name: [value] for name, value in record.items()}
    if not record["rewards"]:
        raise ValueError("it has no rows; leave the line out")
    return record


def _arrays(batch: Mapping[str, Any], names: list[str]) -> dict[str, np.ndarray]:
    """Some columns of a batch, as long as its rewards.

    Raises:
        ValueError: a column is missing, compressed, ragged, nested, or of another length.
    """
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        if name not in batch:
            raise ValueError(f"column {name} is missing; it has {', '.join(sorted(batch))}")
        values = batch[name]
        if isinstance(values, str) or (name != "eps_id" and isinstance(values[0], str)):
            raise ValueError(f"column {name} {COMPRESSED}")
        arrays[name] = _array(name, values, len(batch["rewards"]))
    return arrays


def _array(name: str, values: list[Any], num_rows: int) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.zeros(0, object)
    if array.dtype.kind == "O":
        raise ValueError(f"column {name} has rows of different lengths or kinds; expected numbers, or one vector a row")
    if len(array) != num_rows:
        raise ValueError(f"column {name} has {len(array)} rows, rewards have {num_rows}; expected one number of rows")
    return array
