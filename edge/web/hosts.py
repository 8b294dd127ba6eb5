"""Names by which a page of this machine is called, over which a foreign page has no say.

A foreign page can have its own name resolved to this machine (DNS rebinding); a browser then says that name.
"""

import re
from collections.abc import Collection

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine for itself."""
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^][:]*)(:[0-9]*)?")


def called_by(header: str, names: Collection[str]) -> bool:
    """Return whether a request calls a page by one of its names, whatever the port.

    Args:
        header: Value of the Host header; empty where there is none.
        names: Names of the page, an IPv6 address in brackets.
    """
    host = _HOST.fullmatch(header)
    return host is not None and host[1] in names
