"""Two small episodes that a reader can hold in mind, in every format that is read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iql_ray.data.actions import resolve_actions
from iql_ray.data.prepared import Manifest, shard_paths
from iql_ray.data.sources import Source, open_source
from iql_ray.data.writing import WritingPlan, write_dataset
from iql_ray.experience import Spaces

DATA_FILES = Path(__file__).parents[1] / "data_files"
CARTPOLE_COLUMNS = {
    "observations": "obs",
    "next_observations": "new_obs",
    "terminations": "dones",
    "episode": "eps_id",
}
TERMINAL = np.array([False, False, True, False, False])
CUT = np.array([False, False, False, False, True])


def example() -> dict[str, np.ndarray]:
    """Rows 0-2 are an episode that terminates, rows 3-4 one that is cut; returns 6 and 9."""
    return {
        "observations": np.array([[0, 0], [1, 10], [2, 20], [10, 0], [11, 10]], np.float32),
        "actions": np.array([[-1.0], [-0.5], [0.0], [0.5], [1.0]], np.float32),
        "rewards": np.array([1, 2, 3, 4, 5], np.float32),
        "next_observations": np.array([[1, 10], [2, 20], [3, 30], [11, 10], [12, 20]], np.float32),
        "terminations": TERMINAL,
        "truncations": CUT,
    }


def changed(**columns: object) -> dict[str, np.ndarray]:
    """The example with columns replaced, or left out where None."""
    values = {**example(), **columns}
    return {name: np.asarray(column) for name, column in values.items() if column is not None}


def with_value(column: str, row: int, value: float) -> dict[str, np.ndarray]:
    """The example with one value of a column replaced (the last element of a vector)."""
    values = example()
    values[column].reshape(5, -1)[row, -1] = value
    return values


def write_npz(path: Path, columns: dict[str, np.ndarray]) -> str:
    np.savez_compressed(path, **columns)  # pyright: ignore[reportArgumentType]
    return f"npz:{path}"


def write_hdf5(path: Path, columns: dict[str, np.ndarray]) -> str:
    names = {"terminations": "terminals", "truncations": "timeouts"}
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file.create_dataset(names.get(name, name), data=values)
    return f"hdf5:{path}"


def parquet_table(columns: dict[str, np.ndarray]) -> pa.Table:
    """Vectors as lists of doubles, as most writers leave them."""
    lists = {name: values.astype(float).tolist() for name, values in columns.items() if values.ndim > 1}
    return pa.table({name: pa.array(lists.get(name, values)) for name, values in columns.items()})


def write_parquet(folder: Path, columns: dict[str, np.ndarray], rows_per_file: int = 2) -> str:
    """Several files, so that an episode crosses from one into the next."""
    folder.mkdir()
    table = parquet_table(columns)
    for index, start in enumerate(range(0, table.num_rows, rows_per_file)):
        pq.write_table(table.slice(start, rows_per_file), folder / f"part-{index}.parquet")
    return f"parquet:{folder}"


def write_minari(name: str, columns: dict[str, np.ndarray], actions: gymnasium.Space | None = None) -> str:
    """A local Minari dataset under `MINARI_DATASETS_PATH`, episodes as the flags say."""
    import minari
    from minari.data_collector import EpisodeBuffer

    ends = np.flatnonzero(columns["terminations"] | columns["truncations"]) + 1
    buffer: Any = EpisodeBuffer  # it says lists, and takes arrays
    buffers = [
        buffer(
            observations=np.concatenate(
                [columns["observations"][start:stop], columns["next_observations"][stop - 1 : stop]]
            ),
            actions=columns["actions"][start:stop],
            rewards=columns["rewards"][start:stop],
            terminations=columns["terminations"][start:stop],
            truncations=columns["truncations"][start:stop],
        )
        for start, stop in zip(np.append(0, ends), ends, strict=False)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Minari asks for an author, an e-mail address, a permalink
        minari.create_dataset_from_buffers(
            name,
            buffers,
            observation_space=gymnasium.spaces.Box(-100, 100, (2,), np.float32),
            action_space=actions or gymnasium.spaces.Box(-1, 1, (1,), np.float32),
            author="A. Tester",
        )
    return f"minari:{name}"


def overwrite(path: Path, old: bytes, new: bytes) -> None:
    """Damage a file: the first `old` becomes `new`, of the same length."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def tables_of(source: Source) -> Iterator[pa.Table]:
    """The source's tables in order, read in this process."""
    for fragment in source.fragments:
        yield from source.read(fragment)


def prepare_here(
    spec: str,
    out: Path,
    columns: dict[str, str] | None = None,
    environment: Spaces | None = None,
    bounds: tuple[float, float] | None = None,
    **options: object,
) -> Manifest:
    """Prepare without Ray."""
    source = open_source(spec, columns)
    actions = resolve_actions(source.layout, source.recorded.spaces, environment, bounds)
    plan = WritingPlan(source=source, actions=actions, destination=out, action_bounds=bounds, **options)  # pyright: ignore
    return write_dataset(tables_of(source), plan)


def read_rows(folder: Path) -> list[dict]:
    """All prepared rows in the order of their episodes."""
    rows = pa.concat_tables([pq.read_table(path) for path in shard_paths(folder)])
    return rows.sort_by([("episode", "ascending"), ("step", "ascending")]).to_pylist()
