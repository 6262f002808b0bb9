"""Checkpoints of a run: everything that an exact resume needs, as safetensors and JSON, written whole or not at all.

    000005000/tensors.safetensors   networks, target, optimiser moments and steps
    000005000/random.safetensors    every generator of every learner, named by its rank
    000005000/policy/               the policy as its users load it (`iql_ray.policy.Policy`)
    000005000/state.json            update count, what it belongs to, and the sha256 of the files above
    000005000/state.sha256          of state.json; written last

Nothing here decides when to save, and nothing is pickled.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, save_file
from torch import Tensor

from iql_ray import config, run_folder
from iql_ray.policy import DESCRIPTION_FILE, WEIGHTS_FILE, Policy

TENSORS_FILE = "tensors.safetensors"
RANDOM_FILE = "random.safetensors"
STATE_FILE = "state.json"
SEAL_FILE = "state.sha256"
POLICY_FOLDER = "policy"
HASHED_FILES = (TENSORS_FILE, RANDOM_FILE, f"{POLICY_FOLDER}/{WEIGHTS_FILE}", f"{POLICY_FOLDER}/{DESCRIPTION_FILE}")
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class CheckpointState:
    """What a checkpoint says of itself."""

    update_count: int
    num_learners: int
    dataset_digest: str
    is_to_be_evaluated: bool
    """It is kept until its evaluation is done."""
    device: str
    """Where it was trained, cpu or cuda: their generators' states are of different kinds."""
    configuration: dict[str, Any]
    """The run's whole configuration."""
    transforms: dict[str, Any]
    """As fitted."""
    sha256: dict[str, str]
    online: dict[str, Any] = field(default_factory=dict)
    """Where fine-tuning stands in its environments; empty offline."""
    format_version: int = FORMAT_VERSION

    @property
    def step(self) -> int:
        """Where its curves have it: updates, online environment steps."""
        return self.online.get("num_env_steps", self.update_count)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a run after `update_count` updates."""

    update_count: int
    tensors: dict[str, Tensor]
    random_states: tuple[dict[str, Tensor], ...]
    """One mapping per learner, by rank."""
    dataset_digest: str
    is_to_be_evaluated: bool = False
    device: str = "cpu"
    configuration: dict[str, Any] = field(default_factory=dict)
    transforms: dict[str, Any] = field(default_factory=dict)
    online: dict[str, Any] = field(default_factory=dict)
    """As in `CheckpointState`."""

    @property
    def step(self) -> int:
        """Where its curves have it: updates, online environment steps."""
        return self.online.get("num_env_steps", self.update_count)


class CorruptCheckpointError(Exception):
    """A checkpoint's files are not what was written."""


def save(run: Path, checkpoint: Checkpoint, policy: Policy) -> Path:
    """Write a checkpoint beside its final place, flush it to the disk, and rename; one that is there is replaced."""
    folder = run_folder.checkpoint_folder(run, checkpoint.update_count)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / POLICY_FOLDER).mkdir(parents=True)
    save_file({name: value.detach().cpu() for name, value in checkpoint.tensors.items()}, partial / TENSORS_FILE)
    save_file(_with_ranks(checkpoint.random_states), partial / RANDOM_FILE)
    policy.save(partial / POLICY_FOLDER)
    state = CheckpointState(
        update_count=checkpoint.update_count,
        num_learners=len(checkpoint.random_states),
        dataset_digest=checkpoint.dataset_digest,
        is_to_be_evaluated=checkpoint.is_to_be_evaluated,
        device=checkpoint.device,
        configuration=checkpoint.configuration,
        transforms=checkpoint.transforms,
        online=checkpoint.online,
        sha256={name: _sha256(partial / name) for name in HASHED_FILES},
    )
    config.save(state, partial / STATE_FILE)
    (partial / SEAL_FILE).write_text(_sha256(partial / STATE_FILE) + "\n")
    for path in (*(partial / name for name in (*HASHED_FILES, STATE_FILE, SEAL_FILE)), partial):
        _flush(path)
    _move_into_place(partial, folder)
    return folder


def load(run: Path, update_count: int) -> Checkpoint:
    """Read one checkpoint back, verified.

    Raises:
        CorruptCheckpointError: a file is missing, changed or unreadable.
    """
    folder = run_folder.checkpoint_folder(run, update_count)
    state = read_state(folder)
    _verify(folder, state, HASHED_FILES)
    return Checkpoint(
        update_count=state.update_count,
        tensors=load_file(folder / TENSORS_FILE),
        random_states=_by_rank(load_file(folder / RANDOM_FILE), state.num_learners),
        dataset_digest=state.dataset_digest,
        is_to_be_evaluated=state.is_to_be_evaluated,
        device=state.device,
        configuration=state.configuration,
        transforms=state.transforms,
        online=state.online,
    )


EXACT_SETTINGS = (
    "agent", "transforms", "top_episode_share", "seed", "seeds", "expectiles", "critics", "inverse_temperatures",
    "num_updates", "batch_size", "average_every",
)  # fmt: skip
"""A run with another one of these does not continue: it is another run."""


def check_belongs(
    saved: Checkpoint, run: Path, dataset_digest: str, num_learners: int, configuration: dict[str, Any]
) -> None:
    """Refuse to continue with another dataset, number of learners, or setting that the numbers depend on.

    Raises:
        ValueError: names both, and the fix.
    """
    if saved.dataset_digest != dataset_digest:
        raise ValueError(
            f"checkpoint {saved.update_count} of {run} was trained on a dataset with digest "
            f"{saved.dataset_digest}, the dataset there now has {dataset_digest}; "
            "put back the one it began with, or start a new run"
        )
    if len(saved.random_states) != num_learners:
        raise ValueError(
            f"checkpoint {saved.update_count} of {run} holds {len(saved.random_states)} learners, the run has "
            f"{num_learners}; an exact resume needs as many as it began with"
        )
    for name in EXACT_SETTINGS:
        now = configuration.get(name)
        if name in saved.configuration and saved.configuration[name] != now:
            raise ValueError(
                f"checkpoint {saved.update_count} of {run} was trained with {name} = {saved.configuration[name]}, the "
                f"run's configuration now says {now}; restore it, or start a new run"
            )


def load_newest(run: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole, None where there is none at all; says which ones it passed over.

    Raises:
        ValueError: there are checkpoints and every one is corrupt.
    """
    updates = run_folder.checkpoint_updates(run)
    for update_count in reversed(updates):
        try:
            return load(run, update_count)
        except CorruptCheckpointError as error:
            warn(f"{error}; falling back to the checkpoint before it")
    if updates:
        raise ValueError(f"every checkpoint in {run} is corrupt: {updates}; start a new run")
    return None


def read_state(folder: Path) -> CheckpointState:
    """What a checkpoint says of itself.

    Raises:
        CorruptCheckpointError: its state file is missing or not as it was written.
        ValueError: it has a format of another version.
    """
    try:
        is_whole = (folder / SEAL_FILE).read_text().strip() == _sha256(folder / STATE_FILE)
    except (OSError, UnicodeDecodeError):
        is_whole = False
    if not is_whole:
        raise CorruptCheckpointError(f"checkpoint {folder}: {STATE_FILE} is missing or not as it was written")
    state = config.load(CheckpointState, folder / STATE_FILE)
    if state.format_version != FORMAT_VERSION:
        raise ValueError(f"checkpoint {folder} has format {state.format_version}, this version reads {FORMAT_VERSION}")
    return state


def pending_evaluations(run: Path) -> list[int]:
    """Update counts of checkpoints that are still to be evaluated, ascending."""
    done = run_folder.read_evaluations(run)
    return [
        update
        for update in run_folder.checkpoint_updates(run)
        if update not in done and _is_to_be_evaluated(run_folder.checkpoint_folder(run, update))
    ]


def prune(run: Path, num_to_keep: int) -> list[int]:
    """Delete all but the last `num_to_keep` checkpoints, the best one, and those still to be evaluated."""
    last = run_folder.checkpoint_updates(run)[-num_to_keep:]
    best = run_folder.best_update(run)
    return keep_only(run, {*last, *pending_evaluations(run), *([] if best is None else [best])})


def keep_only(run: Path, updates: Collection[int]) -> list[int]:
    """Delete all other checkpoints; returns which."""
    deleted = [update for update in run_folder.checkpoint_updates(run) if update not in updates]
    for update in deleted:
        shutil.rmtree(run_folder.checkpoint_folder(run, update), ignore_errors=True)
    return deleted


def policy_folder(run: Path, which: Literal["last", "best"] | int) -> Path:
    """Where the policy of a checkpoint lies: the last, the best by evaluation, or the one after N updates.

    Raises:
        ValueError: there is no such checkpoint; the message lists those there are.
    """
    updates = run_folder.checkpoint_updates(run)
    update = {"last": updates[-1] if updates else None, "best": run_folder.best_update(run)}.get(str(which), which)
    if update not in updates:
        hint = "; nothing was evaluated yet" if which == "best" and update is None else ""
        raise ValueError(f"run {run.name} has no checkpoint '{which}'{hint}; it has {updates}")
    return run_folder.checkpoint_folder(run, int(update)) / POLICY_FOLDER


def load_policy(run: Path, which: Literal["last", "best"] | int) -> tuple[Policy, int]:
    """The policy of a checkpoint, verified, and its update count; see `policy_folder`."""
    folder = policy_folder(run, which)
    state = read_state(folder.parent)
    _verify(folder.parent, state, HASHED_FILES[2:])
    return Policy.load(folder), state.update_count


def _move_into_place(partial: Path, folder: Path) -> None:
    """Rename, with one that is there already moved aside first and deleted last."""
    replaced = folder.with_name(folder.name + ".replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)
    partial.rename(folder)
    _flush(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _verify(folder: Path, state: CheckpointState, names: Sequence[str]) -> None:
    for name in names:
        if not (folder / name).is_file() or _sha256(folder / name) != state.sha256[name]:
            raise CorruptCheckpointError(f"checkpoint {folder}: {name} is missing or not as it was written")


def _is_to_be_evaluated(folder: Path) -> bool:
    try:
        return read_state(folder).is_to_be_evaluated
    except CorruptCheckpointError:
        return False


def _with_ranks(random_states: tuple[dict[str, Tensor], ...]) -> dict[str, Tensor]:
    return {f"{rank}.{name}": value for rank, states in enumerate(random_states) for name, value in states.items()}


def _by_rank(tensors: dict[str, Tensor], num_learners: int) -> tuple[dict[str, Tensor], ...]:
    ranks: tuple[dict[str, Tensor], ...] = tuple({} for _ in range(num_learners))
    for name, value in tensors.items():
        rank, own_name = name.split(".", 1)
        ranks[int(rank)][own_name] = value
    return ranks


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
