"""An append-only log in a folder: chained lines, files of bounded size and number, flushed to the disk."""

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedperfit.edge.audit.chain import Link, chained, parsed
from fedperfit.edge.audit.files import FILE, head_of, numbers, path_of
from fedperfit.edge.audit.totals import Totals
from fedperfit.protocol.system.errors import FedperfitError, InputError
from fedperfit.protocol.system.files import mend_lines, sweep, write_atomic

FILE_BYTES = 4 << 20
KEPT_FILES = 16
_GAP = "gap"


class Unrecorded(FedperfitError):
    """What could not be recorded, and so is not done."""


class AuditLog:
    """The log of one agent, its only writer; safe to use from many threads.

    A kill leaves at most an unfinished last line: the next start cuts it and records the gap. A full disk
    fails `add` and leaves the log whole; failed writes are counted, and the gap is recorded with the first
    line that finds room.
    """

    def __init__(self, folder: Path, *, file_bytes: int = FILE_BYTES, files: int = KEPT_FILES) -> None:
        """Go on where the log ends, or begin one.

        Args:
            folder: Folder of the log alone; made where it is missing.
            file_bytes: Size at which the next file begins.
            files: Most files that are kept.
        """
        self._folder, self._file_bytes, self._files = folder, file_bytes, files
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._number, self._size, self._link = 0, 0, Link()
        self._failed, self._why = 0, ""
        self.totals = Totals()
        """Counts since the log began."""
        with suppress(OSError), self._lock:  # without room the first `add` tries again
            self._open()

    def add(self, *events: Mapping[str, Any]) -> int:
        """Write events, all or none, flushed to the disk.

        Args:
            events: JSON values, each with its `event`; the time is added.

        Returns:
            Number of the last line.

        Raises:
            Unrecorded: There is no room, or the disk fails.
        """
        timed = [_timed(event) for event in events]
        with self._lock:
            try:
                self._open()
                self._append([*self._gap(), *timed])
            except OSError as error:
                self._failed += 1
                self._why = error.strerror or type(error).__name__
                raise Unrecorded(f"{self._folder}: {self._why}: what is not recorded is not sent") from None
            self._failed = 0
            return self._link.number

    def close(self) -> None:
        """Release the file; nothing can be added afterwards."""
        with self._lock:
            self._release()

    def _gap(self) -> list[Mapping[str, Any]]:
        if not self._failed:
            return []
        return [_timed({"event": _GAP, "failed_writes": self._failed, "reason": self._why})]

    def _append(self, events: list[Mapping[str, Any]]) -> None:
        assert self._handle is not None
        data, link = chained(events, self._link)
        if self._size + len(data) > self._file_bytes:
            self._begin_file()
            data, link = chained(events, self._link)
        try:
            _write_all(self._handle, data)
        except OSError:
            self._take_back()
            raise
        self._size += len(data)
        self._link = link
        for event in events:
            self.totals.count(event)

    def _take_back(self) -> None:
        """Leave nothing of a write that failed."""
        assert self._handle is not None
        try:
            os.ftruncate(self._handle, self._size)
        except OSError:
            self._release()  # the unfinished line is cut when the file is opened again

    def _release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _open(self) -> None:
        if self._handle is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep(self._folder)
        there = numbers(self._folder)
        if not there:
            self._begin_file()
            return
        path = path_of(self._folder, there[-1])
        before = path.stat().st_size
        mend_lines(path)
        self._number, self._size = there[-1], path.stat().st_size
        whole = self._resume(path)
        self._handle = _opened(path)
        if not whole:
            self._begin_file()
            self._append([_timed({"event": _GAP, "reason": f"{path.name} holds lines that cannot be read"})])
        elif before > self._size:
            reason = f"a line of {before - self._size} bytes was cut off"
            self._append([_timed({"event": _GAP, "reason": reason})])

    def _resume(self, path: Path) -> bool:
        """Take link and totals from the newest file; whether all of its lines can be read."""
        whole = True
        for position, line in enumerate(path.read_bytes().splitlines()):
            try:
                event = parsed(line)
                self._link = Link(event["n"] - 1)
                if position == 0:
                    self.totals = Totals.from_json(event.get("totals"))
                    self._drop(int(event["dropped_files"]))
                else:
                    self.totals.count(event)
            except (InputError, KeyError, TypeError, ValueError):
                whole = False
            self._link = self._link.after(line)
        return whole and self._size > 0

    def _begin_file(self) -> None:
        number = self._number + 1
        dropped = max(number - self._files, 0)
        head = {
            "event": FILE,
            "file": number,
            "dropped_files": dropped,
            "dropped_lines": self._lines_before(dropped + 1, number),
            "totals": self.totals.to_json(),
        }
        line, link = chained([_timed(head)], self._link)
        path = path_of(self._folder, number)
        write_atomic(path, line)
        self._release()
        self._handle = _opened(path)
        self._number, self._size, self._link = number, len(line), link
        self._drop(dropped)

    def _lines_before(self, first: int, new: int) -> int:
        """Number of the last line before file `first`."""
        if first == new:
            return self._link.number
        try:
            return int(head_of(path_of(self._folder, first))["n"]) - 1
        except (InputError, OSError):
            return 0

    def _drop(self, last: int) -> None:
        for number in numbers(self._folder):
            if number <= last:
                path_of(self._folder, number).unlink(missing_ok=True)


def _timed(event: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **event}


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0))


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    os.fsync(handle)
