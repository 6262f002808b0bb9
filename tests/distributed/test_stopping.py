"""An order to end: it waits for whoever is busy and for nobody else, and SIGTERM becomes one where a run is going."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.exceptions import RayActorError

from iql_ray import checkpoint
from iql_ray.distributed import stopping
from iql_ray.distributed.learner import train
from iql_ray.distributed.stopping import StopListener, StopOrder, terminated
from tests.distributed.examples import Notes, different, final_tensors, learner_of, plan_of, tiny_dataset, train_config
from tests.distributed.in_step import trained_in_step
from tests.distributed.killing import in_background, wait_until


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> StopOrder:
    monkeypatch.setattr(stopping, "POLL_SECONDS", 0.01)
    return StopOrder()


@pytest.fixture
def listener(order: StopOrder) -> Iterator[StopListener]:
    listener = StopListener(order.heartbeat)
    yield listener
    listener.close()


def test_an_order_waits_for_nobody_where_nobody_is_busy(order: StopOrder, listener: StopListener):
    assert order.stop(timeout_seconds=0)
    assert wait_until(lambda: listener.is_set() or None, timeout_seconds=30)


def test_an_order_waits_until_a_busy_worker_has_saved(order: StopOrder, listener: StopListener):
    saved = []

    def work() -> None:
        with listener:
            order.heartbeat("late", False)
            wait_until(lambda: listener.is_set() or None, timeout_seconds=30)
            time.sleep(0.05)
            saved.append(True)

    wait = in_background(work)
    wait_until(lambda: order._waits_for() or None, timeout_seconds=30)
    assert order.stop(timeout_seconds=30)
    assert saved
    wait()


def test_a_worker_that_saves_too_long_is_left(order: StopOrder):
    order.heartbeat("slow", True)
    assert not order.stop(timeout_seconds=0.01)


def test_a_worker_that_is_silent_is_gone(order: StopOrder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stopping, "SILENCE_SECONDS", 0.1)
    order.heartbeat("gone", True)
    assert order.stop(timeout_seconds=30)


def test_a_thousand_workers_ask_every_five_seconds(order: StopOrder):
    answers = [order.heartbeat(str(worker), False) for worker in range(1000)]
    assert answers[0].next_poll_seconds == pytest.approx(0.01)
    assert answers[-1].next_poll_seconds == pytest.approx(1000 / 200)


def test_a_listener_whose_order_died_listens_no_more():
    def dead(worker: str, is_busy: bool) -> stopping.Answer:
        raise RayActorError

    listener = StopListener(dead)
    listener.close()
    assert not listener.is_set()


def terminate(num_times: int = 1, then_seconds: float = 30.0) -> None:
    """What `ray job stop` sends to this process, and what the process does meanwhile."""
    for _ in range(num_times):
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(then_seconds)


def run(save: Callable[[], object], num_signals: int = 1, seconds: float = 30.0, closed: list[bool] | None = None):
    """A run that is terminated while it is going, and once more while its record is closed."""
    with terminated() as termination:
        try:
            with termination.saves(save, "to go on: wait"):
                terminate(num_signals, seconds)
        finally:
            terminate(then_seconds=0.01)
            if closed is not None:
                closed.append(True)


def test_sigterm_ends_a_process_that_has_nothing_to_save():
    with pytest.raises(SystemExit) as stopped, terminated():
        terminate()
    assert stopped.value.code == signal.SIGTERM


def test_sigterm_saves_before_it_ends_and_says_how_to_go_on():
    saved = threading.Event()
    with pytest.raises(SystemExit) as stopped:
        run(saved.set)
    assert saved.is_set()
    assert (stopped.value.code, stopped.value.__notes__) == (signal.SIGTERM, ["to go on: wait"])


def test_a_second_sigterm_waits_for_nothing():
    is_over = threading.Event()
    with pytest.raises(SystemExit):
        run(is_over.wait, num_signals=2)
    assert not is_over.is_set()
    is_over.set()


def test_a_run_whose_workers_return_while_it_is_saved_ends_as_stopped():
    with pytest.raises(SystemExit):
        run(lambda: None, seconds=0.0)


def test_nothing_interrupts_the_closing_of_a_record():
    closed: list[bool] = []
    with pytest.raises(SystemExit):
        run(lambda: None, closed=closed)
    assert closed == [True]


def test_the_handler_before_is_there_again_after():
    before = signal.getsignal(signal.SIGTERM)
    with terminated():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("last_update", [3, 10])
def test_a_loop_that_is_stopped_anywhere_goes_on_bit_for_bit(tmp_path: Path, last_update: int):
    """Twenty updates with a checkpoint at ten; one that is due and one that is ordered are one."""
    config = train_config(tiny_dataset(tmp_path), eval_method="fqe")
    plan = plan_of(config, tmp_path / "run")
    learner, notes = learner_of(plan), Notes()
    train(learner, learner.sampler, notes, lambda: learner.agent.update_count == last_update)
    assert notes.updates("checkpoint") == [0, last_update]
    saved = checkpoint.load(plan.run_folder, last_update)
    assert saved.is_to_be_evaluated == (last_update == 10)
    again = learner_of(plan)
    again.restore(saved)
    train(again, again.sampler, Notes())
    assert different(final_tensors(plan.run_folder, 20), trained_in_step(config, tmp_path / "undisturbed")) == []
