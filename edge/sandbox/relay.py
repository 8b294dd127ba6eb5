"""Passing connections on: whatever arrives at one socket goes to another, and back."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Count = Callable[[int, int], None]
"""Called with the bytes that were passed on to the far side, and back."""
_CHUNK = 1 << 16


class Relay:
    """Pass every connection on to one made for it.

    Args:
        connect: Makes the connection that a new one is passed on to.
        most: Largest number of connections at a time; further ones are closed at once.
        count: Told of all bytes; None counts none.
        seconds: Longest time that one is passed on; None for as long as it lasts.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Streams]],
        *,
        most: int,
        count: Count | None = None,
        seconds: float | None = None,
    ) -> None:
        self._connect, self._most, self._open, self._seconds = connect, most, 0, seconds
        self._count: Count = count or (lambda up, down: None)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on until both sides are done, either fails, its time or the program ends."""
        if self._open >= self._most:
            writer.close()
            return
        self._open += 1
        with suppress(OSError, asyncio.CancelledError), closing(writer):
            try:
                far_reader, far_writer = await self._connect()
                with closing(far_writer):
                    await _both(
                        _pump(reader, far_writer, lambda size: self._count(size, 0)),
                        _pump(far_reader, writer, lambda size: self._count(0, size)),
                        seconds=self._seconds,
                    )
            finally:
                self._open -= 1


async def _both(*ways: Awaitable[None], seconds: float | None) -> None:
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]
) -> None:
    while chunk := await reader.read(_CHUNK):
        count(len(chunk))
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
