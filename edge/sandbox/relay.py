"""Passing connections on: whatever arrives at one socket goes to another, and back."""

import asyncio
from collections.abc import Awaitable, Callable

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_CHUNK = 1 << 16


class Relay:
    """Pass every connection on to one made for it.

    Args:
        connect: Makes the connection that a new one is passed on to.
        most: Largest number of connections at a time; further ones are closed at once.
    """

    def __init__(self, connect: Callable[[], Awaitable[Streams]], *, most: int) -> None:
        self._connect, self._most, self._open = connect, most, 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on until both sides are done, or either fails."""
        if self._open >= self._most:
            writer.close()
            return
        self._open += 1
        try:
            far_reader, far_writer = await self._connect()
        except OSError:
            pass
        else:
            await _both(_pump(reader, far_writer), _pump(far_reader, writer))
            far_writer.close()
        finally:
            self._open -= 1
            writer.close()


async def _both(*ways: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(way) for way in ways]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in pending:
        task.cancel()
    for task in done:
        task.exception()  # a connection that fails is closed, and that is all


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
