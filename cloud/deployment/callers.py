"""Who is at the other end of a connection over the loopback, and answering one account only.

The kernel lists every TCP socket of the machine with the account that opened it. Linux alone does so in a
file; elsewhere secrets must do.
"""

import ipaddress
import sys
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

SOCKETS = Path("/proc/net/tcp")
"""The kernel's list of TCP sockets over IPv4."""


class OneAccountOnly:
    """An ASGI middleware that answers the connections of one account of this machine."""

    def __init__(self, app: ASGIApp, account: int) -> None:
        """Stand in front of an application.

        Args:
            app: The application.
            account: User id of the account that is answered.
        """
        self.app, self.account = app, account

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with status 403."""
        if scope["type"] != "lifespan" and caller(scope["client"], scope["server"]) != self.account:
            await PlainTextResponse("this is for another account\n", 403)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def caller(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Return the user id of the account whose open socket is the client's end of a connection.

    Args:
        client: IPv4 address and port of the client's end.
        server: IPv4 address and port of the server's end.

    Returns:
        None if no process of this machine holds that end any more.
    """
    ends = [_as_listed(*client), _as_listed(*server)]
    with SOCKETS.open() as lines:
        for line in lines:
            fields = line.split()
            if fields[1:3] == ends and fields[9] != "0":  # a socket that was closed has no inode
                return int(fields[7])
    return None


def _as_listed(address: str, port: int) -> str:
    number = int.from_bytes(ipaddress.IPv4Address(address).packed, sys.byteorder)
    return f"{number:08X}:{port:04X}"
