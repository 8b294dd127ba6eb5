"""The only way out of a sandbox: a socket that leads to one address alone, the cloud's or a mirror's."""

import asyncio
import ipaddress
import os
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from fedperfit.edge.sandbox.relay import Count, Relay, Streams
from fedperfit.protocol.system.errors import InputError

SOCKET = "cloud.sock"
_CONNECTIONS = 32
_CONNECT_SECONDS = 20.0


class Uplink:
    """A context in which what connects to the socket in a folder is passed on to an address.

    A name must not lead to this machine, unless it is its own. The bytes are passed on as they are: TLS is
    between what is in the sandbox and who is there.
    """

    def __init__(
        self, folder: Path, address: str, count: Count | None = None, seconds: float | None = None
    ) -> None:
        """Prepare the socket.

        Args:
            folder: Folder of the socket; made for its owner only.
            address: Address of the cloud or of the mirror, host:port.
            count: Told of the bytes that leave and come, in a thread of its own; None counts none.
            seconds: Longest time that a connection is passed on; None for as long as it lasts.
        """
        self._folder, self._count, self._seconds = folder, count, seconds
        self.problem = ""
        """Why the last connection to the address could not be made; empty where it could."""
        host, _, port = address.rpartition(":")
        self._host, self._port = host.removeprefix("[").removesuffix("]"), int(port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="uplink", daemon=True)

    def __enter__(self) -> "Uplink":
        """Listen.

        Raises:
            InputError: If the socket cannot be made.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        path = self._folder / SOCKET
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(path))
        except OSError:
            raise InputError(f"{path}: no socket can be made; use a folder with a shorter path") from None
        path.chmod(0o600)
        self._thread.start()
        relay = Relay(self._connect, most=_CONNECTIONS, count=self._count, seconds=self._seconds)
        starting = asyncio.start_unix_server(relay, sock=listener)
        asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(_ended(tasks))
        self._loop.close()
        (self._folder / SOCKET).unlink(missing_ok=True)

    async def _connect(self) -> Streams:
        self.problem = ""
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(self._host, self._port), timeout=_CONNECT_SECONDS
            )
            if _leads_here(writer) and not await _is_own(self._host):
                writer.close()
                raise OSError(f"the name {self._host} leads to this machine itself")
            return reader, writer
        except OSError as error:
            number = error.errno or 0  # a name that is not known has a negative one, of its own list
            self.problem = os.strerror(number) if number > 0 else str(error) or "no answer in time"
            raise


async def _is_own(host: str) -> bool:
    """Return whether a host is an address, which always leads to the same, or a name of this machine.

    Its names are the one it was given, and that with the domain that it is in.
    """
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    name = socket.gethostname().lower()
    own = ["localhost", name]
    with suppress(OSError):
        found = await asyncio.get_running_loop().getaddrinfo(name, None, flags=socket.AI_CANONNAME)
        own += [whole.lower() for *_, whole, _ in found if whole.lower().startswith(f"{name}.")]
    return host.lower().removesuffix(".") in own


def _leads_here(writer: asyncio.StreamWriter) -> bool:
    """Return whether a connection is to this machine, or to an address that only it and its neighbours know.

    Whoever has a name decides where it leads at each moment: what is in the sandbox, together with the cloud,
    would reach programs here that trust whoever is on this machine.
    """
    own, there = (str(writer.get_extra_info(end)[0]).partition("%")[0] for end in ("sockname", "peername"))
    address = ipaddress.ip_address(there)
    address = getattr(address, "ipv4_mapped", None) or address
    return there == own or address.is_loopback or address.is_link_local


async def _ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
