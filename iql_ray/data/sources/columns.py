"""Which of a source's own columns fill the canonical ones, and how wide they are: names and headers, no values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from iql_ray.data.sources.source import DERIVED, NEVER, WHERE_TIME_RESTARTS, Layout

Names = Mapping[str, tuple[str, ...]]
"""Each canonical column and the names under which it is found without a mapping, first match first."""

CANONICAL: Names = {
    "observations": ("observations",),
    "actions": ("actions",),
    "rewards": ("rewards",),
    "next_observations": ("next_observations",),
    "terminations": ("terminations", "terminals"),
    "truncations": ("truncations", "timeouts"),
    "episode": ("episode",),
}

EXTRA: Names = {
    "time": (),
    "success": ("success", "is_success", "goal_achieved", "infos/success", "infos/is_success", "infos/goal_achieved"),
}
"""Columns that may be named beside the canonical ones: times, which order the rows and tell episodes apart, and where
the task is solved. Neither is stored."""

REQUIRED = ("observations", "actions", "rewards", "terminations")

NEVER_WORD = "never"
"""`--columns terminations=never`: no episode of these logs ends by the task itself."""

MAX_WIDTH = 100_000
"""Numbers in one row of a column; more is an image or a damaged header, and no vector."""

Headers = Mapping[str, tuple[np.dtype, tuple[int, ...]]]
"""A source's own column name to its dtype and whole shape, rows first."""


def parse_columns(pairs: Sequence[str]) -> dict[str, str]:
    """`["observations=obs", "episode=eps_id"]` as a mapping from canonical to source names.

    Raises:
        ValueError: a pair is not KEY=VALUE, or a key comes twice.
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        name, separator, column = pair.partition("=")
        if not (name and separator and column):
            raise ValueError(f"--columns: got '{pair}', expected CANONICAL=THEIRS, e.g. observations=obs")
        if name in mapping:
            raise ValueError(f"--columns: {name} is given twice, as {mapping[name]} and as {column}; give it once")
        mapping[name] = column
    return mapping


def resolve_columns(
    spec: str, available: Iterable[str], chosen: Mapping[str, str], names: Names = CANONICAL
) -> dict[str, tuple[str, ...]]:
    """Which of the source's columns fill each canonical column.

    Args:
        available: the source's own column names.
        chosen: the user's mapping; a value may be several scalar columns joined by commas, and the flags may be
            `never`.
        names: the format's own names for the canonical columns.

    Raises:
        ValueError: a required or chosen column is missing; names what there is.
    """
    found = {name: _group(spec, name, sorted(available), chosen, defaults) for name, defaults in names.items()}
    for name in REQUIRED:
        if not found[name]:
            raise ValueError(_missing(spec, name, names[name], sorted(available)))
    if "time" in chosen and not found["episode"]:
        found["episode"] = (WHERE_TIME_RESTARTS,)
    return {name: group for name, group in found.items() if group}


def resolve_extra(
    spec: str, name: str, available: Iterable[str], chosen: Mapping[str, str], defaults: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """The one column that holds the times or the successes; empty if there is none.

    Raises:
        ValueError: the chosen column is missing, or several were chosen.
    """
    group = _group(spec, name, sorted(available), chosen, EXTRA[name] if defaults is None else defaults)
    if len(group) > 1:
        raise ValueError(f"source '{spec}': {name} is one column, got {len(group)}: {', '.join(group)}; name one")
    return group


def _group(
    spec: str, canonical: str, available: list[str], chosen: Mapping[str, str], defaults: tuple[str, ...]
) -> tuple[str, ...]:
    """The columns of one canonical name: the user's choice, else the first default that is there."""
    if canonical not in chosen:
        return tuple(name for name in defaults if name in available)[:1]
    wanted = chosen[canonical]
    if wanted in available:
        return (wanted,)
    if wanted == NEVER_WORD and canonical in ("terminations", "truncations"):
        return (NEVER,)
    group = tuple(wanted.split(","))
    for name in group:
        if name not in available:
            raise ValueError(
                f"source '{spec}' has no column '{name}' for {canonical}; it has {', '.join(available)};"
                f" name the right one with --columns {canonical}=NAME"
            )
    return group


def _missing(spec: str, canonical: str, defaults: tuple[str, ...], available: list[str]) -> str:
    never = f", or --columns {canonical}={NEVER_WORD} if nothing here ever ends by the task itself"
    return (
        f"source '{spec}' has no column {' or '.join(defaults)}; it has {', '.join(available)};"
        f" name the one that holds the {canonical} with --columns {canonical}=NAME"
        f"{never if canonical == 'terminations' else ''}"
    )


def refuse_time(spec: str, chosen: Mapping[str, str]) -> None:
    """For the formats whose rows are in order by their own convention.

    Raises:
        ValueError: a column of times was named.
    """
    if "time" in chosen:
        raise ValueError(
            f"source '{spec}': --columns time={chosen['time']} goes with parquet: and csv:; leave it out here, and say"
            " where episodes end with terminations, truncations or episode"
        )


def row_count(spec: str, columns: Mapping[str, tuple[str, ...]], headers: Headers) -> int:
    """The number of rows that all used columns share.

    Raises:
        ValueError: they differ.
    """
    names = [name for group in columns.values() for name in group if name not in DERIVED]
    lengths = {name: headers[name][1][0] if headers[name][1] else 0 for name in names}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"source '{spec}': columns have different numbers of rows, {lengths}; expected one number")
    return next(iter(lengths.values()))


def layout_from_headers(
    spec: str,
    columns: dict[str, tuple[str, ...]],
    headers: Headers,
    *,
    success: tuple[str, ...] = (),
    time: tuple[str, ...] = (),
) -> Layout:
    """The layout of a source whose every column declares its dtype and shape.

    Raises:
        ValueError: a column is not numeric, or a row of it is no flat vector of the expected width.
    """
    widths = {canonical: _width(spec, canonical, group, headers) for canonical, group in columns.items()}
    for canonical, width in widths.items():
        expected = widths["observations"] if canonical == "next_observations" else 1
        if canonical not in ("observations", "actions") and width != expected:
            raise ValueError(
                f"source '{spec}': {canonical} has {width} numbers a row, expected {expected}; check --columns"
            )
    action_dtype = headers[columns["actions"][0]][0]
    return Layout(
        observation_dim=widths["observations"],
        action_dim=widths["actions"],
        is_discrete=widths["actions"] == 1 and action_dtype.kind in "iu",
        columns=columns,
        success=success,
        time=time,
    )


def _width(spec: str, canonical: str, group: tuple[str, ...], headers: Headers) -> int:
    """How many numbers a row of a canonical column has."""
    width = 0
    for name in group:
        dtype, shape = headers.get(name, (np.dtype(bool), (0,)))  # a derived column has no header, and is one flag
        if len(shape) > 2:
            raise ValueError(
                f"source '{spec}': column {name} has rows of shape {shape[1:]}, expected flat vectors for {canonical}"
            )
        if dtype.kind not in ("biufSUO" if canonical == "episode" else "biuf"):
            raise ValueError(f"source '{spec}': column {name} has dtype {dtype}, expected numbers for {canonical}")
        width += shape[1] if len(shape) == 2 else 1
    if not 1 <= width <= MAX_WIDTH:
        raise ValueError(f"source '{spec}': {canonical} has {width} numbers a row, expected 1 to {MAX_WIDTH}")
    return width
