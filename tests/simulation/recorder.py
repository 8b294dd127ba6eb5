"""A proxy that ends TLS on both sides and keeps what passes in clear."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Recorder:
    """Listens on a port of the loopback and passes on to another."""

    def __init__(self, tls: Path, onward: int) -> None:
        """tls: holds ca.crt, and server.crt with its key."""
        self._server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server.load_cert_chain(tls / "server.crt", tls / "server.key")
        self._client = ssl.create_default_context(cafile=str(tls / "ca.crt"))
        self._onward = onward
        self.port = 0
        self._streams: list[bytearray] = []

    @property
    def recorded(self) -> bytes:
        """All that passed, connection by connection and direction by direction."""
        return b"\0".join(map(bytes, self._streams))

    @contextmanager
    def running(self) -> Iterator["Recorder"]:
        ready, stop = threading.Event(), asyncio.Event()
        loop = asyncio.new_event_loop()

        async def serve() -> None:
            server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=self._server)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await stop.wait()
            server.close()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        ready.wait()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError):
            onward = await asyncio.open_connection("127.0.0.1", self._onward, ssl=self._client)
            await asyncio.gather(self._pump(reader, onward[1]), self._pump(onward[0], writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = bytearray()
        self._streams.append(stream)
        with suppress(OSError, ssl.SSLError):
            while data := await reader.read(1 << 16):
                stream += data
                writer.write(data)
                await writer.drain()
        writer.close()
