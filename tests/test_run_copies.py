"""Runs behind a URI: what changes goes up, what is newer comes back, and half a checkpoint is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from iql_ray import checkpoint, run_copies, run_folder
from iql_ray.run_copies import RunCopier, copied, fetch_run, work_folder
from tests.tracking.examples import small_policy


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(run_copies.WORK_VARIABLE, str(tmp_path / "work"))
    return (tmp_path / "bucket" / "my runs").as_uri()


def there(tmp_path: Path) -> Path:
    return tmp_path / "bucket" / "my runs"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def new_run(uri: str, name: str = "r1") -> Path:
    run = work_folder(uri) / name
    run.mkdir(parents=True)
    (run / run_folder.CONFIG_FILE).write_text("{}")
    return run


def save(run: Path, update_count: int) -> None:
    state = checkpoint.Checkpoint(
        update_count=update_count,
        tensors={"weight": torch.full((3,), float(update_count))},
        random_states=({"sampler": torch.zeros(2, dtype=torch.uint8)},),
        dataset_digest="d",
    )
    checkpoint.save(run, state, small_policy())


def test_what_is_new_goes_up_and_what_grew_goes_again(uri: str, tmp_path: Path):
    copier, run = RunCopier(uri), new_run(uri)
    run_folder.append_line(run / "spool.jsonl", {"step": 1})
    save(run, 10)
    copier.copy()
    assert names(there(tmp_path) / "r1") == names(run)
    run_folder.append_line(run / "spool.jsonl", {"step": 2})
    copier.copy()
    assert run_folder.read_lines(there(tmp_path) / "r1" / "spool.jsonl") == [{"step": 1}, {"step": 2}]
    assert checkpoint.load(there(tmp_path) / "r1", 10).tensors["weight"].tolist() == [10.0] * 3


def test_what_has_not_changed_is_not_sent_again(uri: str, tmp_path: Path):
    copier, run = RunCopier(uri), new_run(uri)
    save(run, 10)
    copier.copy()
    shutil.rmtree(there(tmp_path))
    (run / "page.html").write_text("new")
    copier.copy()
    assert names(there(tmp_path) / "r1") == ["copy.json", "page.html"]


def test_a_pruned_checkpoint_is_pruned_behind_the_uri(uri: str, tmp_path: Path):
    copier, run = RunCopier(uri), new_run(uri)
    for update_count in (10, 20):
        save(run, update_count)
    copier.copy()
    checkpoint.keep_only(run, {20})
    copier.copy()
    assert [path for path in names(there(tmp_path) / "r1") if "000000010" in path] == []
    assert checkpoint.load(there(tmp_path) / "r1", 20).update_count == 20


def test_a_seal_goes_up_after_all_else_of_its_checkpoint(uri: str, monkeypatch: pytest.MonkeyPatch):
    copier, run, sent = RunCopier(uri), new_run(uri), []
    upload = run_copies._upload
    monkeypatch.setattr(run_copies, "_upload", lambda fs, path, to: (sent.append(path.name), upload(fs, path, to)))
    save(run, 10)
    copier.copy()
    assert sent[-2:] == ["state.sha256", "copy.json"]


def test_neither_libraries_files_nor_other_folders_go_up(uri: str, tmp_path: Path):
    copier, run = RunCopier(uri), new_run(uri)
    for path in (run / "trainer" / "log", run / "checkpoints" / "000000030.partial" / "x", run.parent / "mlflow.db"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    copier.copy()
    assert names(there(tmp_path)) == ["r1/config.json", "r1/copy.json"]


def test_a_run_comes_back_to_a_machine_that_never_had_it(uri: str, tmp_path: Path):
    copier, run = RunCopier(uri), new_run(uri)
    save(run, 10)
    copier.copy()
    shutil.rmtree(tmp_path / "work")
    assert fetch_run(uri, "r1") == ["r1"]
    assert checkpoint.load_newest(run, pytest.fail).update_count == 10  # pyright: ignore[reportOptionalMemberAccess]
    assert fetch_run(uri, "r2") == []


def test_the_newer_of_two_states_is_gone_on_with(uri: str, tmp_path: Path):
    """Killed before its last copy, the run here is ahead; continued on another machine, it is behind."""
    copier, run = RunCopier(uri), new_run(uri)
    save(run, 10)
    copier.copy()
    save(run, 20)
    fetch_run(uri, "r1")
    assert run_folder.checkpoint_updates(run) == [10, 20]
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "work", elsewhere)
    copier.copy()
    ahead = names(run)
    shutil.rmtree(tmp_path / "work")
    elsewhere.rename(tmp_path / "work")
    (run / "left over").write_text("")
    fetch_run(uri, "r1")
    assert names(run) == ahead


def test_the_members_of_a_search_come_with_it(uri: str, tmp_path: Path):
    copier, search = RunCopier(uri), new_run(uri, "search")
    for member in ("m1", "m2"):
        new_run(uri, member)
        for event in ("started", "finished"):
            run_folder.append_line(search / run_folder.MEMBERS_FILE, {"event": event, "run_id": member})
    copier.copy()
    shutil.rmtree(tmp_path / "work")
    assert fetch_run(uri, "search") == ["search", "m1", "m2"]
    assert (work_folder(uri) / "m2" / run_folder.CONFIG_FILE).is_file()


def test_a_resumed_run_is_copied_whole_whatever_was_copied_of_it_before(uri: str, tmp_path: Path):
    for name in ("r1", "r2"):
        new_run(uri, name)
    RunCopier(uri, resumed=("r1",)).copy()
    assert names(there(tmp_path)) == ["r1/config.json", "r1/copy.json"]


def test_the_end_of_the_block_copies_however_it_ends(uri: str, tmp_path: Path):
    def work() -> None:
        with copied(uri, pytest.fail):
            new_run(uri)
            raise SystemExit(15)

    with pytest.raises(SystemExit):
        work()
    assert names(there(tmp_path)) == ["r1/config.json", "r1/copy.json"]


def test_a_storage_that_is_lost_is_a_warning_and_one_that_never_was_an_error(uri: str, tmp_path: Path):
    warnings: list[str] = []
    with copied(uri, warnings.append):
        new_run(uri)
        shutil.rmtree(tmp_path / "bucket")
        (tmp_path / "bucket").write_text("no folder any more")
    assert len(warnings) == 1
    assert f"until it does, they are in {work_folder(uri)}" in warnings[0]
    with (
        pytest.raises(ValueError, match=r"^storage file:.* cannot be reached: .*; check the address"),
        copied(uri, warnings.append),
    ):
        pass


def test_storages_of_one_name_have_working_folders_of_their_own(uri: str):
    folders = {work_folder(each) for each in ("s3://a/runs", "s3://b/runs", "s3://a/runs?region=eu-west-1")}
    assert len(folders) == 3
    assert all(folder.name.startswith("runs-") for folder in folders)
