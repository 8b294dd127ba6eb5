"""Downloads of the cloud's files: plain GETs over TLS, each within a number of bytes and of seconds."""

import http.client
import ssl
import time
from contextlib import closing
from pathlib import Path

from fedperfit.protocol.system.errors import FedperfitError

_FOLDER = "/releases/"
_CHUNK = 1 << 16
SILENT_SECONDS = 20.0
"""Longest silence of the cloud's."""
WHOLE_SECONDS = 300.0
"""Longest time that one file may take."""


class NotFetched(FedperfitError):
    """A file of the cloud's that did not come."""


class CloudFiles:
    """The files that a cloud publishes, for who has the certificate of its authority."""

    def __init__(self, address: str, authority: Path, *, seconds: float = WHOLE_SECONDS) -> None:
        """Read the certificate; nothing is connected yet.

        Args:
            address: where the cloud is reached, host:port.
            authority: file of the certificate of the authority that vouches for it.
            seconds: longest time that one file may take.
        """
        host, _, port = address.rpartition(":")
        self._host, self._port = host.removeprefix("[").removesuffix("]"), int(port)
        self._context = ssl.create_default_context(cafile=str(authority))
        self._seconds = seconds

    def get(self, name: str, most: int) -> bytes:
        """Download one file.

        Args:
            name: name of the file.
            most: largest size accepted, in bytes; no more of a larger file is read.

        Raises:
            NotFetched: the cloud is not reached, has no such file, or it is too large or too slow.
        """
        silent = min(SILENT_SECONDS, self._seconds)
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=silent, context=self._context
        )
        try:
            with closing(connection):
                connection.request("GET", _FOLDER + name)
                response = connection.getresponse()
                if response.status != http.client.OK:
                    raise NotFetched(f"{name}: status {response.status}")
                if response.length is not None and response.length > most:
                    raise NotFetched(f"{name}: {response.length} bytes, at most {most} are read")
                return self._read(response, name, most)
        except (OSError, http.client.HTTPException) as error:
            raise NotFetched(f"{name}: {str(error) or type(error).__name__}") from None

    def _read(self, response: http.client.HTTPResponse, name: str, most: int) -> bytes:
        end = time.monotonic() + self._seconds
        data = b""
        while chunk := response.read1(min(_CHUNK, most + 1 - len(data))):
            data += chunk
            if len(data) > most:
                raise NotFetched(f"{name}: at most {most} bytes are read")
            if time.monotonic() > end:
                raise NotFetched(f"{name}: not whole after {self._seconds:g} s")
        if response.length:
            raise NotFetched(f"{name}: {response.length} bytes are missing")
        return data
