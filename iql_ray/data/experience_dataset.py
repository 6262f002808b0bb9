"""The experience of an online run as a source of episodes, so that it can be prepared and trained on like any other.

Episodes that were still under way when the run ended count as cut there.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np

from iql_ray.data.experience_log import EXPERIENCE_FOLDER, read_experience
from iql_ray.data.sources.recorded_episodes import from_columns
from iql_ray.data.sources.source import Recorded, Source
from iql_ray.experience import Experience, Spaces


def experience_source(run: Path, spaces: Spaces, environment_id: str | None, licence: str | None = None) -> Source:
    """Everything that a run collected, episode by episode; held in memory.

    Args:
        run: the run's folder.

    Raises:
        ValueError: the run has collected nothing.
    """
    parts = list(read_experience(run))
    if not parts:
        raise ValueError(
            f"run {run} has no experience in {run / EXPERIENCE_FOLDER}; expected a run of iql-ray finetune"
        )
    experience = Experience.joined(parts)
    order = np.lexsort((experience.steps, experience.episodes, experience.environments))
    ordered = experience.rows(order)
    recorded = Recorded(
        spaces=spaces,
        environment_id=environment_id,
        licence=licence,
        details={"description": f"collected online by iql-ray finetune, run {run.name}"},
    )
    return from_columns(f"experience:{run}", _columns(ordered, spaces.is_discrete), recorded)


def _columns(ordered: Experience, is_discrete: bool) -> dict[str, np.ndarray]:
    """Canonical columns, with episodes numbered over all environments and the last row of each flagged."""
    episode = _episode_numbers(ordered)
    is_last = np.append(episode[1:] != episode[:-1], True)
    names = {each.name for each in fields(Experience)} - {"environments", "episodes", "steps", "policy_versions"}
    columns = {name: getattr(ordered, name) for name in sorted(names)}
    if is_discrete:
        columns["actions"] = ordered.actions[:, 0].astype(np.int64)
    return {**columns, "truncations": ordered.truncations | (is_last & ~ordered.terminations), "episode": episode}


def _episode_numbers(ordered: Experience) -> np.ndarray:
    """(rows,) int64, counted where environment or episode changes, or steps begin again."""
    begins = np.zeros(len(ordered), bool)
    begins[1:] = (
        (ordered.environments[1:] != ordered.environments[:-1])
        | (ordered.episodes[1:] != ordered.episodes[:-1])
        | (ordered.steps[1:] != ordered.steps[:-1] + 1)
    )
    return begins.cumsum().astype(np.int64)
