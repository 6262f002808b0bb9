"""How a run shows itself while it goes: a bar on a terminal, plain lines in a job's log. All of it on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iql_ray.distributed.monitor import Progress

SECONDS_BETWEEN_LINES = 15.0
Write = Callable[[str], None]


@contextmanager
def shown_progress(num_updates: int) -> Iterator[Callable[[Progress], None]]:
    """A function that shows where a run of `num_updates` stands, fitting to what stderr is."""
    if not sys.stderr.isatty():
        yield Lines(num_updates, lambda line: print(line, file=sys.stderr, flush=True)).show
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("training"), BarColumn(), TextColumn("{task.fields[numbers]}"), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=num_updates, numbers="")
        lines = Lines(
            num_updates, lambda line: bar.console.print(line, markup=False), seconds_between_lines=float("inf")
        )

        def show(progress: Progress) -> None:
            lines.show(progress)
            bar.update(task, completed=progress.update_count, numbers=numbers_of(progress, num_updates))

        yield show


class Lines:
    """Every message and every evaluation once, and the state of training now and then."""

    def __init__(self, num_updates: int, write: Write, seconds_between_lines: float = SECONDS_BETWEEN_LINES) -> None:
        self._num_updates = num_updates
        self._write = write
        self._seconds_between_lines = seconds_between_lines
        self._num_messages = 0
        self._evaluated: int | None = None
        self._shown_update: int | None = None
        self._shown_at = time.monotonic()

    def show(self, progress: Progress) -> None:
        for message in progress.messages[self._num_messages :]:
            self._write(f"warning: {message}")
        self._num_messages = len(progress.messages)
        self._show_evaluation(progress)
        is_due = time.monotonic() - self._shown_at >= self._seconds_between_lines
        if is_due and progress.metrics and progress.update_count != self._shown_update:
            self._write(f"training {numbers_of(progress, self._num_updates)}")
            self._shown_update, self._shown_at = progress.update_count, time.monotonic()

    def _show_evaluation(self, progress: Progress) -> None:
        result = progress.evaluation
        if result is None or result["num_updates"] == self._evaluated:
            return
        self._evaluated = result["num_updates"]
        low, high = result["return_ci"]
        is_fitted = result.get("method") == "fqe"
        what, where = ("fitted value", "held-out episodes") if is_fitted else ("return", "episodes")
        self._write(
            f"evaluation after {result['num_updates']:,} updates: {what} {result['return_mean']:.1f} "
            f"[{low:.1f}, {high:.1f}] over {result['num_episodes']} {where}"
        )


def numbers_of(progress: Progress, num_updates: int) -> str:
    """`12,000 / 30,000 updates  141 updates/s  value loss 0.031`."""
    metrics = progress.metrics
    parts = [f"{progress.update_count:,} / {num_updates:,} updates"]
    if metrics:
        parts.append(f"{metrics['time/updates_per_second']:.0f} updates/s")
        parts += [f"{name} loss {metrics[f'train/{name}_loss']:.3g}" for name in ("value", "critic", "policy")]
    return "  ".join(parts)
