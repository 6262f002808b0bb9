"""One set of episodes, larger than `examples.example`, written in every format that is read."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Columns = dict[str, np.ndarray]
LENGTHS = (17, 1, 22)
TERMINATED = (True, False, True)


def episodes(*, is_discrete: bool = False, terminates: bool = True) -> Columns:
    """Three episodes of 17, 1 and 22 steps of a random walk; the first and last terminate if any does."""
    rng = np.random.default_rng(4)
    num_rows, stops = sum(LENGTHS), np.cumsum(LENGTHS)
    observations = rng.normal(size=(num_rows, 3)).astype(np.float32)
    next_observations = np.roll(observations, -1, axis=0)
    next_observations[stops - 1] = rng.normal(size=(len(stops), 3))
    is_end, terminated = np.zeros(num_rows, bool), np.zeros(num_rows, bool)
    is_end[stops - 1], terminated[stops - 1] = True, TERMINATED
    choices = rng.integers(0, 3, num_rows)
    choices[0] = 2
    return {
        "observations": observations,
        "actions": choices if is_discrete else rng.uniform(-1, 1, (num_rows, 2)).astype(np.float32),
        "rewards": rng.normal(size=num_rows).astype(np.float32),
        "next_observations": next_observations,
        "terminations": terminated & terminates,
        "truncations": is_end & ~(terminated & terminates),
        "episode": np.repeat(np.arange(len(LENGTHS)), LENGTHS),
    }


def without(columns: Columns, *names: str) -> Columns:
    return {name: values for name, values in columns.items() if name not in names}


def slices(columns: Columns) -> list[slice]:
    """Where each episode lies."""
    stops = np.flatnonzero(columns["terminations"] | columns["truncations"]) + 1
    return [slice(int(start), int(stop)) for start, stop in zip(np.append(0, stops[:-1]), stops, strict=True)]


def as_npz(folder: Path, columns: Columns) -> str:
    np.savez(folder / "a.npz", **columns)  # pyright: ignore[reportArgumentType]
    return f"npz:{folder / 'a.npz'}"


def as_hdf5(folder: Path, columns: Columns) -> str:
    """D4RL's names, chunked and compressed, with what its files hold besides."""
    names = {"terminations": "terminals", "truncations": "timeouts"}
    with h5py.File(folder / "a.hdf5", "w") as file:
        for name, values in columns.items():
            file.create_dataset(names.get(name, name), data=values, compression="gzip")
        file.create_dataset("infos/qpos", data=np.zeros((len(columns["observations"]), 5)))
        file.create_dataset("infos/goal", data=np.zeros((len(columns["observations"]), 2)))
        file.create_dataset("metadata/algorithm", data=b"SAC")
    return f"hdf5:{folder / 'a.hdf5'}"


def as_parquet(folder: Path, columns: Columns) -> str:
    """Lists of floats, in files that cut episodes in two."""
    arrays = {name: list(values) if values.ndim > 1 else values for name, values in columns.items()}
    table = pa.table({name: pa.array(values) for name, values in arrays.items()})
    for index, start in enumerate(range(0, table.num_rows, 13)):
        pq.write_table(table.slice(start, 13), folder / f"part-{index}.parquet", row_group_size=5)
    return f"parquet:{folder}"


def scalar_columns(columns: Columns) -> tuple[Columns, dict[str, str]]:
    """Vectors cut into columns of numbers, and the mapping that puts them together."""
    flat: Columns = {}
    mapping = {}
    for name, values in columns.items():
        matrix = values.reshape(len(values), -1)
        names = [f"{name}.{index}" for index in range(matrix.shape[1])] if values.ndim > 1 else [name]
        flat |= dict(zip(names, matrix.T, strict=True))
        mapping[name] = ",".join(names)
    return flat, mapping


def csv_text(flat: Mapping[str, np.ndarray]) -> str:
    """The shortest text of each number, which is the float32 it was."""
    texts = (values.tolist() if values.dtype.kind != "f" else map(str, values) for values in flat.values())
    rows = zip(*texts, strict=True)
    return "\n".join([",".join(flat), *(",".join(map(str, row)) for row in rows)]) + "\n"


def as_csv(folder: Path, columns: Columns) -> str:
    """Three files, the last one gzipped."""
    flat, _ = scalar_columns(columns)
    for index, start in enumerate((0, 13, 26)):
        stop = start + 13 if index < 2 else None
        text = csv_text({name: values[start:stop] for name, values in flat.items()}).encode()
        name = f"part-{index}.csv" if index < 2 else f"part-{index}.csv.gz"
        (folder / name).write_bytes(text if index < 2 else gzip.compress(text))
    return f"csv:{folder}"


def as_minari(folder: Path, columns: Columns) -> str:
    """Under `MINARI_DATASETS_PATH`, which a fixture sets."""
    dim = columns["observations"].shape[1]
    is_discrete = columns["actions"].ndim == 1
    actions = gymnasium.spaces.Discrete(3) if is_discrete else gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    buffers = [
        buffer(
            observations=np.concatenate([columns["observations"][rows], columns["next_observations"][rows][-1:]]),
            **{name: columns[name][rows] for name in ("actions", "rewards", "terminations", "truncations")},
        )
        for rows in slices(columns)
    ]
    return create_minari("test/walk-v0", buffers, gymnasium.spaces.Box(-9, 9, (dim,), np.float32), actions)


def buffer(**columns: Any) -> Any:
    from minari.data_collector import EpisodeBuffer

    return EpisodeBuffer(**columns)


def create_minari(name: str, buffers: list[Any], observations: gymnasium.Space, actions: gymnasium.Space) -> str:
    """A local Minari dataset under `MINARI_DATASETS_PATH`."""
    import minari

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Minari asks for an author, an e-mail address, a permalink
        minari.create_dataset_from_buffers(name, buffers, observation_space=observations, action_space=actions)
    return f"minari:{name}"


def as_ogbench_regular(folder: Path, columns: Columns) -> str:
    """What OGBench's loader returns of a single-task variant: everything is float32, masks are 0 at the goal."""
    arrays = {name: columns[name] for name in ("observations", "actions", "rewards", "next_observations")}
    arrays["terminals"] = (columns["terminations"] | columns["truncations"]).astype(np.float32)
    arrays["masks"] = 1 - columns["terminations"].astype(np.float32)
    np.savez_compressed(folder / "a.npz", **arrays)  # pyright: ignore[reportArgumentType]
    return f"ogbench:{folder / 'a.npz'}"


def with_last_observations(columns: Columns) -> Columns:
    """Each episode with one row more, for the observation after its last action; `is_dummy` marks it."""
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in ("observations", "actions", "rewards", "is_dummy")}
    for rows in slices(columns):
        last = columns["next_observations"][rows][-1:]
        pieces["observations"] += [columns["observations"][rows], last]
        pieces["actions"] += [columns["actions"][rows], columns["actions"][rows][-1:]]
        pieces["rewards"] += [columns["rewards"][rows], np.zeros(1, np.float32)]
        pieces["is_dummy"] += [np.zeros(len(columns["rewards"][rows]), bool), np.ones(1, bool)]
    return {name: np.concatenate(parts) for name, parts in pieces.items()}


def as_ogbench_file(folder: Path, columns: Columns) -> str:
    """As downloaded, with rewards: terminals on the dummy row."""
    arrays = with_last_observations(columns)
    terminals = arrays.pop("is_dummy").astype(np.float32)
    np.savez_compressed(folder / "file.npz", terminals=terminals, qpos=np.zeros((len(terminals), 4)), **arrays)  # pyright: ignore[reportArgumentType]
    return f"ogbench:{folder / 'file.npz'}"


def as_ogbench_compact(folder: Path, columns: Columns) -> str:
    """What OGBench's loader returns for `compact_dataset=True`: terminals on the last two rows, valids on the last."""
    arrays = with_last_observations(columns)
    is_dummy = arrays.pop("is_dummy")
    terminals = np.minimum(is_dummy + np.append(is_dummy[1:], 1.0), 1.0).astype(np.float32)
    np.savez(folder / "compact.npz", terminals=terminals, valids=(1 - is_dummy).astype(np.float32), **arrays)  # pyright: ignore[reportArgumentType]
    return f"ogbench:{folder / 'compact.npz'}"


def as_d4rl_without_next(folder: Path, columns: Columns) -> str:
    """A maze's or kitchen's layout: no next observations, (rows, 1) rewards; the time limit cuts at the last row."""
    arrays = with_last_observations(columns)
    with h5py.File(folder / "without-next.hdf5", "w") as file:
        file["timeouts"] = arrays.pop("is_dummy")
        file["terminals"] = np.zeros(len(arrays["rewards"]))
        file["rewards"] = arrays.pop("rewards")[:, None]
        for name, values in arrays.items():
            file[name] = values
    return f"hdf5:{folder / 'without-next.hdf5'}"


RLLIB_NAMES = {
    "observations": "obs",
    "next_observations": "new_obs",
    "terminations": "terminateds",
    "truncations": "truncateds",
    "episode": "eps_id",
}


def as_rllib_json(folder: Path, columns: Columns) -> str:
    """One sample batch a line, as RLlib's JSON writer leaves them: a batch may hold the end of one episode and more."""
    lines = [
        {"type": "SampleBatch"}
        | {RLLIB_NAMES.get(name, name): values[start : start + 9].tolist() for name, values in columns.items()}
        for start in range(0, len(columns["rewards"]), 9)
    ]
    (folder / "output-0.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"rllib:{folder}"


def as_rllib_parquet(folder: Path, columns: Columns) -> str:
    as_parquet(folder, {RLLIB_NAMES.get(name, name): values for name, values in columns.items()})
    return f"rllib:{folder}"


def as_rllib_episodes(folder: Path, columns: Columns) -> str:
    """One packed `SingleAgentEpisode` a row."""
    states = [
        episode_state(
            str(number),
            [*columns["observations"][rows], columns["next_observations"][rows][-1]],
            list(columns["actions"][rows]),
            [float(reward) for reward in columns["rewards"][rows]],
            is_terminated=bool(columns["terminations"][rows][-1]),
        )
        for number, rows in enumerate(slices(columns))
    ]
    write_packed(folder / "episodes.parquet", states)
    return f"rllib:{folder}"


def episode_state(
    name: str, observations: list, actions: list, rewards: list, *, is_terminated: bool, lookback: int = 0
) -> dict[str, Any]:
    """The parts of `SingleAgentEpisode.get_state()` that carry rows, and one that carries Python objects."""
    buffers = {"observations": observations, "actions": actions, "rewards": rewards, "infos": [{}]}
    return {
        "id_": name,
        **{key: {"data": values, "lookback": lookback, "finalized": False} for key, values in buffers.items()},
        "is_terminated": is_terminated,
        "is_truncated": not is_terminated,
    }


def write_packed(path: Path, states: list[dict[str, Any]]) -> None:
    packed = [msgpack.packb(state, default=_as_msgpack_numpy) for state in states]
    pq.write_table(pa.table({"item": pa.array(packed, pa.binary())}), path)


def _as_msgpack_numpy(value: Any) -> dict[bytes, Any]:
    """The form that msgpack_numpy writes."""
    array = np.asarray(value)
    fields = {b"nd": array.ndim > 0, b"type": array.dtype.str, b"data": array.tobytes()}
    return fields | {b"kind": b"", b"shape": array.shape} if array.ndim else fields


Writer = Callable[[Path, Columns], str]

WHOLE: dict[str, Writer] = {
    "npz": as_npz,
    "hdf5": as_hdf5,
    "parquet": as_parquet,
    "csv": as_csv,
    "minari": as_minari,
    "ogbench": as_ogbench_regular,
    "rllib-parquet": as_rllib_parquet,
    "rllib-json": as_rllib_json,
    "rllib-episodes": as_rllib_episodes,
}
"""Formats that hold each row's next observation."""

LINKED: dict[str, Writer] = {
    "ogbench-file": as_ogbench_file,
    "ogbench-compact": as_ogbench_compact,
    "d4rl-without-next": as_d4rl_without_next,
}
"""Formats in which the next row holds it."""


def mapping_for(kind: str, columns: Columns) -> dict[str, str]:
    """What a user writes after --columns: only CSV has a column for each number."""
    return scalar_columns(columns)[1] if kind == "csv" else {}
