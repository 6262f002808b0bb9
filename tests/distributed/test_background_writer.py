"""The thread that writes beside the loop: order, one at a time, and where its errors come out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from iql_ray.distributed.background_writer import BackgroundWriter


def failing() -> None:
    raise OSError("no space left on device")


def test_what_is_written_comes_in_order_and_the_end_waits_for_the_last():
    written: list[int] = []
    with BackgroundWriter() as writer:
        for index in range(5):
            writer.wait()
            writer.submit(lambda index=index: written.append(index))
    assert written == [0, 1, 2, 3, 4]


def test_submitting_returns_while_the_write_goes_on():
    may_end, written = threading.Event(), []

    def slow() -> None:
        assert may_end.wait(60)
        written.append("slow")

    with BackgroundWriter() as writer:
        writer.submit(slow)
        assert written == []
        may_end.set()
        writer.wait()
        assert written == ["slow"]


def test_an_error_comes_out_where_the_next_write_waits_and_once():
    with BackgroundWriter() as writer:
        writer.submit(failing)
        with pytest.raises(OSError, match="no space left"):
            writer.wait()
        writer.wait()


def test_an_error_of_the_last_write_comes_out_at_the_end():
    with pytest.raises(OSError, match="no space left"), BackgroundWriter() as writer:
        writer.submit(failing)


def loop_that_fails(write: Callable[[], None]) -> None:
    with BackgroundWriter() as writer:
        writer.submit(write)
        raise ZeroDivisionError


def test_an_error_of_the_loop_is_not_hidden_by_one_of_the_write():
    with pytest.raises(ZeroDivisionError) as caught:
        loop_that_fails(failing)
    assert caught.value.__notes__ == ["besides, a write in the background failed: OSError('no space left on device')"]


def test_a_loop_that_fails_still_has_what_it_was_writing():
    written: list[str] = []

    def slow() -> None:
        time.sleep(0.05)
        written.append("slow")

    with pytest.raises(ZeroDivisionError):
        loop_that_fails(slow)
    assert written == ["slow"]
