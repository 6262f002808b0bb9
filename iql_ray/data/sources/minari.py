"""Local Minari datasets, by id or by path; nothing is downloaded. Box or discrete actions, any numeric observations.

An episode holds one observation more than it has actions, so that every row has its own next observation. Dict and
nested observations become one vector (`flattening.py`), whose order is recorded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iql_ray.data.sources.columns import CANONICAL, EXTRA
from iql_ray.data.sources.files import is_uri, naming
from iql_ray.data.sources.flattening import Leaf, flatten, leaves, selected
from iql_ray.data.sources.source import ROWS_PER_TABLE, Fragment, Layout, Recorded, Source
from iql_ray.data.sources.tables import Block, gathered, tables_from_blocks
from iql_ray.experience import Spaces

if TYPE_CHECKING:
    from minari import EpisodeData, MinariDataset

ROWS_PER_FRAGMENT = 4 * ROWS_PER_TABLE
HDF5_FILE = "main_data.hdf5"
DETAILS = ("dataset_id", "minari_version", "algorithm_name", "author", "code_permalink", "description")
ORDER = "observation_order"
"""The detail that says, of observations with names, which they are and in which order they stand in the vector."""


def describe(spec: str, location: str, chosen: dict[str, str]) -> Source:
    """Open a Minari dataset by its metadata, and its first episode, which tells whether it records success.

    Args:
        chosen: `observations` may name parts of a dict space, in the wanted order: observation,desired_goal.

    Raises:
        ValueError: there is no such local dataset, its spaces cannot be made vectors, or an episode is empty.
    """
    if others := sorted(set(chosen) - {"observations"}):
        raise ValueError(
            f"source '{spec}': Minari names its own columns, leave {', '.join(others)} out of --columns; only the parts"
            " of dict observations can be chosen, with observations=NAME,NAME"
        )
    folder = data_folder(spec, location)
    with naming(f"source '{spec}': {folder}, as a Minari dataset,", known_by=spec):
        dataset = _load(folder)
        parts = _parts(spec, dataset.observation_space, chosen)
        fragments = tuple(_fragments(spec, folder, dataset))
        success = _success_info(dataset) if fragments else ()
        layout = flat_layout(spec, parts, dataset.action_space, success)
        recorded = _recorded(dataset, layout, parts)
    return Source(
        spec=spec,
        layout=layout,
        fragments=fragments,
        files=tuple(sorted(file for file in folder.rglob("*") if file.is_file())),
        read_fragment=partial(read, tuple(parts)),
        recorded=recorded,
    )


def data_folder(spec: str, location: str) -> Path:
    """The folder that holds a local dataset's metadata: a path, or an id under Minari's own root.

    Raises:
        ValueError: neither exists.
    """
    if is_uri(location):
        raise ValueError(
            f"source '{spec}': Minari reads this machine's files only; copy the dataset's folder here first"
        )
    root = Path(os.environ.get("MINARI_DATASETS_PATH", "~/.minari/datasets")).expanduser()
    candidates = [Path(location).expanduser(), root / location]
    for folder in [inner for candidate in candidates for inner in (candidate / "data", candidate)]:
        if (folder / "metadata.json").is_file():
            return folder
    here = sorted(str(path.relative_to(root).parents[1]) for path in root.glob("**/data/metadata.json"))
    raise ValueError(
        f"source '{spec}': no local Minari dataset at {' or '.join(map(str, candidates))};"
        f" nothing is downloaded here, fetch it first with: minari download {location}"
        f"{'; there are ' + ', '.join(here) if here else ''}"
    )


def _parts(spec: str, observation_space: Any, chosen: dict[str, str]) -> list[Leaf]:
    try:
        parts = leaves(observation_space)
        return selected(parts, chosen["observations"]) if "observations" in chosen else parts
    except ValueError as error:
        raise ValueError(f"source '{spec}': observations are {error}") from error


def flat_layout(spec: str, parts: Sequence[Leaf], action_space: Any, success: tuple[str, ...] = ()) -> Layout:
    """The layout of observations in these parts, and of an action space.

    Raises:
        ValueError: the actions are neither a flat box nor discrete from 0.
    """
    from gymnasium.spaces import Box, Discrete

    is_discrete = isinstance(action_space, Discrete) and action_space.start == 0
    shape = (1,) if is_discrete else (action_space.shape or ()) if isinstance(action_space, Box) else ()
    if len(shape) != 1:
        raise ValueError(f"source '{spec}': actions are {action_space}, expected a flat Box or Discrete from 0")
    return Layout(
        observation_dim=sum(part.width for part in parts),
        action_dim=shape[0],
        is_discrete=is_discrete,
        columns={name: (name,) for name in CANONICAL},
        success=success,
    )


def read(parts: tuple[Leaf, ...], fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
    """The fragment's episodes, some whole ones in a table."""
    return tables_from_blocks(gathered(_blocks(parts, fragment, layout)), layout, fragment)


def _blocks(parts: tuple[Leaf, ...], fragment: Fragment, layout: Layout) -> Iterator[Block]:
    success = layout.columns.get("success", ())
    with naming(fragment.path, known_by=fragment.path):
        for episode in _episodes(_load(Path(fragment.path)), range(fragment.start, fragment.stop)):
            try:
                yield _columns(parts, episode, success)
            except (ValueError, LookupError) as error:
                raise ValueError(f"episode {episode.id} of {fragment.path}: {error}") from error


def _episodes(dataset: MinariDataset, indices: range) -> Iterator[EpisodeData]:
    """Whole episodes, none of which makes Minari read millions of rows that a damaged header promises."""
    path = Path(dataset.storage.data_path) / HDF5_FILE
    if path.is_file():
        _check_lengths(path, indices)
    yield from dataset.iterate_episodes(indices)


def _check_lengths(path: Path, indices: range) -> None:
    import h5py

    with h5py.File(path, "r") as file:
        for index in indices:
            episode: Any = file[f"episode_{index}"]
            limit = 2 * (int(episode.attrs["total_steps"]) + 1)
            longest = _longest(episode)
            if longest > limit:
                raise ValueError(f"episode {index} of {path.parent} holds {longest} values where {limit} are many")


def _longest(group: Any) -> int:
    """The most rows of any dataset in an HDF5 group."""
    longest = 0
    for item in group.values():
        is_group = not hasattr(item, "shape")
        longest = max(longest, _longest(item) if is_group else item.shape[0] if item.shape else 0)
    return longest


def _columns(parts: tuple[Leaf, ...], episode: EpisodeData, success: tuple[str, ...]) -> Block:
    """One episode with its observations shifted against each other.

    Raises:
        ValueError: not one observation more than actions, or what else does not fit together.
    """
    num_steps = len(episode.rewards)
    observations = flatten(parts, episode.observations)
    lengths = {
        "observations": len(observations) - 1,
        **{name: len(getattr(episode, name)) for name in ("actions", "terminations", "truncations")},
    }
    for name, length in lengths.items():
        if length != num_steps:
            raise ValueError(f"{name} are {length} steps long, its rewards {num_steps}; expected one length")
    return {
        "observations": observations[:-1],
        "actions": episode.actions,
        "rewards": episode.rewards,
        "next_observations": observations[1:],
        "terminations": episode.terminations,
        "truncations": episode.truncations,
        "episode": np.full(num_steps, episode.id),
        **{name: _info(episode, name) for name in success},
    }


def _info(episode: EpisodeData, name: str) -> np.ndarray:
    """(steps,) of an info: of what each step led to, without what the reset said."""
    values, num_steps = np.asarray(episode.infos[name]), len(episode.rewards)
    if len(values) not in (num_steps, num_steps + 1):
        raise ValueError(f"info {name} has {len(values)} values for {num_steps} steps; expected one a step")
    return values[-num_steps:]


def _success_info(dataset: MinariDataset) -> tuple[str, ...]:
    """The info that says that the task is solved, if there is one."""
    infos = next(_episodes(dataset, range(1))).infos or {}
    return tuple(name for name in EXTRA["success"] if name in infos)[:1]


def _load(folder: Path) -> MinariDataset:
    from minari import MinariDataset

    return MinariDataset(folder)


def _fragments(spec: str, folder: Path, dataset: MinariDataset) -> Iterator[Fragment]:
    """Runs of whole episodes of about `ROWS_PER_FRAGMENT` rows."""
    metadata = dataset.storage.get_episode_metadata(range(dataset.total_episodes))
    lengths = [int(episode["total_steps"]) for episode in metadata]
    if not all(length > 0 for length in lengths):
        episode = next(index for index, length in enumerate(lengths) if length <= 0)
        raise ValueError(f"source '{spec}': episode {episode} of {folder} has no steps; leave it out of the dataset")
    first_rows = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    start = 0
    while start < len(lengths):
        stop = int(np.searchsorted(first_rows, first_rows[start] + ROWS_PER_FRAGMENT, side="left"))
        stop = min(max(stop, start + 1), len(lengths))
        first_row = int(first_rows[start])
        num_rows = int(first_rows[stop]) - first_row
        yield Fragment(path=str(folder), start=start, stop=stop, first_row=first_row, num_rows=num_rows)
        start = stop


def _recorded(dataset: MinariDataset, layout: Layout, parts: Sequence[Leaf]) -> Recorded:
    """What the metadata says; a box without finite bounds says nothing about the actions' scale."""
    metadata, space = dataset.storage.metadata, dataset.action_space
    details = {name: metadata[name] for name in DETAILS if metadata.get(name)}
    texts = {name: value if isinstance(value, str) else ", ".join(sorted(value)) for name, value in details.items()}
    named = [part for part in parts if part.keys]
    order = {ORDER: ", ".join(part.name for part in named)} if named else {}
    return Recorded(
        spaces=_spaces(space, layout) if layout.is_discrete or space.is_bounded() else None,
        environment_id=dataset.env_spec.id if dataset.env_spec else None,
        licence=metadata.get("license") or metadata.get("licence"),
        details={**texts, **order},
        observation_parts=tuple(part.described() for part in named),
    )


def _spaces(action_space: Any, layout: Layout) -> Spaces:
    if layout.is_discrete:
        return Spaces(observation_dim=layout.observation_dim, action_dim=1, num_actions=int(action_space.n))
    return Spaces(
        observation_dim=layout.observation_dim,
        action_dim=layout.action_dim,
        action_low=tuple(map(float, action_space.low)),
        action_high=tuple(map(float, action_space.high)),
    )
