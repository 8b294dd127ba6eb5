"""Logs that are written here for processes that are not trusted with a file."""

import os
import threading
from pathlib import Path

LIMIT = 8 << 20
"""Bytes of a log at which it is set aside as `NAME.1` and begun anew."""
_CHUNK = 1 << 16


class PipedLog:
    """A log file that only this process opens; others write to it through a pipe.

    They cannot name, replace, shorten or read the file, and it never takes more than twice the limit on disk.
    Output that the disk has no room for is dropped.
    """

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        """Open the log and start the thread that writes it; the thread ends when all writers have closed.

        Args:
            path: File the output is appended to; never followed where it is a symbolic link.
            limit: Bytes at which it is begun anew.

        Raises:
            OSError: If the file cannot be opened.
        """
        self._path, self._limit = path, limit
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open()
        read, self.writer = os.pipe()
        """File descriptor to write to; whoever starts the process closes it afterwards."""
        threading.Thread(target=self._copy, args=(read,), name=f"log {path.name}", daemon=True).start()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        return os.open(self._path, flags, 0o600)

    def _copy(self, read: int) -> None:
        with open(read, "rb", buffering=0) as pipe:
            while chunk := pipe.read(_CHUNK):
                try:
                    self._append(chunk)
                except OSError:
                    continue
        os.close(self._file)

    def _append(self, chunk: bytes) -> None:
        if os.fstat(self._file).st_size + len(chunk) > self._limit:
            os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))
            fresh = self._open()
            os.close(self._file)
            self._file = fresh
        while chunk:
            chunk = chunk[os.write(self._file, chunk) :]
