"""`iql-ray sync`: what a run could not send is sent later, and counted."""

from __future__ import annotations

import json

import pytest

from iql_ray.tracking.spool import count_waiting, write_cursor
from pipelines import sync
from tests.tracking.examples import client_of, history, new_storage, start


@pytest.fixture
def storage(tmp_path, tmp_path_factory):
    return new_storage(tmp_path, tmp_path_factory)


@pytest.fixture
def run_ids(storage):
    """Two runs whose record has not been sent, as far as their cursors know."""
    loggers = [start(storage), start(storage)]
    for logger in loggers:
        logger.log_metrics(1, {"loss": 1.0})
        assert logger.close()
        write_cursor(logger.folder, 0)
    return [logger.run_id for logger in loggers]


def test_one_run_is_sent_and_counted(storage, run_ids, capsys):
    assert sync.main(["--run", run_ids[0], "--storage", str(storage)]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["sent"] == 3  # tags, point, status
    assert result["runs"][0]["run_id"] == run_ids[0]
    assert result["runs"][0]["rejected"] == 0
    assert count_waiting(storage / run_ids[0]) == 0
    assert count_waiting(storage / run_ids[1]) == 3
    assert history(client_of(storage), run_ids[0], "loss") == [(1, 1.0)]


def test_all_runs_are_sent_but_one_that_is_going_on(storage, run_ids, capsys):
    going_on = start(storage)
    assert sync.main(["--all", "--storage", str(storage)]) == 0
    assert going_on.close()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    by_id = {run["run_id"]: run for run in result["runs"]}
    assert result["sent"] == 6
    assert "held by another process" in by_id[going_on.run_id]["error"]
    assert by_id[run_ids[1]]["sent"] == 3


def test_a_run_is_also_named_by_its_folder(storage, run_ids, capsys):
    assert sync.main(["--run", str(storage / run_ids[0])]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["sent"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --run RUN_ID or --all"),
        (["--run", "x", "--all"], "not both"),
        (["--run", "nobody"], "run 'nobody' not found: neither runs/nobody nor nobody holds a tracking.json"),
        (["--all", "--storage", "nowhere"], "holds no run"),
    ],
)
def test_misuse_is_one_message_and_exit_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert sync.main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_relative_database_is_refused(storage, run_ids, capsys):
    arguments = ["--run", run_ids[0], "--storage", str(storage), "--tracking-uri", "sqlite:///mlflow.db"]
    assert sync.main(arguments) == 2
    assert "four slashes" in capsys.readouterr().err
