"""Asynchronous successive halving of configurations (ASHA, Li et al. 2020), by files that every trial sees.

    rungs/000001111/TRIAL.json   the scores of a trial's configurations after so many updates, and which of them go on

A trial that gets to a rung compares its configurations with all that were there before it, and waits for none. What it
decided stays written, so that a trial that comes to the rung again, after a crash, goes the same way. Trains nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iql_ray import config as config_io


def rung_file(search_folder: Path, num_updates: int, trial: str) -> Path:
    return search_folder / "rungs" / f"{num_updates:09d}" / f"{trial}.json"


def who_goes_on(file: Path, scores: Sequence[float], reduction_factor: int) -> list[int]:
    """Which of a trial's configurations are among the best 1 / reduction_factor of those at the rung so far; one that
    has diverged is not.

    Args:
        file: of this trial at this rung.
    """
    if file.is_file():
        return json.loads(file.read_text())["go_on"]
    file.parent.mkdir(parents=True, exist_ok=True)
    there = [score for other in sorted(file.parent.glob("*.json")) for score in json.loads(other.read_text())["scores"]]
    ranked = [score for score in (*there, *scores) if math.isfinite(score)]
    cutoff = float(np.quantile(ranked, 1 - 1 / reduction_factor)) if ranked else math.inf
    go_on = [index for index, score in enumerate(scores) if score >= cutoff]
    config_io.write_json({"scores": list(scores), "cutoff": cutoff, "go_on": go_on}, file)
    return go_on
