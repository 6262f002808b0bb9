"""One thread that writes while the update loop goes on: in the order of what it is given, one thing at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class BackgroundWriter:
    """Used as a context, which ends when the last write has. An error in the thread is raised where the next write is
    waited for, or at the end; beside an error of the loop itself it is a note.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writer")
        self._pending: Future[None] | None = None

    def wait(self) -> None:
        """Until nothing is pending; raises what the write raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def submit(self, write: Callable[[], None]) -> None:
        """Have it called; the one before must have been waited for, so that no more than one is ever in memory."""
        assert self._pending is None
        self._pending = self._thread.submit(write)

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"besides, a write in the background failed: {failure!r}")
        finally:
            self._thread.shutdown()
