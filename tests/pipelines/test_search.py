"""How a search shows itself while it goes."""

from __future__ import annotations

import pytest

from iql_ray.distributed.search_tuning import SearchProgress
from pipelines.search import Lines, line_of


def progress(num_finished: int = 0, messages: tuple[str, ...] = ()) -> SearchProgress:
    running = {"one": {"num_updates": 4000}, "two": {"num_updates": 3000}}
    return SearchProgress(
        num_trials=8, num_finished=num_finished, running=running, best_score=-140.2, messages=messages
    )


def test_a_line_says_where_the_search_stands():
    line = "2 of 8 trials are over; running at 4,000 and 3,000 updates; best score so far -140.2"
    assert line_of(progress(2)) == line


def test_what_trials_have_to_say_is_written_once(capsys: pytest.CaptureFixture[str]):
    lines = Lines()
    for messages in (("a",), ("a", "b"), ("a", "b")):
        lines.show(progress(messages=messages))
    written = capsys.readouterr().err.splitlines()
    assert [line for line in written if line.startswith("warning")] == ["warning: a", "warning: b"]
