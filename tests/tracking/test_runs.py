"""A run's record as MLflow has it at the end: complete, in one piece after a resume, and never twice."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path

import pytest

from iql_ray.tracking.runs import RunLogger
from iql_ray.tracking.spool import write_cursor
from iql_ray.tracking.store import RUN_ID_TAG, load_address, open_client
from iql_ray.tracking.synchronization import synchronize
from tests.tracking.examples import QUICK, client_of, history, new_storage, save_small_policy, start

SENDS_AT_THE_END = dataclasses.replace(QUICK, ship_seconds=3600.0)


@pytest.fixture
def storage(tmp_path, tmp_path_factory):
    return new_storage(tmp_path, tmp_path_factory)


def test_the_run_id_is_mlflows_and_names_the_folder(storage):
    logger = start(storage)
    assert logger.close()
    run = client_of(storage).get_run(logger.run_id)
    assert logger.folder == storage / run.info.run_id
    assert run.data.tags[RUN_ID_TAG] == run.info.run_id


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_with_the_status_it_is_closed_with(storage, status):
    logger = start(storage)
    assert logger.close(status)
    assert client_of(storage).get_run(logger.run_id).info.status == status


def test_points_arrive_with_their_steps_and_the_time_they_were_logged(storage):
    before = int(time.time() * 1000)
    logger = start(storage)
    logger.log_metrics(500, {"train/value_loss": 0.5, "time/updates_per_second": 200})
    logger.log_metrics(1000, {"train/value_loss": 0.25})
    assert logger.close()
    client = client_of(storage)
    assert history(client, logger.run_id, "train/value_loss") == [(500, 0.5), (1000, 0.25)]
    assert history(client, logger.run_id, "time/updates_per_second") == [(500, 200.0)]
    point = client.get_metric_history(logger.run_id, "train/value_loss")[0]
    assert before <= point.timestamp <= time.time() * 1000


def test_values_that_are_not_finite_arrive_and_stop_nothing(storage):
    logger = start(storage)
    logger.log_metrics(1, {"loss": math.nan, "ratio": math.inf, "good": 1.0})
    assert logger.close()
    values = client_of(storage).get_run(logger.run_id).data.metrics
    assert math.isnan(values["loss"])
    assert values["ratio"] > 1e308
    assert values["good"] == 1.0


def test_a_resumed_run_has_one_curve_without_gap_or_repeated_point(storage):
    killed = start(storage)
    for step in (500, 1000, 1500):
        killed.log_metrics(step, {"loss": step / 1000})
    let_go_like_a_kill(killed)

    resumed = RunLogger.reopen(killed.folder, pace=QUICK)
    for step in (1000, 1500, 2000):  # from the checkpoint at update 500
        resumed.log_metrics(step, {"loss": step / 1000})
    assert resumed.close()
    client = client_of(storage)
    assert history(client, resumed.run_id, "loss") == [(500, 0.5), (1000, 1.0), (1500, 1.5), (2000, 2.0)]
    assert client.get_run(resumed.run_id).info.status == "FINISHED"


def test_a_resumed_run_adds_the_curves_that_its_first_part_missed(storage):
    killed = start(storage)
    killed.log_metrics(500, {"train/loss": 1.0})
    let_go_like_a_kill(killed)

    resumed = RunLogger.reopen(killed.folder, pace=QUICK)
    resumed.log_metrics(500, {"train/loss": 9.0, "eval/return_mean": 7.0})
    assert resumed.close()
    client = client_of(storage)
    assert history(client, resumed.run_id, "train/loss") == [(500, 1.0)]
    assert history(client, resumed.run_id, "eval/return_mean") == [(500, 7.0)]


def test_a_reopened_run_is_running_again(storage):
    logger = start(storage)
    assert logger.close("FAILED")
    resumed = RunLogger.reopen(logger.folder, pace=QUICK)
    wait_until(lambda: client_of(storage).get_run(logger.run_id).info.status == "RUNNING")
    assert resumed.close("FINISHED")
    assert client_of(storage).get_run(logger.run_id).info.status == "FINISHED"


def test_a_record_sent_twice_is_there_once(storage):
    logger = start(storage)
    logger.log_metrics(1, {"loss": 1.0, "nan": math.nan})
    logger.log_metrics(2, {"loss": 2.0})
    logger.log_params({"expectile": 0.7})
    logger.log_dataset(name="pen", digest="ab" * 32, source="npz:pen.npz", num_rows=10)
    policy = save_small_policy(logger.folder / "policies" / "2")
    logger.log_model(policy, step=2, register_as="pen", metrics={"return_mean": 3.5})
    assert logger.close()

    write_cursor(logger.folder, 0)  # as if killed after sending and before moving the cursor
    report = synchronize(logger.folder)
    client = client_of(storage)
    run = client.get_run(logger.run_id)
    assert report["sent"] == 8
    assert report["rejected"] == 0
    assert history(client, logger.run_id, "loss") == [(1, 1.0), (2, 2.0)]
    assert len(client.get_metric_history(logger.run_id, "nan")) == 1
    assert len(client.get_metric_history(logger.run_id, "return_mean")) == 1
    assert run.inputs is not None
    assert len(run.inputs.dataset_inputs) == 1
    assert run.outputs is not None
    assert len(run.outputs.model_outputs) == 1
    assert [version.version for version in client.search_model_versions("name = 'pen'")] == [1]


def test_a_run_whose_mlflow_id_was_never_noted_is_found_again(storage):
    logger = start(storage)
    assert logger.close()
    dataclasses.replace(load_address(logger.folder), mlflow_run_id=None).save(logger.folder)
    assert synchronize(logger.folder)["mlflow_run_id"] == logger.run_id


def test_the_dataset_is_an_input_of_the_run_with_its_whole_digest(storage):
    digest = "0123456789abcdef" * 4
    logger = start(storage)
    logger.log_dataset(name="pen", digest=digest, source="minari:pen", num_rows=99, profile={"num_episodes": 3})
    assert logger.close()
    run = client_of(storage).get_run(logger.run_id)
    assert run.inputs is not None
    [logged] = run.inputs.dataset_inputs
    assert logged.dataset.name == "pen"
    assert logged.dataset.digest == digest[:36]
    assert json.loads(logged.dataset.source) == {"uri": "minari:pen"}
    assert json.loads(str(logged.dataset.profile)) == {"num_rows": 99, "num_episodes": 3}
    assert {tag.key: tag.value for tag in logged.tags}["sha256"] == digest
    assert run.data.tags["dataset.sha256"] == digest


def test_parameters_arrive_as_text_and_a_long_one_is_cut(storage):
    logger = start(storage)
    logger.log_params({"expectile": 0.7, "columns": "x" * 7000})
    assert logger.close()
    parameters = client_of(storage).get_run(logger.run_id).data.params
    assert parameters == {"expectile": "0.7", "columns": "x" * 6000}


def test_files_and_folders_of_the_run_folder_become_artifacts(storage):
    logger = start(storage)
    (logger.folder / "figures").mkdir()
    (logger.folder / "figures" / "curve.png").write_bytes(b"picture")
    (logger.folder / "notes.txt").write_text("notes")
    logger.log_artifact("notes.txt")
    logger.log_artifact(logger.folder / "figures", "report")
    assert logger.close()
    client = client_of(storage)
    assert [file.path for file in client.list_artifacts(logger.run_id)] == ["notes.txt", "report"]
    assert [file.path for file in client.list_artifacts(logger.run_id, "report")] == ["report/curve.png"]


def test_a_refused_record_is_set_aside_and_its_neighbours_arrive(storage):
    logger = RunLogger.start(storage=storage, experiment="tests", pace=SENDS_AT_THE_END)
    logger.log_params({"expectile": 0.7})
    logger.log_metrics(1, {"loss": 1.0})
    logger.log_params({"expectile": 0.9})  # MLflow's parameters never change
    assert logger.close()
    client = client_of(storage)
    assert client.get_run(logger.run_id).data.params == {"expectile": "0.7"}
    assert history(client, logger.run_id, "loss") == [(1, 1.0)]
    [rejected] = [json.loads(line) for line in (logger.folder / "spool.rejected.jsonl").read_text().splitlines()]
    assert rejected["record"]["values"] == {"expectile": "0.9"}
    assert "expectile" in rejected["reason"]


def test_an_artifact_that_vanished_is_set_aside(storage):
    logger = start(storage)
    assert logger.close()
    (logger.folder / "brief.txt").write_text("brief")
    resumed = RunLogger.reopen(logger.folder, pace=SENDS_AT_THE_END)
    resumed.log_artifact("brief.txt")
    (logger.folder / "brief.txt").unlink()
    resumed.log_metrics(1, {"loss": 1.0})
    assert resumed.close()
    assert history(client_of(storage), logger.run_id, "loss") == [(1, 1.0)]


def test_the_records_of_a_deleted_run_wait_for_its_return(storage):
    logger = start(storage)
    assert logger.close()
    client = client_of(storage)
    client.delete_run(logger.run_id)
    resumed = RunLogger.reopen(logger.folder, pace=QUICK)
    resumed.log_metrics(1, {"loss": 1.0})
    assert not resumed.close(timeout_seconds=0.5)
    client.restore_run(logger.run_id)
    synchronize(logger.folder, wait_seconds=10.0)
    assert history(client, logger.run_id, "loss") == [(1, 1.0)]


def test_another_store_gets_the_whole_record(storage, tmp_path, tmp_path_factory):
    logger = start(storage)
    logger.log_metrics(1, {"loss": 1.0})
    assert logger.close()
    (tmp_path / "second").mkdir()
    elsewhere = f"sqlite:///{new_storage(tmp_path / 'second', tmp_path_factory)}/mlflow.db"
    resumed = RunLogger.reopen(logger.folder, tracking_uri=elsewhere, pace=QUICK)
    resumed.log_metrics(2, {"loss": 2.0})
    assert resumed.close()
    mlflow_run_id = load_address(logger.folder).mlflow_run_id
    assert mlflow_run_id is not None
    assert mlflow_run_id != logger.run_id
    assert history(open_client(elsewhere), mlflow_run_id, "loss") == [(1, 1.0), (2, 2.0)]


def test_the_machines_load_is_sampled_and_counts_on_after_a_resume(storage):
    pace = dataclasses.replace(QUICK, sample_seconds=0.02)
    logger = RunLogger.start(storage=storage, experiment="tests", pace=pace)
    wait_until(lambda: (logger.folder / "spool.jsonl").read_text().count("system/cpu") >= 2)
    assert logger.close()
    resumed = RunLogger.reopen(logger.folder, pace=pace)
    count = (logger.folder / "spool.jsonl").read_text().count("system/cpu")
    wait_until(lambda: (logger.folder / "spool.jsonl").read_text().count("system/cpu") > count)
    assert resumed.close()
    points = history(client_of(storage), logger.run_id, "system/system_memory_usage_percentage")
    assert [step for step, _ in points] == list(range(len(points)))
    assert all(0 < value < 100 for _, value in points)


@pytest.mark.parametrize("name", ["", "loss!", "/loss", "train//loss", "train/", "../loss", "a" * 251, "löss\n"])
def test_a_name_that_mlflow_refuses_is_refused_at_once(storage, name):
    logger = start(storage)
    with pytest.raises(ValueError, match="letters, digits"):
        logger.log_metrics(1, {name: 1.0})
    assert logger.close()
    assert "loss" not in (logger.folder / "spool.jsonl").read_text()


def test_what_lies_outside_the_run_folder_is_refused(storage):
    logger = start(storage)
    for path in (storage / "mlflow.db", "../mlflow.db", "nowhere.txt"):
        with pytest.raises(ValueError, match="run folder"):
            logger.log_artifact(path)
    with pytest.raises(ValueError, match="holds no policy"):
        logger.log_model(logger.folder, step=1)
    assert logger.close()


def test_a_path_from_where_the_process_stands_is_understood(storage, monkeypatch):
    logger = start(storage)
    (logger.folder / "notes.txt").write_text("notes")
    monkeypatch.chdir(storage.parent)
    logger.log_artifact(Path("runs") / logger.run_id / "notes.txt")
    assert logger.close()
    assert [file.path for file in client_of(storage).list_artifacts(logger.run_id)] == ["notes.txt"]


def test_a_folder_that_is_no_run_is_not_reopened(tmp_path):
    with pytest.raises(ValueError, match="no run folder"):
        RunLogger.reopen(tmp_path)


def test_a_run_that_another_process_holds_is_not_synchronized(storage):
    logger = start(storage)
    with pytest.raises(ValueError, match="held by another process"):
        synchronize(logger.folder)
    assert logger.close()


def let_go_like_a_kill(logger: RunLogger) -> None:
    """What kill -9 leaves: no status, the lock gone, an unfinished line."""
    logger._shipment.is_abandoned = True
    logger._shipper.close(logger._shipment, 0.0)
    logger._spool.close()
    with (logger.folder / "spool.jsonl").open("a") as file:
        file.write('{"kind":"metrics","ti')


def wait_until(is_true, timeout_seconds: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not is_true():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def test_secrets_reach_neither_the_spool_nor_the_store(storage):
    logger = start(storage)
    uri, hidden = "postgresql://ann:pa55@host/db", "postgresql://ann:***@host/db"
    logger.log_params({"tracking_uri": uri, "store.password": "pa55"})
    logger.set_tags({"from": uri})
    logger.log_dataset(name="d", digest="0", source=f"parquet:{uri}", num_rows=1)
    logger.log_model(save_small_policy(logger.folder / "policy"), step=1, tags={"dataset.source": uri})
    assert logger.close()
    assert "pa55" not in (logger.folder / "spool.jsonl").read_text()
    run = client_of(storage).get_run(logger.run_id)
    assert (run.data.params["tracking_uri"], run.data.tags["from"]) == (hidden, hidden)
    assert run.data.params["store.password"] == "***"
