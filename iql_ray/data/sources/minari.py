"""Local Minari datasets, by id or by path; nothing is downloaded. Flat boxes of observations, box or discrete actions.

An episode holds one observation more than it has actions, so that every row has its own next observation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iql_ray.data.sources.columns import CANONICAL, canonical_table
from iql_ray.data.sources.source import ROWS_PER_TABLE, Fragment, Layout, Recorded, Source
from iql_ray.experience import Spaces

if TYPE_CHECKING:
    from minari import EpisodeData, MinariDataset

ROWS_PER_FRAGMENT = 4 * ROWS_PER_TABLE
DETAILS = ("dataset_id", "minari_version", "algorithm_name", "author", "code_permalink", "description")


def describe(spec: str, location: str, chosen: dict[str, str]) -> Source:
    """Open a Minari dataset by its metadata.

    Raises:
        ValueError: there is no such local dataset, or its spaces are not flat.
    """
    if chosen:
        raise ValueError(f"source '{spec}': Minari names its own columns, leave --columns out (got {chosen})")
    folder = data_folder(spec, location)
    dataset = _load(spec, folder)
    layout = flat_layout(spec, dataset.observation_space, dataset.action_space)
    return Source(
        spec=spec,
        layout=layout,
        fragments=tuple(_fragments(folder, dataset)),
        files=tuple(sorted(file for file in folder.rglob("*") if file.is_file())),
        read_fragment=read,
        recorded=_recorded(dataset, layout),
    )


def data_folder(spec: str, location: str) -> Path:
    """The folder that holds a local dataset's metadata: a path, or an id under Minari's own root.

    Raises:
        ValueError: neither exists.
    """
    root = Path(os.environ.get("MINARI_DATASETS_PATH", "~/.minari/datasets")).expanduser()
    candidates = [Path(location).expanduser(), root / location]
    for folder in [inner for candidate in candidates for inner in (candidate / "data", candidate)]:
        if (folder / "metadata.json").is_file():
            return folder
    raise ValueError(
        f"source '{spec}': no local Minari dataset at {' or '.join(map(str, candidates))};"
        f" nothing is downloaded here, fetch it first with: minari download {location}"
    )


def flat_layout(spec: str, observation_space: Any, action_space: Any) -> Layout:
    """The layout of a pair of gymnasium spaces.

    Raises:
        ValueError: the observations are no flat box, or the actions neither a flat box nor discrete from 0.
    """
    from gymnasium.spaces import Discrete

    observation_dim = _flat_width(observation_space)
    if observation_dim is None:
        raise ValueError(f"source '{spec}': observations are {observation_space}, expected a flat Box of numbers")
    is_discrete = isinstance(action_space, Discrete) and action_space.start == 0
    action_dim = 1 if is_discrete else _flat_width(action_space)
    if action_dim is None:
        raise ValueError(f"source '{spec}': actions are {action_space}, expected a flat Box or Discrete from 0")
    return Layout(
        observation_dim=observation_dim,
        action_dim=action_dim,
        is_discrete=is_discrete,
        columns={name: (name,) for name in CANONICAL},
    )


def _flat_width(space: Any) -> int | None:
    """The length of a flat box, None for any other space."""
    from gymnasium.spaces import Box

    return space.shape[0] if isinstance(space, Box) and len(space.shape) == 1 else None


def read(fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
    """The fragment's episodes, some whole ones in a table."""
    from minari import MinariDataset

    dataset = MinariDataset(fragment.path)
    held: list[dict[str, np.ndarray]] = []
    start = 0
    for episode in dataset.iterate_episodes(range(fragment.start, fragment.stop)):
        held.append(_columns(episode))
        num_held = sum(len(columns["rewards"]) for columns in held)
        if num_held >= ROWS_PER_TABLE or episode.id == fragment.stop - 1:
            values = {name: np.concatenate([columns[name] for columns in held]) for name in CANONICAL}
            yield canonical_table(values, layout, lambda row, start=start: fragment.name_row(start + row))
            held, start = [], start + num_held


def _columns(episode: EpisodeData) -> dict[str, np.ndarray]:
    """One episode with its observations shifted against each other."""
    return {
        "observations": episode.observations[:-1],
        "actions": episode.actions,
        "rewards": episode.rewards,
        "next_observations": episode.observations[1:],
        "terminations": episode.terminations,
        "truncations": episode.truncations,
        "episode": np.full(len(episode.rewards), episode.id),
    }


def _load(spec: str, folder: Path) -> MinariDataset:
    from minari import MinariDataset

    try:
        return MinariDataset(folder)
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"source '{spec}': {folder} is no readable Minari dataset: {error}") from error


def _fragments(folder: Path, dataset: MinariDataset) -> Iterator[Fragment]:
    """Runs of whole episodes of about `ROWS_PER_FRAGMENT` rows."""
    metadata = dataset.storage.get_episode_metadata(range(dataset.total_episodes))
    lengths = [int(episode["total_steps"]) for episode in metadata]
    first_rows = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    start = 0
    while start < len(lengths):
        stop = int(np.searchsorted(first_rows, first_rows[start] + ROWS_PER_FRAGMENT, side="left"))
        stop = min(max(stop, start + 1), len(lengths))
        first_row = int(first_rows[start])
        num_rows = int(first_rows[stop]) - first_row
        yield Fragment(path=str(folder), start=start, stop=stop, first_row=first_row, num_rows=num_rows)
        start = stop


def _recorded(dataset: MinariDataset, layout: Layout) -> Recorded:
    """What the metadata says; a box without finite bounds says nothing about the actions' scale."""
    metadata, space = dataset.storage.metadata, dataset.action_space
    details = {name: metadata[name] for name in DETAILS if metadata.get(name)}
    texts = {name: value if isinstance(value, str) else ", ".join(sorted(value)) for name, value in details.items()}
    return Recorded(
        spaces=_spaces(space, layout) if layout.is_discrete or space.is_bounded() else None,
        environment_id=dataset.env_spec.id if dataset.env_spec else None,
        licence=metadata.get("license") or metadata.get("licence"),
        details=texts,
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
