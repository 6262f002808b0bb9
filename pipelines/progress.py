"""How a run shows itself while it goes: a bar on a terminal, plain lines in a job's log. All of it on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from iql_ray.distributed.monitor import Progress

SECONDS_BETWEEN_LINES = 15.0
Write = Callable[[str], None]
Unit = Literal["updates", "environment steps"]


@contextmanager
def shown_progress(total: int, unit: Unit = "updates") -> Iterator[Callable[[Progress], None]]:
    """A function that shows where a run of so many `unit` stands, fitting to what stderr is."""
    if not sys.stderr.isatty():
        yield Lines(total, lambda line: print(line, file=sys.stderr, flush=True), unit=unit).show
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("training"), BarColumn(), TextColumn("{task.fields[numbers]}"), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=total, numbers="")
        write = lambda line: bar.console.print(line, markup=False)  # noqa: E731
        lines = Lines(total, write, seconds_between_lines=float("inf"), unit=unit)

        def show(progress: Progress) -> None:
            lines.show(progress)
            bar.update(task, completed=progress.step, numbers=numbers_of(progress, total, unit))

        yield show


def say(line: str) -> None:
    """A line for people, beside what is shown of progress."""
    print(line, file=sys.stderr, flush=True)


class Messages:
    """What a run has had to say so far, each of it written once."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._num_written = 0

    def show(self, messages: Sequence[str]) -> None:
        for message in messages[self._num_written :]:
            self._write(f"warning: {message}")
        self._num_written = len(messages)


class Lines:
    """Every message and every evaluation once, and the state of training now and then."""

    def __init__(
        self,
        total: int,
        write: Write,
        seconds_between_lines: float = SECONDS_BETWEEN_LINES,
        unit: Unit = "updates",
    ) -> None:
        self._total = total
        self._unit: Unit = unit
        self._write = write
        self._seconds_between_lines = seconds_between_lines
        self._messages = Messages(write)
        self._evaluated: int | None = None
        self._shown_step: int | None = None
        self._shown_at = time.monotonic()

    def show(self, progress: Progress) -> None:
        self._messages.show(progress.messages)
        self._show_evaluation(progress)
        is_due = time.monotonic() - self._shown_at >= self._seconds_between_lines
        if is_due and progress.metrics and progress.step != self._shown_step:
            self._write(f"training {numbers_of(progress, self._total, self._unit)}")
            self._shown_step, self._shown_at = progress.step, time.monotonic()

    def _show_evaluation(self, progress: Progress) -> None:
        result = progress.evaluation
        if result is None or result["num_updates"] == self._evaluated:
            return
        self._evaluated = result["num_updates"]
        low, high = result["return_ci"]
        is_fitted = result.get("method") == "fqe"
        what, where = ("fitted value", "held-out episodes") if is_fitted else ("return", "episodes")
        after = result["num_env_steps"] if self._unit == "environment steps" else result["num_updates"]
        self._write(
            f"evaluation after {after:,} {self._unit}: {what} {result['return_mean']:.1f} "
            f"[{low:.1f}, {high:.1f}] over {result['num_episodes']} {where}"
        )


def numbers_of(progress: Progress, total: int, unit: Unit = "updates") -> str:
    """`12,000 / 30,000 updates  141 updates/s  value loss 0.031`."""
    metrics = progress.metrics
    parts = [f"{progress.step:,} / {total:,} {unit}"]
    if (rate := metrics.get("time/updates_per_second")) is not None:
        parts.append(f"{rate:.0f} updates/s")
    if (episode_return := metrics.get("online/episode_return")) is not None:
        parts.append(f"episode return {episode_return:.4g}")
    losses = {name: metrics.get(f"train/{name}_loss") for name in ("value", "critic", "policy")}
    return "  ".join(parts + [f"{name} loss {loss:.3g}" for name, loss in losses.items() if loss is not None])
