"""Downloads of the cloud's files: plain GETs, each within a number of bytes and of seconds.

Whoever hands them out is told the name of a file and, where the agent has verified a pointer, when the cloud
issued that: what all edges know. Nothing that a server says is sent back to it, no cookie, tag or redirect,
so it can mark nobody. The connection to the cloud lasts from one look to the next, as the SuperNode's does;
at a mirror each file has its own, so that no two have anything in common.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import format_datetime
from pathlib import Path

from fedperfit.edge.releases.fetching import Told
from fedperfit.protocol.system.errors import FedperfitError, line_of
from fedperfit.protocol.system.flower import KEPT_SECONDS
from fedperfit.protocol.trust.published import (
    MAX_POINTER_BYTES,
    POINTER_FILE,
    MirrorAddress,
    mirrored_file,
    parse_mirror,
    release_file,
)
from fedperfit.protocol.trust.validity import parse_time

_FOLDER = "/releases/"
_CHUNK = 1 << 16
SILENT_SECONDS = 20.0
"""Longest silence of a server's."""
WHOLE_SECONDS = 300.0
"""Longest time that one file may take."""


class NotFetched(FedperfitError):
    """A file of the cloud's that did not come."""


class _Connection:
    """A connection on which files come one after another."""

    def __init__(self, plug: socket.socket, place: MirrorAddress, context: ssl.SSLContext | None) -> None:
        """Take a connection; its owner is greeted with the first file.

        Args:
            plug: the connection below TLS.
            place: who is there.
            context: whom TLS trusts; None where there is none.
        """
        self._plug, self._place, self._context = plug, place, context
        self._talk: http.client.HTTPConnection | None = None
        self._used = 0.0

    def fetch(self, name: str, headers: Mapping[str, str], most: int, seconds: float) -> bytes | None:
        """Read one file, or None where it has not changed; ends in time, whatever the server does."""
        ending = threading.Timer(seconds, _hang_up, (self._plug,))
        ending.start()
        try:
            self._talk = self._talk or self._greeted()
            self._talk.request("GET", self._place.folder + name, headers=dict(headers))
            data = _read(self._talk.getresponse(), name, most)
        except BaseException:
            self.close()
            raise
        finally:
            ending.cancel()
        self._used = time.monotonic()
        return data

    @property
    def lasts(self) -> bool:
        """Whether another file may come on it."""
        open_yet = self._talk is not None and self._talk.sock is not None
        return open_yet and time.monotonic() - self._used < KEPT_SECONDS

    def close(self) -> None:
        """End it, in whatever state it is."""
        if self._talk is not None:
            self._talk.close()
        self._plug.close()

    def _greeted(self) -> http.client.HTTPConnection:
        host, port = self._place.host, self._place.port
        talk = http.client.HTTPConnection(host, port)
        talk.auto_open = 0  # it knows an address, and not the way there
        plug = self._plug.dup()
        talk.sock = self._context.wrap_socket(plug, server_hostname=host) if self._context else plug
        return talk


class WebFolder:
    """Files below one web address; a `fedperfit.edge.releases.fetching.Source`."""

    keeps = False
    """Whether the connection lasts from one file to the next."""

    def __init__(
        self,
        place: MirrorAddress,
        context: ssl.SSLContext | None,
        *,
        way: tuple[str, int] | None = None,
        seconds: float = WHOLE_SECONDS,
    ) -> None:
        """Connect to nothing yet.

        Args:
            place: where they are.
            context: whom TLS trusts; None where the address has no TLS.
            way: host and port that lead to that address; by default its own.
            seconds: longest time that one file may take.
        """
        self._place, self._context, self._seconds = place, context, seconds
        self._way = way or (place.host, place.port)
        self._known: tuple[str, bytes] = ("", b"")
        """Time of issue and bytes of the latest pointer that the agent has kept."""
        self._kept: _Connection | None = None

    def get(self, name: str, most: int) -> bytes:
        """Download one file.

        Args:
            name: name of the file.
            most: largest size accepted, in bytes; no more of a larger file is read.

        Raises:
            NotFetched: the server is not reached, has no such file, or it is too large or too slow.
        """
        data = self._fetched(name, most)
        if data is None:
            raise NotFetched(f"{name}: nothing new")
        return data

    def pointer(self) -> bytes:
        """Download the pointer, or return the one that the agent has kept, where it is still in place.

        Raises:
            NotFetched: as for `get`.
        """
        issued, pointer = self._known
        if not issued:
            return self.get(POINTER_FILE, MAX_POINTER_BYTES)
        since = format_datetime(parse_time(issued), usegmt=True)
        news = self._fetched(POINTER_FILE, MAX_POINTER_BYTES, {"If-Modified-Since": since})
        return pointer if news is None else news

    def kept(self, pointer: bytes, told: Told) -> None:
        """Note what the agent said to a pointer: one that it has kept need not come again."""
        self._known = (told.issued, pointer)

    def release(self, told: Told) -> bytes:
        """Download the release that the agent wants.

        Raises:
            NotFetched: as for `get`.
        """
        return self.get(self.file(told), told.size)

    def file(self, told: Told) -> str:
        """Return the name of a release's file."""
        return mirrored_file(told.version, told.digest)

    def _fetched(self, name: str, most: int, headers: Mapping[str, str] | None = None) -> bytes | None:
        """Return a file's bytes, or None where the server says that it has not changed."""
        end = time.monotonic() + self._seconds
        late = NotFetched(f"{name}: not whole after {self._seconds:g} s")
        try:
            data = self._asked(name, most, headers or {}, end)
        except (OSError, http.client.HTTPException, NotFetched) as error:
            if time.monotonic() >= end:
                raise late from None
            if isinstance(error, NotFetched):
                raise
            reason = line_of(str(error)) or type(error).__name__  # some quote the server
            raise NotFetched(f"{name}: {reason}") from None
        if time.monotonic() >= end:
            raise late
        return data

    def _asked(self, name: str, most: int, headers: Mapping[str, str], end: float) -> bytes | None:
        """Fetch on the connection that was kept, or on a new one where that was given up meanwhile."""
        kept, self._kept = self._kept, None
        if kept is not None and kept.lasts:
            with suppress(ConnectionError, TimeoutError, ssl.SSLError):
                return self._on(kept, name, most, headers, end)
        if kept is not None:
            kept.close()
        plug = socket.create_connection(self._way, timeout=min(SILENT_SECONDS, self._seconds))
        return self._on(_Connection(plug, self._place, self._context), name, most, headers, end)

    def _on(
        self, connection: _Connection, name: str, most: int, headers: Mapping[str, str], end: float
    ) -> bytes | None:
        data = connection.fetch(name, headers, most, max(end - time.monotonic(), 0))
        if self.keeps and connection.lasts:
            self._kept = connection
        else:
            connection.close()
        return data


class CloudFiles(WebFolder):
    """The files that a cloud publishes itself, for who has the certificate of its authority."""

    keeps = True

    def __init__(self, address: str, authority: Path, *, seconds: float = WHOLE_SECONDS) -> None:
        """Read the certificate; nothing is connected yet.

        Args:
            address: where the cloud is reached, host:port.
            authority: file of the certificate of the authority that vouches for it.
            seconds: longest time that one file may take.
        """
        host, _, port = address.rpartition(":")
        place = MirrorAddress(True, host.removeprefix("[").removesuffix("]"), int(port), _FOLDER)
        super().__init__(place, ssl.create_default_context(cafile=str(authority)), seconds=seconds)

    def file(self, told: Told) -> str:
        """Return the name of a release's file."""
        return release_file(told.version)


def mirror_files(address: str, way: str = "", authorities: Path | None = None) -> WebFolder:
    """Return the files at a mirror; nothing is connected yet.

    Args:
        address: its web address.
        way: host:port that leads there; empty for its own.
        authorities: file or folder of those that may vouch for it; None for those that Python finds.

    Raises:
        InputError: the address is none.
    """
    place, context = parse_mirror(address), None
    if place.secure:
        file = str(authorities) if authorities is not None and authorities.is_file() else None
        folder = str(authorities) if authorities is not None and authorities.is_dir() else None
        context = ssl.create_default_context(cafile=file, capath=folder)
    host, _, port = way.rpartition(":")
    return WebFolder(place, context, way=(host, int(port)) if way else None)


def _read(response: http.client.HTTPResponse, name: str, most: int) -> bytes | None:
    """Read a file, and no more than `most` bytes of it; None where it has not changed."""
    if response.status == http.client.NOT_MODIFIED:
        response.close()
        return None
    if response.status != http.client.OK:
        raise NotFetched(f"{name}: status {response.status}")
    if response.length is not None and response.length > most:
        raise NotFetched(f"{name}: {response.length} bytes, at most {most} are read")
    data = b""
    while chunk := response.read1(min(_CHUNK, most + 1 - len(data))):
        data += chunk
        if len(data) > most:
            raise NotFetched(f"{name}: at most {most} bytes are read")
    if response.length:
        raise NotFetched(f"{name}: {response.length} bytes are missing")
    response.close()  # which the last byte alone does not do
    return data


def _hang_up(plug: socket.socket) -> None:
    """Have every read and write on a connection end, in whatever thread it waits."""
    with suppress(OSError):
        plug.shutdown(socket.SHUT_RDWR)
