"""Many runs of one process share the thread that sends them, and no open file stays behind."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from iql_ray.tracking.runs import RunLogger
from iql_ray.tracking.shipping import Shipper
from iql_ray.tracking.store import HOLDER_TAG
from iql_ray.tracking.synchronization import synchronize
from tests.tracking.examples import QUICK, client_of, history, new_storage

NUM_RUNS = 12


@pytest.fixture
def storage(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_storage(tmp_path, tmp_path_factory)


def start_among(storage: Path, shipper: Shipper, holder: str = "search") -> RunLogger:
    return RunLogger.start(storage=storage, experiment="tests", tags={HOLDER_TAG: holder}, pace=QUICK, shipper=shipper)


def open_files_under(folder: Path) -> list[str]:
    """This process's, by name."""
    targets = []
    for each in Path("/proc/self/fd").iterdir():
        if each.exists():
            targets.append(os.readlink(each))
    return [target for target in targets if target.startswith(str(folder)) and target.endswith(".jsonl")]


def test_many_runs_take_one_thread_and_no_open_file(storage: Path):
    shipper = Shipper(0.05)
    loggers = [start_among(storage, shipper) for _ in range(NUM_RUNS)]
    for index, logger in enumerate(loggers):
        logger.log_metrics(1, {"loss": float(index)})
    assert sum(thread.name == "iql-ray-tracking" for thread in threading.enumerate()) == 1
    assert open_files_under(storage) == []
    assert all(logger.close("FINISHED", 60.0) for logger in loggers)
    client = client_of(storage)
    assert [history(client, logger.run_id, "loss") for logger in loggers] == [[(1, float(i))] for i in range(NUM_RUNS)]


def test_a_run_that_the_store_does_not_take_keeps_no_other_one_waiting(storage: Path, monkeypatch: pytest.MonkeyPatch):
    shipper = Shipper(0.05)
    bad, good = start_among(storage, shipper), start_among(storage, shipper)
    bad.close("FINISHED", 60.0)
    bad = RunLogger.reopen(bad.folder, pace=QUICK, shipper=shipper)
    monkeypatch.setattr(type(bad._shipment), "send", _failing_for(bad.folder, type(bad._shipment).send))
    good.log_metrics(1, {"loss": 0.5})
    assert good.close("FINISHED", 60.0)
    assert not bad.close("FINISHED", 0.1)


def _failing_for(folder: Path, send):
    def send_or_fail(shipment):
        if shipment.spool.folder == folder:
            raise ConnectionError("away")
        send(shipment)

    return send_or_fail


def test_while_its_search_goes_on_a_member_is_not_sent_by_another_process(storage: Path):
    search = RunLogger.start(storage=storage, experiment="tests", pace=QUICK)
    shipper = Shipper(0.05)
    member = start_among(storage, shipper, holder=search.run_id)
    with pytest.raises(ValueError, match="held by another process"):
        synchronize(member.folder)
    assert member.close("FINISHED", 60.0)
    assert search.close("FINISHED", 60.0)
    assert synchronize(member.folder)["rejected"] == 0
