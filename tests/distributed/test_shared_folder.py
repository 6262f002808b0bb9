"""Folders that every node must see: each that does not is named with the path and the way out."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from iql_ray.distributed.shared_folder import check_shared, look, needed_files

CPU = {"CPU": 1}


@pytest.fixture
def elsewhere(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver, as if it were on another node than the session's only one."""
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "another"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text("{}")
    return tmp_path / "data"


def test_what_is_there_is_read_and_answered_beside_the_token(tmp_path: Path, dataset: Path):
    token = tmp_path / "token"
    token.write_text("seen")
    assert look([token, dataset / "manifest.json"], token) == []
    assert len(list(tmp_path.glob("token-*"))) == 1
    (wrong,) = look([tmp_path / "nowhere" / "manifest.json"], token)
    assert wrong == f"does not see {tmp_path / 'nowhere'}, or may not write there (No such file or directory)"


def test_one_node_alone_is_asked_nothing(ray_session: None, tmp_path: Path):
    check_shared(tmp_path / "runs", "nowhere", CPU)
    assert not (tmp_path / "runs").exists()


def test_a_node_that_sees_all_is_content_and_nothing_is_left(elsewhere: None, tmp_path: Path, dataset: Path):
    check_shared(tmp_path / "runs", str(dataset), CPU)
    check_shared(tmp_path / "runs", "s3://bucket/data", CPU)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_node_that_does_not_see_the_dataset_is_named(elsewhere: None, tmp_path: Path):
    address = re.escape(ray.nodes()[0]["NodeManagerAddress"])
    with pytest.raises(ValueError, match=rf"^node {address} \(\w+\) does not see {tmp_path}/gone, .* mount a shared"):
        check_shared(tmp_path / "runs", str(tmp_path / "gone"), CPU)


def test_a_node_that_no_learner_fits_reads_the_dataset_and_no_runs(tmp_path: Path, dataset: Path):
    node, token, manifest = {"Resources": {"CPU": 4.0}}, tmp_path / "token", dataset / "manifest.json"
    assert needed_files(node, token, str(dataset), CPU) == [token, manifest]
    assert needed_files(node, token, str(dataset), {"CPU": 1, "iql_learner": 0.001}) == [manifest]
    assert needed_files(node, token, "s3://bucket/data", CPU) == [token]
