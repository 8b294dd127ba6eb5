"""JSON files of any size, read one value at a time.

Official LaMP files are single JSON arrays of up to several gigabytes; they pass through a 64 KiB buffer.
"""

import gzip
import json
import re
import shutil
import zlib
from codecs import BOM_UTF8, EncodedFile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, cast

import ijson

from fedperfit.protocol.system.errors import InputError, MissingFileError

BUFFER = 1 << 16
"""Bytes read at once."""
MAX_DEPTH = 32
"""LaMP nests four deep; a file that nests deeper is garbage and could exhaust the memory."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""Begin of the escape of a surrogate; a backslash before it may be its own."""
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\(u[dD][89a-fA-F][0-9a-fA-F]{2}|.)",
    re.DOTALL,
)
"""An escape, two for a pair of surrogates."""
_OF_ESCAPES = b"\\u0123456789abcdefABCDEF"
"""Bytes of which escapes of surrogates are made."""


def elements(path: Path) -> Iterator[Any]:
    """Yield the elements of the JSON list in `path`, one by one.

    Raises:
        InputError: The file is missing, empty, an HTML page, not JSON, or holds something other than a list.
            The message names the file, and line and column of the first byte that is not JSON.
    """
    first = first_byte(path)
    if first != b"[":
        content = "an object" if first == b"{" else "something else"
        raise InputError(f"{path}: expected a JSON list, found {content}")
    events = _events(path)
    next(events)
    yield from _values(path, events)


def document(path: Path) -> dict[str, Any]:
    """Return the JSON object that is all of `path`, for files that fit in memory.

    Raises:
        InputError: As `elements` does, where an object is expected.
    """
    if first_byte(path) != b"{":
        raise InputError(f"{path}: expected a JSON object")
    value, *_ = list(_values(path, _events(path)))
    return dict(value)


def check(path: Path) -> None:
    """Check that all of `path` is one JSON list or object.

    Raises:
        InputError: As `elements` does.
    """
    first = first_byte(path)
    if first not in (b"[", b"{"):
        raise InputError(f"{path}: expected JSON, found {first!r} at its start")
    for _ in _events(path):
        pass


def first_byte(path: Path) -> bytes:
    """Return the first byte that is not blank.

    Raises:
        InputError: The file is missing, empty, or an HTML page.
    """
    try:
        with _opened(path) as file:
            while (byte := file.read(1)).isspace():
                pass
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise InputError(f"{path}: broken gzip file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if not byte:
        raise InputError(f"{path}: an empty file")
    if byte == b"<":
        raise InputError(f"{path}: an HTML page, not JSON; a wrong download address answers with one")
    return byte


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file as UTF-8, unpacked where it is compressed by gzip, after a mark that tells its encoding."""
    with path.open("rb") as file, ExitStack() as stack:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        opened = cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=file))) if packed else file
        encoding = json.detect_encoding(opened.read(4))
        opened.seek(len(BOM_UTF8) if encoding == "utf-8-sig" else 0)
        if encoding.startswith("utf-8"):
            yield opened
            return
        recoded = stack.enter_context(TemporaryFile())
        try:
            shutil.copyfileobj(EncodedFile(opened, "utf-8", encoding), recoded, BUFFER)
        except UnicodeDecodeError:
            raise InputError(f"{path}: not {encoding.upper()} text") from None
        recoded.seek(0)
        yield recoded


class _Whole:
    """Reads a file with U+FFFD in place of each surrogate that is escaped alone.

    The parser refuses one half of a character and joins the other with the next letter. The file keeps its
    length, so that positions are its own.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ready = self._held = b""

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; none at the end of the file alone."""
        while not self._ready and (read := self._file.read(BUFFER)):
            data = self._held + read
            begin = data.rstrip(_OF_ESCAPES)
            cut = len(begin) if b"\\" in data[len(begin) :] else len(data)  # an escape may go on behind it
            self._ready, self._held = _whole(data[:cut]), data[cut:]
        if not self._ready:
            self._ready, self._held = _whole(self._held), b""
        given, self._ready = self._ready[:size], self._ready[size:]
        return given

    def tell(self) -> int:
        """Return the position of the next byte in the file."""
        return self._file.tell() - len(self._held) - len(self._ready)


def _whole(data: bytes) -> bytes:
    """Replace escapes of single surrogates in a part of a file that begins and ends between escapes."""
    if not _SURROGATE.search(data):
        return data
    return _ESCAPE.sub(lambda found: rb"\ufffd" if len(found[1] or b"") > 1 else found[0], data)


class _Reader:
    """Reads a file and remembers where the last read began; from `slow` on it reads single bytes."""

    def __init__(self, opened: BinaryIO, slow: int | None = None) -> None:
        self.file = _Whole(opened)
        self.slow = slow
        self.begin = 0

    def read(self, size: int) -> bytes:
        if size:
            self.begin = self.file.tell()
        if self.slow is not None and self.begin >= self.slow:
            size = min(size, 1)
        return self.file.read(size)


def _events(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the parser's events.

    Raises:
        InputError: The JSON is broken; the message has the position.
    """
    with _opened(path) as file:
        reader = _Reader(file)
        try:
            yield from ijson.basic_parse(reader, buf_size=BUFFER, use_float=True)
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise InputError(f"{path}: broken gzip file") from None
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise InputError(f"{path}, {_where(path, reader.begin)}: broken JSON ({_why(error)})") from None


def _where(path: Path, begin: int) -> str:
    """Find line and column of the error in the buffer that starts at `begin`, in a second, bytewise pass."""
    with _opened(path) as file:
        reader = _Reader(file, slow=begin)
        try:
            for _ in ijson.basic_parse(reader, buf_size=BUFFER, use_float=True):
                pass
        except (ijson.JSONError, UnicodeDecodeError):
            pass
        file.seek(0)
        line = 1
        left = reader.begin
        last_break = -1
        while left > 0 and (chunk := file.read(min(left, BUFFER))):
            line += chunk.count(b"\n")
            if b"\n" in chunk:
                last_break = reader.begin - left + chunk.rindex(b"\n")
            left -= len(chunk)
    return f"line {line}, column {reader.begin - last_break}"


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    return str(error).removeprefix("b'").replace("\\n", "\n").partition("\n")[0].rstrip(".")


def _values(path: Path, events: Iterator[tuple[str, Any]]) -> Iterator[Any]:
    """Build each top-level value from its events, to at most MAX_DEPTH levels."""
    open_values: list[Any] = []
    keys: list[str] = []
    for event, value in events:
        if event == "map_key":
            keys[-1] = value
            continue
        if event in ("end_map", "end_array"):
            if not open_values:
                continue
            value = open_values.pop()
            keys.pop()
            if not open_values:
                yield value
            continue
        opens = event in ("start_map", "start_array")
        if opens:
            value = {} if event == "start_map" else []
        if open_values:
            parent = open_values[-1]
            if type(parent) is dict:
                parent[keys[-1]] = value
            else:
                parent.append(value)
        elif not opens:
            yield value
        if opens:
            if len(open_values) == MAX_DEPTH:
                raise InputError(f"{path}: nested more than {MAX_DEPTH} levels deep")
            open_values.append(value)
            keys.append("")
