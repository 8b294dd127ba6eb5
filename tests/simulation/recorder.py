"""A proxy that ends TLS on both sides and keeps what passes in clear, and counts it as it comes by caller."""

import asyncio
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path


class Recorder:
    """Listens on a port of the loopback for each caller and passes on to another."""

    def __init__(self, tls: Path, onward: int, callers: Iterable[str]) -> None:
        """tls: holds ca.crt, and server.crt with its key; callers: names, each with a port of its own."""
        self._server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server.load_cert_chain(tls / "server.crt", tls / "server.key")
        self._client = ssl.create_default_context(cafile=str(tls / "ca.crt"))
        self._onward = onward
        self.ports = dict.fromkeys(callers, 0)
        self.counted = {name: [0, 0] for name in self.ports}
        """Bytes from each caller and to them, as they were encrypted."""
        self._inner = 0
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
            servers = [await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=self._server)]
            self._inner = _port(servers[0])
            for name in self.ports:
                servers.append(await asyncio.start_server(partial(self._count, name), "127.0.0.1", 0))
                self.ports[name] = _port(servers[-1])
            ready.set()
            await stop.wait()
            for server in servers:
                server.close()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        ready.wait()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()

    async def _count(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: int) -> None:
            with suppress(OSError):
                while data := await source.read(1 << 16):
                    self.counted[name][direction] += len(data)
                    sink.write(data)
                    await sink.drain()
            sink.close()

        with suppress(OSError):
            inner = await asyncio.open_connection("127.0.0.1", self._inner)
            await asyncio.gather(pump(reader, inner[1], 0), pump(inner[0], writer, 1))

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


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port
