"""The folder of one run: what lies where, and the evaluations written beside the checkpoints.

    RUN/config.json            the whole configuration; it alone re-runs the run
    RUN/checkpoints/000005000  one folder per kept checkpoint, its policy inside
    RUN/evaluations.jsonl      one line per evaluated checkpoint, in the order they were done
    SEARCH/members.jsonl       of a search: which run is whose, and which are over

Paths and small JSON alone: the checkpoints' contents belong to `checkpoint.py`, the record for MLflow to `tracking`.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

CONFIG_FILE = "config.json"
EVALUATIONS_FILE = "evaluations.jsonl"
CHECKPOINTS_FOLDER = "checkpoints"
MEMBERS_FILE = "members.jsonl"


def find_run(storage: str | Path, run: str, must_hold: str = CONFIG_FILE) -> Path:
    """The folder of a run, given by id within the storage or by path.

    Args:
        must_hold: the file in it that makes it a run for the caller's purpose.

    Raises:
        ValueError: there is no run of that name.
    """
    for folder in (Path(storage) / run, Path(run)):
        if (folder / must_hold).is_file():
            return folder.absolute()
    raise ValueError(
        f"run '{run}' not found: neither {Path(storage) / run} nor {run} holds a {must_hold}; "
        "give the run id that train printed, or the run's folder, and --storage where runs are kept"
    )


def checkpoint_folder(run_folder: Path, update_count: int) -> Path:
    """Where the checkpoint after that many updates lies."""
    return run_folder / CHECKPOINTS_FOLDER / f"{update_count:09d}"


def checkpoint_updates(run_folder: Path) -> list[int]:
    """Update counts of all checkpoints there are, ascending; a half-written one does not count."""
    folder = run_folder / CHECKPOINTS_FOLDER
    return sorted(int(each.name) for each in folder.glob("*") if each.name.isdigit())


def read_evaluations(run_folder: Path) -> dict[int, dict[str, Any]]:
    """Evaluation results by update count."""
    return {result["num_updates"]: result for result in read_lines(run_folder / EVALUATIONS_FILE)}


def append_evaluation(run_folder: Path, result: dict[str, Any]) -> None:
    """Add one result; it holds `num_updates` and what `evaluation.statistics.summarize` gives."""
    append_line(run_folder / EVALUATIONS_FILE, result)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Everything in a file of JSON lines. One cut off by a crash is passed over: it will be made again."""
    return read_new_lines(path, 0)[0]


def read_new_lines(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """What was added to a file of JSON lines behind an offset, in bytes, and where to read on; whole lines alone."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        added = file.read()
    whole = added[: added.rfind(b"\n") + 1]
    lines = []
    for line in whole.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return lines, offset + len(whole)


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Add one to a file of JSON lines, never to a line that a crash has cut off."""
    with path.open("a+b") as file:
        is_mid_line = False
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            is_mid_line = file.read() != b"\n"
        file.write(b"\n" * is_mid_line + json.dumps(value).encode() + b"\n")


def best_update(run_folder: Path) -> int | None:
    """The evaluated checkpoint with the highest mean return, the earlier one of equals; None before any."""
    evaluations = read_evaluations(run_folder)
    if not evaluations:
        return None
    return max(sorted(evaluations), key=lambda update: evaluations[update]["return_mean"])
