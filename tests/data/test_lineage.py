"""What a manifest, a run and a model say of where data and code come from."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from iql_ray.data import lineage
from iql_ray.data.lineage import git_commit, lineage_tags, package_version
from iql_ray.data.prepared import AppliedFix
from tests.data.examples import example, prepare_here, write_npz


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=A Tester", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def checkout(folder: Path) -> Path:
    """A repository with one committed file."""
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "code.py").write_text("x = 1\n")
    git(folder, "add", "code.py")
    git(folder, "commit", "--quiet", "--no-gpg-sign", "-m", "first")
    return folder


def test_a_checkout_says_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "code")
    commit = git_commit(folder)
    assert commit is not None
    assert len(commit) == 40
    (folder / "code.py").write_text("x = 2\n")
    assert git_commit(folder) == f"{commit}-dirty"


def test_a_package_in_somebody_elses_repository_has_no_commit(tmp_path: Path) -> None:
    installed = checkout(tmp_path / "theirs") / "venv" / "iql_ray"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("x = 1\n")
    assert git_commit(installed) is None


def test_no_repository_and_no_git_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert git_commit(tmp_path) is None
    assert git_commit(tmp_path / "nowhere") is None
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None


def test_the_manifest_says_which_code_prepared_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iql_ray.data.describing.git_commit", lambda: "abc")
    manifest = prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a")
    assert manifest.provenance.git_commit == "abc"
    assert manifest.provenance.iql_ray_version == package_version()


def test_tags_name_data_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a", licence="CC0")
    fix = AppliedFix(rule="clip-actions", num_rows=3, num_episodes=2, description="")
    provenance = replace(manifest.provenance, fixes=(fix,), iql_ray_version="0.1.0", git_commit="abc")
    monkeypatch.setattr(lineage, "code_version", lambda: "0.2.0 at def")
    assert lineage_tags(replace(manifest, provenance=provenance)) == {
        "dataset.sha256": manifest.digest,
        "dataset.source": f"npz:{tmp_path / 'a.npz'}",
        "dataset.licence": "CC0",
        "dataset.fixes": "clip-actions (3 rows)",
        "dataset.prepared_by": "0.1.0 at abc",
        "iql_ray.code_version": "0.2.0 at def",
    }


def test_the_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    spec = write_npz(tmp_path / "a.npz", example())
    whole = prepare_here(spec, tmp_path / "a")
    sharded = prepare_here(spec, tmp_path / "b", rows_per_shard=2, licence="CC0")
    assert len(sharded.shards) == 3
    assert sharded.digest == whole.digest
