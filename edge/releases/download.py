"""Downloads of the cloud's files: plain GETs, each within a number of bytes and of seconds.

Whoever hands them out is told the name of a file and, where the agent has verified a pointer, when the cloud
issued that: what all edges know. Nothing that a server says is sent back to it, no cookie, tag or redirect,
so it can mark nobody.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from email.utils import format_datetime
from pathlib import Path

from fedperfit.edge.releases.fetching import Told
from fedperfit.protocol.system.errors import FedperfitError
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


class WebFolder:
    """Files below one web address; a `fedperfit.edge.releases.fetching.Source`."""

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
            with self._connected() as plug:
                data = _read(self._asked(plug, name, headers or {}), name, most)
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() >= end:
                raise late from None
            raise NotFetched(f"{name}: {str(error) or type(error).__name__}") from None
        if time.monotonic() >= end:
            raise late
        return data

    def _asked(self, plug: socket.socket, name: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        host, port = self._place.host, self._place.port
        if self._context is None:
            connection = http.client.HTTPConnection(host, port)
        else:
            connection = http.client.HTTPSConnection(host, port, context=self._context)
        connection.sock = plug
        connection.request("GET", self._place.folder + name, headers=dict(headers))
        return connection.getresponse()

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        """Connect; whatever the server does, the connection ends after the longest time."""
        silent = min(SILENT_SECONDS, self._seconds)
        with closing(socket.create_connection(self._way, timeout=silent)) as plug:
            ending = threading.Timer(self._seconds, _hang_up, (plug,))
            ending.start()
            try:
                if self._context is None:
                    yield plug
                    return
                with self._context.wrap_socket(plug.dup(), server_hostname=self._place.host) as safe:
                    yield safe
            finally:
                ending.cancel()


class CloudFiles(WebFolder):
    """The files that a cloud publishes itself, for who has the certificate of its authority."""

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
    return data


def _hang_up(plug: socket.socket) -> None:
    """Have every read and write on a connection end, in whatever thread it waits."""
    with suppress(OSError):
        plug.shutdown(socket.SHUT_RDWR)
