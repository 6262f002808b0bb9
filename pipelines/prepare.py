"""iql-ray prepare --source npz:logs.npz --env Pendulum-v1 --action-bounds -1 1 --out data/pendulum

Logged data in, a prepared dataset out: Parquet shards of shuffled transitions, and a manifest. Parse, call, print.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines import command_line
from pipelines.ray_session import ray_session
from pipelines.storing import check_lasting

if TYPE_CHECKING:
    import pyarrow as pa

    from iql_ray.data.actions import Actions
    from iql_ray.data.prepared import Manifest
    from iql_ray.data.sources import Source
    from iql_ray.data.writing import WritingPlan

Rule = Literal["clip-actions", "time-limit-is-truncation", "end-at-success", "drop-nonfinite-rows"]
"""The rules of `data/fixes.py`, which a command's help does not import."""

Reader = Literal["auto", "threads", "ray"]

KINDS_THAT_HOLD_THE_LOCK = ("hdf5", "minari", "rllib")
"""Formats whose decoders hold Python's lock, so that only processes read them in parallel."""

BYTES_WORTH_RAY = 2 * 2**30
"""Files of such a format beyond this: a local Ray takes some ten seconds to start."""

PROGRESS_SECONDS = 10.0

MAZE_KIND = "umaze:"
EXPERIENCE_KIND = "experience:"
MAZE_LICENCE = "Apache-2.0, made by iql_ray's own simulator"


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Turn logged data into a prepared dataset."""

    source: str
    """npz:PATH, hdf5:PATH (D4RL layout), ogbench:PATH, parquet:, csv: or rllib:FILE|FOLDER|GLOB, minari:ID_OR_PATH (a
    local dataset); paths of all but minari may be URIs such as s3://BUCKET/KEY. Or, made on the spot, the toy maze's
    umaze:paper, umaze:stitching, umaze:narrow or umaze:lucky, with :coordinates after it for observations (x, y)
    instead of one-hot, and with :SEED for another draw. Or experience:RUN_FOLDER, what iql-ray finetune collected."""
    out: Path
    """The folder to make. It appears whole at the end, or not at all. Interrupted, killed or out of disk space, the
    same command goes on where it stood, from a hidden folder beside this one."""
    env: str | None = None
    """Environment id whose spaces the data must fit, and whose action bounds the prepared actions have."""
    columns: tuple[str, ...] = ()
    """Whose column is which, as CANONICAL=THEIRS: observations=obs next_observations=new_obs terminations=dones
    episode=eps_id; several scalar columns by commas: observations=x,y,z. time=NAME orders the rows and tells episodes
    apart, success=NAME says where the task is solved, terminations=never or truncations=never that none happens."""
    action_bounds: tuple[float, float] | None = None
    """LOW HIGH of the box that the data's actions lie in; mapped linearly on the environment's own bounds."""
    licence: str | None = None
    """The data's licence, a line for the manifest; by default what the source itself records."""
    minari: str | None = None
    """Also write the episodes of umaze:NAME or experience:RUN_FOLDER as a local Minari dataset of this id, e.g.
    iql-ray/umaze-v0."""
    seed: int = 0
    """Of the one shuffle over all transitions."""
    rows_per_shard: int = 131_072
    """A shard's size at most; it changes files and memory, not the order of the rows."""
    unfinished_episodes: Literal["error", "truncate"] = "error"
    """An episode flagged neither terminal nor truncated at its end is an error, or counts as truncated there."""
    fix: tuple[Rule, ...] = ()
    """Repair what `iql-ray inspect` names, and nothing else: clip-actions sets actions outside their bounds to the
    bound; time-limit-is-truncation makes terminations at the longest length, where they pile up, truncations;
    end-at-success terminates each episode at its first success (a source's success column, or the larger of two reward
    values) and leaves out what follows; drop-nonfinite-rows leaves out rows with NaN or infinity and cuts the episode
    there. Give several after one --fix, or repeat it. The manifest records what each changed."""
    reader: Reader = "auto"
    """Who reads the files: threads of this process, or Ray tasks. auto: Ray where RAY_ADDRESS names a cluster, and for
    more than 2 GiB of a format that threads cannot read in parallel (hdf5, minari, rllib). The dataset is the same."""
    overwrite: bool = False
    """Replace a prepared dataset at --out, once the new one is complete."""

    def __post_init__(self) -> None:
        if self.rows_per_shard < 1:
            raise ValueError(f"rows_per_shard is {self.rows_per_shard}, expected at least 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, expected 0 or more")


def prepare(config: PrepareConfig) -> dict[str, Any]:
    """Check everything that headers tell, then read, check and write the rows.

    Returns:
        Path, counts, digest and statistics: what a script needs of the manifest.

    Raises:
        ValueError: bad input; nothing is left behind, nothing is overwritten.
    """
    from iql_ray.data.work_folder import check_destination
    from iql_ray.data.writing import prepare_dataset

    check_lasting("out", config.out)
    check_destination(config.out, config.overwrite)
    source = _opened(config)
    if "end-at-success" in config.fix and source.has_success:
        source = source.with_success()
    plan = _plan(config, source)
    if config.minari is not None:
        _export(source, config.minari)
    with _reading(source, config.reader) as read:
        manifest = prepare_dataset(read, plan, say=_say)
    for fix in manifest.provenance.fixes:
        _say(f"--fix {fix.rule}: {fix.num_rows} rows of {fix.num_episodes} episodes; {fix.description}")
    _say_doubts(manifest)
    return _result(config.out, manifest)


def _say_doubts(manifest: Manifest) -> None:
    """What the data itself cannot settle, and the policy would pay for."""
    from iql_ray.data.inspection.column_findings import scaled_actions_sentence

    sentence = scaled_actions_sentence(manifest)
    if sentence is not None:
        _say(f"warning: {sentence} If they were, prepare again with --action-bounds -1 1.")


def _opened(config: PrepareConfig) -> Source:
    if config.source.startswith(MAZE_KIND):
        return _maze_source(config)
    return _online_source(config) if config.source.startswith(EXPERIENCE_KIND) else _logged_source(config)


def _logged_source(config: PrepareConfig) -> Source:
    from iql_ray.data.sources import open_source, parse_columns

    return open_source(config.source, parse_columns(config.columns))


def _maze_source(config: PrepareConfig) -> Source:
    """The toy maze's episodes, drawn now."""
    from iql_ray.data.sources.recorded_episodes import from_columns
    from iql_ray.data.sources.source import Recorded
    from iql_ray.envs.catalog import environment_spaces
    from iql_ray.envs.umaze import ENVIRONMENT_IDS
    from iql_ray.envs.umaze_data import maze_data, parse_location

    _check_no_columns(config)
    name, observation, seed = parse_location(config.source.removeprefix(MAZE_KIND))
    data = maze_data(name, seed=seed)
    environment_id = ENVIRONMENT_IDS[name, observation]
    recorded = Recorded(
        spaces=environment_spaces(environment_id),
        environment_id=environment_id,
        licence=MAZE_LICENCE,
        details=data.details,
    )
    return from_columns(config.source, data.columns(observation), recorded)


def _online_source(config: PrepareConfig) -> Source:
    """What a run of iql-ray finetune has collected."""
    from iql_ray import config as config_io
    from iql_ray import run_folder
    from iql_ray.data.experience_dataset import experience_source
    from iql_ray.envs.catalog import environment_spaces

    _check_no_columns(config)
    run = run_folder.find_run(".", config.source.removeprefix(EXPERIENCE_KIND))
    environment_id = config_io.read(run / run_folder.CONFIG_FILE)["env"]
    return experience_source(run, environment_spaces(environment_id), environment_id, config.licence)


def _check_no_columns(config: PrepareConfig) -> None:
    if config.columns:
        raise ValueError(f"source '{config.source}' names its own columns, leave --columns out (got {config.columns})")


def _export(source: Source, dataset_id: str) -> None:
    from iql_ray.data.sources.minari_export import write_minari

    if source.files:
        raise ValueError(
            f"--minari {dataset_id} goes with umaze:NAME and experience:RUN_FOLDER, got --source {source.spec}; "
            "leave it out"
        )
    write_minari(dataset_id, source)


@contextmanager
def _reading(source: Source, reader: Reader) -> Iterator[Callable[[int], Iterator[pa.Table]]]:
    """Reads the source's tables in order, from a row on; Ray starts when it is first asked to."""
    from iql_ray.data.reading import read_in_threads

    if not is_for_ray(source, reader):
        yield lambda first_row: _announced(read_in_threads(source, first_row), first_row, source.num_rows)
        return
    with ExitStack() as stack:

        def read(first_row: int) -> Iterator[pa.Table]:
            stack.enter_context(ray_session())
            from iql_ray.distributed.preparation import read_in_order

            return _announced(read_in_order(source, first_row), first_row, source.num_rows)

        yield read


def is_for_ray(source: Source, reader: Reader) -> bool:
    """Whether Ray reads the files: on a cluster, or where it is worth its start. What has no files lies in this
    process."""
    if reader != "auto" or not source.files:
        return reader == "ray" and bool(source.files)
    if "RAY_ADDRESS" in os.environ:
        return True
    kind = source.spec.partition(":")[0]
    return kind in KINDS_THAT_HOLD_THE_LOCK and sum(file.stat().st_size for file in source.files) > BYTES_WORTH_RAY


def _announced(tables: Iterable[pa.Table], num_rows: int, total: int) -> Iterator[pa.Table]:
    """The same tables; a line on stderr now and then says how many rows have been read."""
    shown_at = time.monotonic()
    for table in tables:
        yield table
        num_rows += table.num_rows
        if time.monotonic() - shown_at >= PROGRESS_SECONDS:
            _say(f"read {num_rows:,} of {total:,} rows")
            shown_at = time.monotonic()


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _plan(config: PrepareConfig, source: Source) -> WritingPlan:
    from iql_ray.data.writing import WritingPlan

    return WritingPlan(
        source=source,
        actions=_actions(config, source),
        destination=config.out,
        environment_id=config.env,
        licence=config.licence,
        action_bounds=config.action_bounds,
        seed=config.seed,
        rows_per_shard=config.rows_per_shard,
        unfinished_episodes=config.unfinished_episodes,
        fixes=config.fix,
        overwrite=config.overwrite,
    )


def _actions(config: PrepareConfig, source: Source) -> Actions:
    from iql_ray.data.actions import resolve_actions

    if config.env is None:
        return resolve_actions(source.layout, source.recorded.spaces, None, config.action_bounds)
    from iql_ray.envs.catalog import environment_spaces

    environment = environment_spaces(config.env)
    try:
        return resolve_actions(source.layout, source.recorded.spaces, environment, config.action_bounds)
    except ValueError as error:
        raise ValueError(f"--env {config.env} with --source {config.source}: {error}") from error


def _result(out: Path, manifest: Manifest) -> dict[str, Any]:
    returns = manifest.episode_returns
    return {
        "path": str(out),
        "environment_id": manifest.environment_id,
        "num_rows": manifest.num_rows,
        "num_episodes": manifest.num_episodes,
        "num_dropped_rows": manifest.num_dropped_rows,
        "num_terminations": manifest.num_terminations,
        "num_truncations": manifest.num_truncations,
        "num_shards": len(manifest.shards),
        "return_mean": returns.mean,
        "return_std": returns.std,
        "return_min": returns.min,
        "return_max": returns.max,
        "episode_length_mean": manifest.episode_lengths.mean,
        "licence": manifest.licence,
        "fixes": [asdict(fix) for fix in manifest.provenance.fixes],
        "digest": manifest.digest,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = gathered("--fix", sys.argv[1:] if argv is None else argv)
    return command_line.main(PrepareConfig, prepare, arguments, description=__doc__)


def gathered(flag: str, arguments: Sequence[str]) -> list[str]:
    """The same words with a repeated flag said once, with all its values: of several, the parser keeps the last."""
    others: list[str] = []
    values: list[str] = []
    is_value = False
    for word in arguments:
        name, _, value = word.partition("=")
        is_value = name == flag or (is_value and not word.startswith("-"))
        if not is_value:
            others.append(word)
        elif name != flag or value:
            values.append(value if name == flag else word)
    return [*others, flag, *values] if values else list(arguments)


if __name__ == "__main__":
    sys.exit(main())
