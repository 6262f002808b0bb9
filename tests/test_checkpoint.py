"""Checkpoints: whole or not there, verified when read, and only as many as are wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from iql_ray import checkpoint, run_folder
from iql_ray.checkpoint import Checkpoint, CorruptCheckpointError
from tests.evaluation.toys import random_policy

FILES = ["tensors.safetensors", "random.safetensors", "policy/weights.safetensors", "policy/policy.json", "state.json"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "r1"


def saved(run: Path, update_count: int, num_learners: int = 1, is_to_be_evaluated: bool = False) -> Checkpoint:
    """Save one whose numbers follow from its update count."""
    written = Checkpoint(
        update_count=update_count,
        tensors={
            "policy.0.weight": torch.randn(2, 3, generator=torch.Generator().manual_seed(update_count)),
            "optimiser.policy.step": torch.tensor(float(update_count)),
        },
        random_states=tuple({"sampler.0": torch.tensor([rank, 7], dtype=torch.uint8)} for rank in range(num_learners)),
        dataset_digest="d" * 64,
        is_to_be_evaluated=is_to_be_evaluated,
    )
    checkpoint.save(run, written, random_policy(seed=update_count))
    return written


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def assert_same(first: Checkpoint, second: Checkpoint) -> None:
    assert (first.update_count, first.dataset_digest) == (second.update_count, second.dataset_digest)
    assert first.is_to_be_evaluated == second.is_to_be_evaluated
    for ours, theirs in zip(
        (first.tensors, *first.random_states), (second.tensors, *second.random_states), strict=True
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)


@pytest.mark.parametrize("num_learners", [1, 3])
@pytest.mark.parametrize("is_to_be_evaluated", [False, True])
def test_everything_comes_back(run: Path, num_learners: int, is_to_be_evaluated: bool):
    written = saved(run, 50, num_learners, is_to_be_evaluated)
    assert_same(checkpoint.load(run, 50), written)


def test_parameters_that_are_views_of_one_buffer_are_saved_apart(run: Path):
    flat = torch.arange(6.0)
    shared = Checkpoint(
        update_count=1,
        tensors={"a": flat[:2], "b": flat[2:].view(2, 2)},
        random_states=({"g": torch.zeros(1)},),
        dataset_digest="d",
    )
    checkpoint.save(run, shared, random_policy())
    assert checkpoint.load(run, 1).tensors["b"].tolist() == [[2, 3], [4, 5]]


def test_the_policy_in_it_acts_as_the_one_that_was_saved(run: Path):
    saved(run, 50)
    policy, num_updates = checkpoint.load_policy(run, 50)
    observations = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)
    assert num_updates == 50
    assert np.array_equal(policy.act(observations), random_policy(seed=50).act(observations))


def test_saving_again_replaces(run: Path):
    saved(run, 50, is_to_be_evaluated=True)
    second = saved(run, 50, is_to_be_evaluated=False)
    assert_same(checkpoint.load(run, 50), second)


def test_the_newest_is_loaded_and_nothing_is_said(run: Path):
    saved(run, 50)
    newest = saved(run, 100)
    loaded = checkpoint.load_newest(run, warn=pytest.fail)
    assert loaded is not None
    assert_same(loaded, newest)


def test_without_any_there_is_none(run: Path):
    assert checkpoint.load_newest(run, warn=pytest.fail) is None


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(
    run: Path, file: str, damage: Callable[[Path], None]
):
    before = saved(run, 50)
    saved(run, 100)
    damage(run_folder.checkpoint_folder(run, 100) / file)
    messages: list[str] = []
    loaded = checkpoint.load_newest(run, warn=messages.append)
    assert loaded is not None
    assert_same(loaded, before)
    (message,) = messages
    assert "000000100" in message
    assert file in message
    assert "falling back to the checkpoint before it" in message


@pytest.mark.parametrize("twentieth", range(20))
def test_whichever_byte_of_the_state_file_is_damaged_is_noticed(run: Path, twentieth: int):
    """A changed digit is valid JSON still: an update count of 108 for 100 would go on from the wrong place."""
    saved(run, 50)
    saved(run, 100)
    path = run_folder.checkpoint_folder(run, 100) / "state.json"
    content = bytearray(path.read_bytes())
    places = [place for place, byte in enumerate(content) if chr(byte).isalnum()]
    content[places[twentieth * len(places) // 20]] ^= 1
    path.write_bytes(content)
    loaded = checkpoint.load_newest(run, warn=lambda message: None)
    assert loaded is not None
    assert loaded.update_count == 50


def test_where_every_one_is_damaged_the_run_is_refused(run: Path):
    for update in (50, 100):
        saved(run, update)
        truncate(run_folder.checkpoint_folder(run, update) / "tensors.safetensors")
    messages: list[str] = []
    with pytest.raises(ValueError, match=r"every checkpoint in .*r1 is corrupt: \[50, 100\]; start a new run"):
        checkpoint.load_newest(run, warn=messages.append)
    assert len(messages) == 2


def test_a_half_written_one_is_passed_over_and_written_anew(run: Path):
    saved(run, 50)
    partial = run / "checkpoints" / "000000100.partial"
    partial.mkdir()
    (partial / "tensors.safetensors").write_bytes(b"half")
    loaded = checkpoint.load_newest(run, warn=pytest.fail)
    assert loaded is not None
    assert loaded.update_count == 50
    written = saved(run, 100)
    assert_same(checkpoint.load(run, 100), written)
    assert not partial.exists()


def test_a_policy_that_changed_is_not_acted_with(run: Path):
    saved(run, 50)
    flip_a_bit(run_folder.checkpoint_folder(run, 50) / "policy" / "weights.safetensors")
    with pytest.raises(CorruptCheckpointError, match=r"000000050: policy/weights.safetensors is missing or not as"):
        checkpoint.load_policy(run, "last")


def test_pruning_keeps_the_last_ones_the_best_and_those_to_be_evaluated(run: Path):
    for update in (10, 20, 30, 40, 50, 60):
        saved(run, update, is_to_be_evaluated=update in (10, 20, 30))
    for update, return_mean in ((10, 5.0), (30, 1.0)):  # 20 still waits
        run_folder.append_evaluation(run, {"num_updates": update, "return_mean": return_mean})
    assert checkpoint.pending_evaluations(run) == [20]
    assert checkpoint.prune(run, 2) == [30, 40]
    assert run_folder.checkpoint_updates(run) == [10, 20, 50, 60]


def test_pruning_fewer_than_are_kept_deletes_none(run: Path):
    saved(run, 10)
    assert checkpoint.prune(run, 3) == []


def test_the_last_the_best_and_a_numbered_policy_are_found(run: Path):
    for update in (10, 20, 30):
        saved(run, update)
    for update in (10, 20):
        run_folder.append_evaluation(run, {"num_updates": update, "return_mean": -float(update)})
    folders = [checkpoint.policy_folder(run, which) for which in ("last", "best", 20)]
    assert [folder.parent.name for folder in folders] == ["000000030", "000000010", "000000020"]


@pytest.mark.parametrize(
    ("which", "message"), [(15, r"no checkpoint '15'; it has \[10\]"), ("best", r"'best'; nothing was evaluated yet")]
)
def test_a_checkpoint_that_is_not_there_is_refused(run: Path, which, message: str):
    saved(run, 10)
    with pytest.raises(ValueError, match=message):
        checkpoint.policy_folder(run, which)
