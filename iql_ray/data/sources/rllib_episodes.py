"""RLlib's Parquet of whole episodes: one column of bytes, each the msgpack of a `SingleAgentEpisode`'s state.

That is what `output_write_episodes=True` leaves, RLlib's default since 2.40. The state is plain lists and arrays (in
msgpack_numpy's form), so Ray is not needed to read it; arrays of Python objects, which are pickles, are passed over.
An episode may come in several chunks with one id; each chunk repeats some rows of the one before as its lookback.
Source: ray-project/ray, `SingleAgentEpisode.get_state` and `InfiniteLookbackBuffer.get_state`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iql_ray.data.sources.columns import CANONICAL, layout_from_headers
from iql_ray.data.sources.files import SourceFile, naming, openable
from iql_ray.data.sources.source import Fragment, Layout, Source
from iql_ray.data.sources.tables import Block, gathered, tables_from_blocks

EPISODES_PER_BATCH = 16


def is_of_episodes(schema: pa.Schema) -> bool:
    """Whether a Parquet file holds packed episodes: one column, of bytes."""
    kinds = [field.type for field in schema]
    return len(kinds) == 1 and (pa.types.is_binary(kinds[0]) or pa.types.is_large_binary(kinds[0]))


def describe_files(spec: str, files: tuple[SourceFile, ...], chosen: Mapping[str, str]) -> Source:
    """Open files of packed episodes by unpacking them once, to count their rows.

    Raises:
        ValueError: a column mapping, a file of another kind, or an episode that cannot be unpacked.
    """
    if chosen:
        raise ValueError(
            f"source '{spec}': RLlib's episodes name their own columns, leave --columns out (got {chosen})"
        )
    fragments, first = [], None
    for file in files:
        num_rows = num_episodes = 0
        for columns in _episodes(str(file)):
            first = first or columns
            num_episodes += 1
            num_rows += len(columns["rewards"])
        fragments.append(Fragment(path=str(file), start=0, stop=num_episodes, first_row=0, num_rows=num_rows))
    if first is None:
        raise ValueError(f"source '{spec}' has zero rows; expected at least one transition")
    headers = {name: (values.dtype, values.shape) for name, values in first.items()}
    layout = layout_from_headers(spec, {name: (name,) for name in CANONICAL}, headers)
    return Source(spec=spec, layout=layout, fragments=tuple(fragments), files=files, read_fragment=read)


def read(fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
    """The file's episodes, some whole ones in a table."""
    return tables_from_blocks(gathered(_episodes(fragment.path)), layout, fragment)


def _episodes(path: str) -> Iterator[Block]:
    """Each chunk of an episode as canonical columns."""
    import msgpack  # Ray's, so it is there

    number = 0
    with naming(path, known_by=path), pq.ParquetFile(openable(path), page_checksum_verification=True) as file:
        if not is_of_episodes(file.schema_arrow):
            raise ValueError(f"{path} has columns {file.schema_arrow.names}, expected one of packed episodes")
        for batch in file.iter_batches(EPISODES_PER_BATCH, use_threads=False):
            for packed in batch.column(0):
                with naming(f"episode {number} of {path}", known_by=path):
                    yield _columns(msgpack.unpackb(packed.as_py(), object_hook=_decoded, strict_map_key=False))
                number += 1


def _columns(state: Mapping[str, Any]) -> Block:
    """A chunk's rows.

    Raises:
        ValueError: no rows, or not one observation more than actions.
    """
    observations = _after_lookback(state["observations"])
    actions, rewards = _after_lookback(state["actions"]), _after_lookback(state["rewards"])
    num_rows = len(rewards)
    if num_rows == 0 or len(actions) != num_rows or len(observations) != num_rows + 1:
        raise ValueError(
            f"it has {len(observations)} observations, {len(actions)} actions and {num_rows} rewards; expected at least"
            " one reward, as many actions, and one observation more"
        )
    is_last = np.arange(num_rows) == num_rows - 1
    return {
        "observations": observations[:-1],
        "actions": actions,
        "rewards": rewards,
        "next_observations": observations[1:],
        "terminations": is_last & bool(state["is_terminated"]),
        "truncations": is_last & bool(state["is_truncated"]),
        "episode": np.full(num_rows, str(state["id_"])),
    }


def _after_lookback(buffer: Mapping[str, Any]) -> np.ndarray:
    """A buffer's own values, without those of the chunk before."""
    values = np.asarray(buffer["data"])
    if values.dtype.kind == "O":
        raise ValueError("its observations or actions are nested or ragged; expected one vector or number a step")
    return values[int(buffer["lookback"]) :]


def _decoded(entry: dict[Any, Any]) -> Any:
    """msgpack_numpy's form of an array or a number as numpy's; objects, which it pickles, are dropped."""
    if b"nd" not in entry and "nd" not in entry:
        return entry
    fields = {name.decode() if isinstance(name, bytes) else name: value for name, value in entry.items()}
    if fields.get("kind") in (b"O", "O", b"V", "V"):
        return None
    values = np.frombuffer(fields["data"], np.dtype(fields["type"]))
    return values.reshape(fields["shape"]) if fields["nd"] else values[0]
