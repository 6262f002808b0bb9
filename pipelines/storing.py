"""Where a command's runs lie: a folder, or a working folder behind whose runs a URI is kept up to date."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from iql_ray.data.locations import is_uri

Config = TypeVar("Config", bound=Any)

NAMES_OF_RUNS = ("resume", "run", "critics_from")
"""Settings that name a run in the storage."""

JOB_WORKING_DIRECTORIES = "working_dir_files"
"""The folder in which Ray unpacks what `ray job submit --working-dir` has sent."""


@contextmanager
def stored(config: Config) -> Iterator[Config]:
    """The configuration to work by: where its storage is a URI, in a folder of this machine that is copied there.

    Runs that it names are fetched first; what changes is copied up meanwhile, and at the end however it ends.

    Raises:
        ValueError: the storage cannot be reached.
    """
    if not is_uri(config.storage):
        check_lasting("storage", config.storage)
        yield config
        return
    from iql_ray.run_copies import copied

    with copied(config.storage, _warn, tuple(fetch_named(config))) as folder:
        try:
            yield dataclasses.replace(config, storage=str(folder))
        except SystemExit as stopped:  # what it says of going on is for the user, who knows the URI
            notes = getattr(stopped, "__notes__", [])
            stopped.__notes__ = [note.replace(str(folder), config.storage) for note in notes]
            raise


def check_lasting(setting: str, path: str | Path) -> None:
    """Refuse to write where Ray keeps the working directory of a submitted job, which goes with the job.

    Raises:
        ValueError: names the setting.
    """
    folder = Path(path).absolute()
    if JOB_WORKING_DIRECTORIES in folder.parts:
        raise ValueError(
            f"{setting} = {path} lies in the working directory of the submitted job ({folder}), which Ray deletes when "
            "the job is over; give an absolute path in a folder that every node sees, or, for --storage, a URI"
        )


def with_fetched_runs(config: Config) -> Config:
    """For a command that only reads runs: the configuration with the folder that they were fetched to."""
    if not is_uri(config.storage):
        return config
    from iql_ray.run_copies import work_folder

    fetch_named(config)
    return dataclasses.replace(config, storage=str(work_folder(config.storage)))


def fetch_named(config: Any) -> list[str]:
    """Bring the runs that a configuration names, and their members, into the working folder; which there are now."""
    from iql_ray.run_copies import fetch_run

    named = [run for name in NAMES_OF_RUNS if (run := getattr(config, name, None)) and not Path(run).exists()]
    return [each for run in named for each in fetch_run(config.storage, run)]


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)
