"""One JSON file fetched over HTTP: resumable, checked, and whole or not there.

A file grows as NAME.part beside NAME.part.json, which remembers what is being fetched; it gets its name only
when all bytes are there and they are JSON.
"""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.simulation.data.json_stream import check

ATTEMPTS = 4
"""Attempts without a further byte before a file is given up."""
TIMEOUT = httpx.Timeout(60, connect=10)
"""Seconds to wait for a server's next bytes, and for it to take a connection."""
BUSY = (429, 500, 502, 503, 504)
"""Status codes worth another attempt."""

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes so far, and the bytes in all where the server tells."""


@dataclass(frozen=True)
class _Origin:
    """The remote file that a .part file is a part of."""

    url: str
    tag: str
    """The server's strong ETag, or else Last-Modified; empty when it sends neither."""
    size: int | None


class _Interrupted(Exception):
    """An attempt failed that may be repeated."""


class _Part:
    """An unfinished file and the note beside it."""

    def __init__(self, final: Path) -> None:
        self.path = final.with_name(f"{final.name}.part")
        self._note = final.with_name(f"{final.name}.part.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def origin(self) -> _Origin | None:
        """Return the remote file this is a part of, or None when that is not known."""
        try:
            return _Origin(**read_json(self._note))
        except (InputError, TypeError):
            return None

    def begin(self, origin: _Origin) -> None:
        """Empty the part before its note is written, so that a note never describes another file's bytes."""
        self.forget()
        write_json(self._note, asdict(origin))

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self, final: Path) -> None:
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.path, final)
        self._note.unlink(missing_ok=True)


def open_client() -> httpx.Client:
    """Open an HTTP client that takes its proxies from the environment.

    Raises InputError where the environment names a proxy that cannot be used.
    """
    try:
        return httpx.Client(timeout=TIMEOUT, follow_redirects=True)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise InputError(f"the proxy that the environment names cannot be used: {error}") from None


def fetch(client: httpx.Client, url: str, final: Path, *, progress: Progress, backoff_s: float = 1.0) -> None:
    """Bring the JSON file at `url` to `final`, which is left alone when it exists.

    An interrupted download continues where it stopped if the server says that the file is unchanged.

    Args:
        client: HTTP client to ask with.
        url: Address of the file.
        final: Path of the finished file.
        progress: Called with file name, bytes so far, and bytes in all where they are known.
        backoff_s: Seconds before a failed attempt is repeated; each further failure doubles them.

    Raises:
        InputError: The server has no such file, answers with an HTML page or anything else that is not JSON,
            or fails ATTEMPTS times without a further byte. The message names the address.
    """
    if final.exists():
        progress(final.name, final.stat().st_size, final.stat().st_size)
        return
    part = _Part(final)
    furthest, failures = part.size(), 0
    while True:
        try:
            _attempt(client, url, part, lambda done, total: progress(final.name, done, total))
            break
        except _Interrupted as reason:
            failures = 1 if part.size() > furthest else failures + 1
            furthest = max(furthest, part.size())
            if failures == ATTEMPTS:
                raise InputError(f"{url}: {reason}; the same command continues") from None
            time.sleep(backoff_s * 2 ** (failures - 1))
    try:
        check(part.path)
    except InputError as error:
        part.forget()
        raise InputError(f"{url}{str(error).removeprefix(str(part.path))}") from None
    part.finish(final)


def _attempt(
    client: httpx.Client, url: str, part: _Part, progress: Callable[[int, int | None], None]
) -> None:
    """Bring `part` to its full size, from where it stopped if the server can continue there.

    Raises:
        _Interrupted: The connection failed or ended early.
        InputError: The server refuses.
    """
    held, start = part.origin(), part.size()
    headers = {"Accept-Encoding": "identity"}
    if held is None or held.url != url or not held.tag:
        start = 0
    elif start and start == held.size:
        return
    elif start:
        headers |= {"Range": f"bytes={start}-", "If-Range": held.tag}
    try:
        with client.stream("GET", url, headers=headers) as response:
            _refuse(url, response)
            if response.status_code == 416:
                part.forget()
                raise _Interrupted("the server cannot continue the file")
            if response.status_code == 206:
                if held is None or not _continues(response, start, held):
                    part.forget()
                    raise _Interrupted("the file changed on the server")
                total = held.size
            else:
                start, total = 0, _length(response)
                part.begin(_Origin(url, _tag(response), total))
            done = start
            progress(done, total)
            with part.path.open("ab") as file:
                for chunk in response.iter_bytes():
                    if done == 0 and chunk.lstrip().startswith(b"<"):
                        part.forget()
                        raise _page(url)
                    file.write(chunk)
                    done += len(chunk)
                    progress(done, total)
    except httpx.UnsupportedProtocol:
        raise
    except httpx.TransportError as error:
        raise _Interrupted(f"the connection failed ({_cause(error)})") from None
    if total is not None and part.size() != total:
        raise _Interrupted(f"the body ended after {part.size()} of {total} bytes")


def _refuse(url: str, response: httpx.Response) -> None:
    if response.status_code in BUSY:
        raise _Interrupted(f"the server answers {response.status_code}")
    if response.status_code not in (200, 206, 416):
        raise InputError(f"{url}: the server answers {response.status_code} {response.reason_phrase}")
    if "html" in response.headers.get("Content-Type", "").lower() and response.status_code != 416:
        raise _page(url)


def _page(url: str) -> InputError:
    return InputError(f"{url}: the server answers with an HTML page; there is no such file")


def _encoded(response: httpx.Response) -> bool:
    """Whether the body is compressed in transit: then its byte counts are not the file's."""
    encoding: str = response.headers.get("Content-Encoding", "identity")
    return encoding.lower() != "identity"


def _tag(response: httpx.Response) -> str:
    if _encoded(response):
        return ""
    etag: str = response.headers.get("ETag", "")
    modified: str = response.headers.get("Last-Modified", "")
    # If-Range takes no weak tag.
    return etag if etag and not etag.startswith("W/") else modified


def _length(response: httpx.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and not _encoded(response) else None


def _continues(response: httpx.Response, start: int, held: _Origin) -> bool:
    """Whether a partial answer continues at byte `start` of the very file that `held` describes."""
    span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    same_size = held.size is None or total in ("*", str(held.size))
    # A server may leave the tag out of an answer to If-Range, which then vouches for it.
    return span.startswith(f"{start}-") and same_size and _tag(response) in ("", held.tag)


def _cause(error: BaseException) -> str:
    """Return the innermost reason, without the library's wrapping."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(error) or type(error).__name__
