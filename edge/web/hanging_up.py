"""Work for a caller ends when the caller hangs up, also before anything was answered."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from fastapi import Request
from fastapi.responses import Response

_GONE = 499
"""Status of a reply that nobody waits for."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Do work for a caller as long as the caller waits for it.

    Args:
        request: What the caller asked, whose body was read.
        work: Makes the response, or its beginning; cancelled where the caller hangs up before that.
    """
    gone, working = asyncio.ensure_future(_hung_up(request)), asyncio.ensure_future(work)
    try:
        await asyncio.wait({gone, working}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else Response(status_code=_GONE)
    finally:
        for task in (gone, working):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
