"""OGBench's npz files, whose `terminals` mark where a trajectory was cut, not where the task ended.

A file as downloaded holds one row more than a trajectory has transitions: the last observation, whose action leads
nowhere. OGBench's own loader turns it into one of two forms, and all three are read here:

    file      s0 s1 s2 s3      terminals 0 0 0 1      the last row has no next observation: it goes when rows are linked
    compact   s0 s1 s2 s3      terminals 0 0 1 1      valids 1 1 1 0; as the file, with the dummy row marked by valids
    regular   s0 s1 s2         terminals 0 0 1        next_observations s1 s2 s3

The task's end is in `masks` (0 where the goal of a single-task variant is reached: no bootstrap). Without them nothing
ever terminates. A file as downloaded has no rewards; those of a single-task variant come from OGBench's environment.
Source: seohongpark/ogbench, `ogbench/utils.py` and `relabel_utils.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from iql_ray.data.sources.columns import CANONICAL, layout_from_headers, refuse_time, resolve_columns, row_count
from iql_ray.data.sources.files import existing_file
from iql_ray.data.sources.npz import array_headers, read_arrays
from iql_ray.data.sources.source import NEVER, Fragment, Layout, Recorded, Source
from iql_ray.data.sources.tables import Block, NameRow, flags, tables_from_blocks

NAMES = {
    "observations": CANONICAL["observations"],
    "actions": CANONICAL["actions"],
    "rewards": CANONICAL["rewards"],
    "next_observations": CANONICAL["next_observations"],
    "terminations": ("masks",),
    "truncations": ("valids", "terminals"),
}
INVERTED = ("masks", "valids")
"""1 where nothing ends, 0 where something does."""


def describe(spec: str, location: str, chosen: dict[str, str]) -> Source:
    """Open an OGBench file by its arrays' headers.

    Raises:
        ValueError: not an npz file, a damaged one, or an array is missing or of the wrong kind.
    """
    refuse_time(spec, chosen)
    file = existing_file("ogbench", location)
    headers = array_headers(spec, str(file))
    if "rewards" not in headers and "rewards" not in chosen:
        raise ValueError(_no_rewards(spec, list(headers)))
    never = {} if "masks" in headers else {"terminations": "never"}
    columns = resolve_columns(spec, headers, {**never, **chosen}, NAMES)
    if columns.get("truncations", (NEVER,)) == (NEVER,):
        raise ValueError(
            f"source '{spec}' has no terminals, which mark where OGBench's trajectories end; check the file"
        )
    num_rows = row_count(spec, columns, headers)
    form = "regular" if "next_observations" in columns else "compact" if "valids" in headers else "file"
    return Source(
        spec=spec,
        layout=layout_from_headers(spec, columns, headers, success=() if never else ("masks",)),
        fragments=(Fragment(path=str(file), start=0, stop=num_rows, first_row=0, num_rows=num_rows),),
        files=(file,),
        read_fragment=read,
        recorded=Recorded(details={"ogbench_form": form}),
    )


def read(fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
    """The whole file, a table at a time."""
    return tables_from_blocks(_with_ends(fragment, layout), layout, fragment)


def _with_ends(fragment: Fragment, layout: Layout) -> Iterator[Block]:
    """Blocks in which masks say where the task ends, and terminals or valids where a trajectory is cut."""
    start = 0
    for block in read_arrays(fragment, layout.own_columns):
        yield {**block, **_ends(block, layout, lambda row, start=start: fragment.name_row(start + row))}
        start += len(block[layout.columns["observations"][0]])


def _ends(block: Block, layout: Layout, name_row: NameRow) -> Block:
    """The block's flags as the canonical ones: a row ends its episode in one way, and a dummy row always by a cut."""
    ends = {}
    for canonical in ("terminations", "truncations"):
        (name,) = layout.columns[canonical]
        if name != NEVER:
            given = flags(name, block[name].reshape(-1), name_row)
            ends[name] = ~given if name in INVERTED else given
    if "masks" in ends:
        (cut,) = layout.columns["truncations"]
        if layout.has_next_observations:
            ends[cut] = ends[cut] & ~ends["masks"]
        else:
            ends["masks"] = ends["masks"] & ~ends[cut]
    return ends


def _no_rewards(spec: str, available: list[str]) -> str:
    return (
        f"source '{spec}' has no rewards; it has {', '.join(sorted(available))}. OGBench's files have none: those of a"
        " single-task variant come from its environment. Load it with ogbench.make_env_and_datasets("
        "'...-singletask-v0'), and save the arrays of the training set with numpy.savez"
    )
