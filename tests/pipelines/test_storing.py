"""Commands whose dataset and storage are URIs, on a file system that pyarrow opens as it opens a bucket."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from iql_ray import run_folder
from iql_ray.data.fetching import CACHE_VARIABLE
from iql_ray.run_copies import WORK_VARIABLE, work_folder
from pipelines import export, train
from pipelines.storing import check_lasting, stored, with_fetched_runs
from tests.distributed.examples import different, final_tensors, tiny_dataset, train_config
from tests.distributed.in_step import trained_in_step

SMALL = "--hidden-sizes 8 8 --learning-rate 0.01 --batch-size 16 --eval-method none --device cpu --num-updates 20"


@dataclass(frozen=True, kw_only=True)
class Settings:
    storage: str
    resume: str | None = None


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(WORK_VARIABLE, str(tmp_path / "work"))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "bucket"


def test_a_run_from_and_to_uris_is_the_run_of_folders_and_comes_back(
    ray_session: None, bucket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    dataset = tiny_dataset(bucket / "data")
    locations = ["--dataset", dataset.as_uri(), "--storage", (bucket / "runs").as_uri()]
    assert train.main([*locations, *SMALL.split()]) == 0
    run_id = json.loads(capsys.readouterr().out.splitlines()[-1])["run_id"]
    config = train_config(dataset, eval_method="none")
    ended = final_tensors(bucket / "runs" / run_id, 20)
    assert different(ended, trained_in_step(config, tmp_path / "undisturbed")) == []
    assert json.loads((bucket / "runs" / run_id / "config.json").read_text())["dataset"] == dataset.as_uri()
    shutil.rmtree(tmp_path / "work")
    arguments = ["--run", run_id, "--storage", (bucket / "runs").as_uri(), "--out", str(tmp_path / "policy")]
    assert export.main(arguments) == 0
    assert (tmp_path / "policy").is_dir()


def test_a_folder_is_used_as_it_is(tmp_path: Path):
    settings = Settings(storage=str(tmp_path))
    with stored(settings) as given:
        assert given is settings
    assert with_fetched_runs(settings) is settings


def test_what_is_said_of_going_on_names_the_uri(bucket: Path):
    uri = (bucket / "runs").as_uri()

    def work() -> None:
        with stored(Settings(storage=uri)) as settings:
            stopped = SystemExit(15)
            stopped.add_note(f"to go on: iql-ray train --resume r1 --storage {settings.storage}")
            raise stopped

    with pytest.raises(SystemExit) as stopped:
        work()
    assert stopped.value.__notes__ == [f"to go on: iql-ray train --resume r1 --storage {uri}"]


def test_a_named_run_is_fetched_before_the_command_looks_for_it(bucket: Path):
    run = bucket / "runs" / "r1"
    run.mkdir(parents=True)
    for name, text in (("config.json", "{}"), ("copy.json", '{"num_copies": 3}')):
        (run / name).write_text(text)
    settings = Settings(storage=(bucket / "runs").as_uri(), resume="r1")
    with stored(settings) as given:
        assert run_folder.find_run(given.storage, "r1") == work_folder(settings.storage) / "r1"
    with pytest.raises(ValueError, match="run 'r2' not found"):
        run_folder.find_run(with_fetched_runs(Settings(storage=settings.storage, resume="r2")).storage, "r2")


def test_nothing_is_written_into_the_working_directory_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=r"^storage = runs lies in the working directory of the submitted job"):
        stored(Settings(storage="runs")).__enter__()
    check_lasting("storage", tmp_path / "runs")
