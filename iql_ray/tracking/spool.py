"""The spool: what a run recorded, one JSON line a record, and the cursor of what has been sent.

Every record reaches the operating system before `append` returns, so that kill -9 loses nothing (a power cut may
lose the last seconds). One process at a time holds a spool; the sending itself is not done here.

    run_folder/spool.jsonl            kind, time, then the fields of that kind
    run_folder/spool.cursor           how many bytes of it the tracking store has taken
    run_folder/spool.rejected.jsonl   records that the store refused for good, each with the reason
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

SPOOL_FILE = "spool.jsonl"
CURSOR_FILE = "spool.cursor"
REJECTED_FILE = "spool.rejected.jsonl"
LOCK_POLL_SECONDS = 0.1
TAIL_BYTES = 65536


@dataclass(frozen=True, kw_only=True)
class SpooledRecord:
    """One record, and the byte after it: the cursor's place once the record is sent."""

    fields: dict[str, Any]
    end: int

    @property
    def kind(self) -> str:
        return self.fields["kind"]


class Spool:
    """The spool of one run, held for writing and sending.

    Args:
        folder: the run's folder; it must exist.
        wait_seconds: how long to wait for another process to let go (a killed one takes a moment to vanish).
        is_kept_open: the file stays open, and locked; otherwise it is opened for every record, and whoever has hundreds
            of them sees to it that nobody else writes.

    Raises:
        ValueError: the folder does not exist, or another process still holds the spool.
    """

    def __init__(self, folder: Path, wait_seconds: float = 10.0, is_kept_open: bool = True) -> None:
        if not folder.is_dir():
            raise ValueError(f"run folder {folder} does not exist; check the run id and --storage")
        self.folder = folder
        self._append_lock = threading.Lock()
        self._file: IO[bytes] | None = self._open()
        try:
            _lock(self._file, wait_seconds)
        except BaseException:
            self._file.close()
            raise
        _cut_torn_line(folder / SPOOL_FILE)
        if not is_kept_open:
            self._file.close()
            self._file = None

    def append(self, kind: str, **fields: Any) -> None:
        """Write one record through to the operating system; safe from any thread.

        Raises:
            OSError: the disk took only part of the line; the part is cut off again.
        """
        fields = {"kind": kind, "time": int(time.time() * 1000), **fields}
        line = (json.dumps(fields, separators=(",", ":")) + "\n").encode()
        with self._append_lock, self._opened() as file:
            size = os.fstat(file.fileno()).st_size
            if file.write(line) != len(line):
                file.truncate(size)
                raise OSError(f"{self.folder / SPOOL_FILE} takes no more data; is the disk full?")

    def read(self, start: int = 0, limit: int | None = None) -> list[SpooledRecord]:
        """At most `limit` whole records from the byte `start` on, which must begin a line."""
        return read_records(self.folder, start, limit)

    @property
    def cursor(self) -> int:
        return read_cursor(self.folder)

    def advance(self, cursor: int) -> None:
        """Remember that everything before the byte `cursor` has been sent."""
        write_cursor(self.folder, cursor)

    def reject(self, record: SpooledRecord, reason: str) -> None:
        """Keep a record that the store will never take, so that nothing vanishes silently."""
        with (self.folder / REJECTED_FILE).open("a") as file:
            file.write(json.dumps({"reason": reason, "record": record.fields}) + "\n")

    def close(self) -> None:
        """Let go of the spool."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> IO[bytes]:
        return (self.folder / SPOOL_FILE).open("ab", buffering=0)

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        if self._file is not None:
            yield self._file
            return
        with self._open() as file:
            yield file


def read_records(folder: Path, start: int = 0, limit: int | None = None) -> list[SpooledRecord]:
    """Whole records from the byte `start` on; a last line that is still being written is left out.

    Raises:
        ValueError: a line is no JSON record.
    """
    records: list[SpooledRecord] = []
    end = start
    with (folder / SPOOL_FILE).open("rb") as file:
        file.seek(start)
        for line in islice(file, limit):
            if not line.endswith(b"\n"):
                break
            records.append(SpooledRecord(fields=_parse(line, folder, end), end=end + len(line)))
            end += len(line)
    return records


def count_waiting(folder: Path) -> int:
    """How many records of a run have not been sent."""
    return len(read_records(folder, read_cursor(folder)))


def bytes_waiting(folder: Path) -> int:
    """How much of a run's spool has not been sent; cheaper than to count its records."""
    return (folder / SPOOL_FILE).stat().st_size - read_cursor(folder)


def count_rejected(folder: Path) -> int:
    """How many records of a run its store refused for good."""
    path = folder / REJECTED_FILE
    return len(path.read_text().splitlines()) if path.exists() else 0


def read_cursor(folder: Path) -> int:
    """Bytes already sent. Lost or unreadable counts as none: sending again adds no second point."""
    try:
        return min(int((folder / CURSOR_FILE).read_text()), (folder / SPOOL_FILE).stat().st_size)
    except (FileNotFoundError, ValueError):
        return 0


def write_cursor(folder: Path, cursor: int) -> None:
    """Replace the cursor, whole or not at all."""
    temporary = folder / (CURSOR_FILE + ".partial")
    temporary.write_text(f"{cursor}\n")
    temporary.replace(folder / CURSOR_FILE)


def _parse(line: bytes, folder: Path, start: int) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{folder / SPOOL_FILE}: the line at byte {start} is no JSON record: {error}") from error
    if not isinstance(fields, dict) or "kind" not in fields:
        raise ValueError(f"{folder / SPOOL_FILE}: the line at byte {start} names no kind of record: {line[:80]!r}")
    return fields


def _lock(file: IO[bytes], wait_seconds: float) -> None:
    """Take the kernel's lock on the file; it goes with the process, however the process ends."""
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise ValueError(
                    f"{file.name} is held by another process: the run is still going, or is being sent; wait for it"
                ) from error
        except OSError:
            return  # a file system without locks: one writer is then up to the user
        time.sleep(LOCK_POLL_SECONDS)


def _cut_torn_line(path: Path) -> None:
    """Drop what follows the last newline: half a record, torn off by a crash.

    {"kind":"metrics",...}\n{"kind":"met        before
    {"kind":"metrics",...}\n                    after
    """
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        while size > 0:
            start = max(0, size - TAIL_BYTES)
            file.seek(start)
            newline = file.read(size - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            size = start
        file.truncate(0)
