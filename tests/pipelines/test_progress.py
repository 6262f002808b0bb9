"""How a run shows itself: every message and evaluation once, the state of training now and then."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import pytest

from iql_ray.distributed.monitor import Progress
from pipelines.progress import Lines, numbers_of, shown_progress

METRICS = {
    "time/updates_per_second": 141.4,
    "train/value_loss": 0.03125,
    "train/critic_loss": 2.5,
    "train/policy_loss": -1.0,
}


def progress(update_count: int = 12_000, evaluated: int | None = None, messages: tuple[str, ...] = ()) -> Progress:
    evaluation: dict[str, Any] = {"return_mean": -150.26, "return_ci": [-160.0, -140.0], "num_episodes": 10}
    return Progress(
        step=update_count,
        metrics=METRICS,
        evaluation=None if evaluated is None else {"num_updates": evaluated, **evaluation},
        messages=messages,
    )


@pytest.fixture
def written() -> list[str]:
    return []


def test_the_state_of_training_is_one_line_with_speed_and_losses():
    assert numbers_of(progress(), 30_000) == (
        "12,000 / 30,000 updates  141 updates/s  value loss 0.0312  critic loss 2.5  policy loss -1"
    )


def test_before_the_first_point_there_is_only_the_count():
    assert numbers_of(Progress(step=0, metrics={}, evaluation=None, messages=()), 500) == "0 / 500 updates"


def test_a_message_is_written_once(written: list[str]):
    lines = Lines(30_000, written.append)
    lines.show(progress(messages=("a",)))
    lines.show(progress(messages=("a", "b")))
    lines.show(progress(messages=("a", "b")))
    assert written == ["warning: a", "warning: b"]


def test_an_evaluation_is_written_once(written: list[str]):
    lines = Lines(30_000, written.append)
    for evaluated in (None, 5000, 5000, 10_000):
        lines.show(progress(evaluated=evaluated))
    assert written == [
        "evaluation after 5,000 updates: return -150.3 [-160.0, -140.0] over 10 episodes",
        "evaluation after 10,000 updates: return -150.3 [-160.0, -140.0] over 10 episodes",
    ]


def test_a_value_from_data_alone_is_not_called_a_return(written: list[str]):
    evaluation = {"method": "fqe", "return_mean": 1.0, "return_ci": [0.0, 2.0], "num_episodes": 25, "num_updates": 7}
    Lines(9, written.append).show(Progress(step=7, metrics={}, evaluation=evaluation, messages=()))
    assert written == ["evaluation after 7 updates: fitted value 1.0 [0.0, 2.0] over 25 held-out episodes"]


def test_training_is_written_when_it_is_time_and_it_has_moved(written: list[str]):
    lines = Lines(30_000, written.append, seconds_between_lines=0.0)
    for update_count in (12_000, 12_000, 13_000):
        lines.show(progress(update_count))
    assert [line.split(" updates")[0] for line in written] == ["training 12,000 / 30,000", "training 13,000 / 30,000"]


def test_between_times_training_is_quiet(written: list[str]):
    Lines(30_000, written.append, seconds_between_lines=1000.0).show(progress())
    assert written == []


def test_a_jobs_log_gets_plain_lines_on_stderr(capsys: pytest.CaptureFixture[str]):
    with shown_progress(30_000) as show:
        show(progress(evaluated=5000, messages=("careful",)))
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[0] == "warning: careful"
    assert "\x1b" not in output.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_and_the_same_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    with shown_progress(30_000) as show:
        show(progress(evaluated=5000, messages=("no [bold] or [/tmp/x] there",)))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    message = "warning: no [bold] or [/tmp/x] there"
    for words in ("training", "12,000 / 30,000 updates", message, "evaluation after 5,000 updates"):
        assert words in shown
    assert capsys.readouterr().out == ""
