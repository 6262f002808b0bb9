"""Search expectile, inverse temperature and other settings; trials train whole grids that share data and critics.

iql-ray search --dataset data/pen --env AdroitHandPen-v1 --expectiles 0.6 0.7 0.8 0.9 --inverse-temperatures 0.5 1 3 10
    --seeds 0 1 2
iql-ray search --resume SEARCH
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iql_ray.distributed.search_config import SearchConfig
from pipelines import command_line
from pipelines.progress import Messages, say
from pipelines.ray_session import cluster_nodes, ray_session
from pipelines.storing import stored

if TYPE_CHECKING:
    from iql_ray.distributed.search_tuning import SearchProgress

SECONDS_BETWEEN_LINES = 15.0


def search(config: SearchConfig) -> dict[str, Any]:
    """Search as configured, or say what that would be; returns the answer and where it lies."""
    from iql_ray.distributed.search_checking import check_search

    with stored(config) as config:
        checked = check_search(config)
        if config.dry_run:
            from iql_ray.distributed.search_estimate import estimate, in_words

            found = estimate(checked, cluster_nodes(os.cpu_count()))
            print(in_words(found), file=sys.stderr)
            return found
        with ray_session(num_cpus=os.cpu_count()):
            from iql_ray.distributed import search as searching

            result = searching.search(checked, Lines().show, say)
    print(f"\n{result['verdict']}\npage: {result['search_html']}", file=sys.stderr)
    return result


class Lines:
    """A line whenever a trial is over, and now and then between; every message once."""

    def __init__(self) -> None:
        self._num_finished: int | None = None
        self._shown_at = 0.0
        self._messages = Messages(self._write)

    def show(self, progress: SearchProgress) -> None:
        self._messages.show(progress.messages)
        is_news = progress.num_finished != self._num_finished
        if is_news or time.monotonic() - self._shown_at >= SECONDS_BETWEEN_LINES:
            self._num_finished, self._shown_at = progress.num_finished, time.monotonic()
            self._write(line_of(progress))

    def _write(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def line_of(progress: SearchProgress) -> str:
    """`2 of 8 trials are over; running at 4,000 and 3,000 updates; best score so far -140.2`."""
    parts = [f"{progress.num_finished} of {progress.num_trials} trials are over"]
    if progress.running:
        counts = " and ".join(f"{result['num_updates']:,}" for result in progress.running.values())
        parts.append(f"running at {counts} updates")
    if progress.best_score is not None:
        parts.append(f"best score so far {progress.best_score:.1f}")
    return "; ".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command_line.main(SearchConfig, search, argv, description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
