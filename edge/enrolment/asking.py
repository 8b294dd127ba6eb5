"""One request of this machine itself to the cloud, its bytes counted as those of the messages are."""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from fedperfit.edge.deployment.home import Home
from fedperfit.edge.sandbox.traffic import Traffic
from fedperfit.edge.sandbox.uplink import SOCKET, Uplink


class NoAnswer(Exception):
    """The cloud does not answer; the text says why."""


@contextmanager
def answer(
    home: Home, address: str, trusted: ssl.SSLContext, method: str, path: str, seconds: float, **content: Any
) -> Iterator[httpx.Response]:
    """Ask, and yield the cloud's response, of which nothing has been read yet.

    Args:
        home: The person's folder.
        address: Address of the cloud, host:port.
        trusted: What its certificate is checked against.
        method: The request's method.
        path: The request's path.
        seconds: Longest time that the whole answer may take, however the cloud deals it out.
        **content: Content and headers of the request, as `httpx` takes them.

    Raises:
        NoAnswer: If the cloud does not answer, or stops in the midst.
    """
    begun = time.monotonic()
    try:
        with (
            Traffic(home.traffic) as traffic,
            Uplink(home.asking, address, traffic.count, seconds) as uplink,
            _client(home, trusted, seconds) as client,
        ):
            try:
                with client.stream(method, f"https://{address}{path}", **content) as response:
                    yield response
            except httpx.HTTPError as error:
                late = f"no whole answer in {seconds:g} s" if time.monotonic() - begun >= seconds else ""
                raise NoAnswer(uplink.problem or late or str(error) or type(error).__name__) from None
    finally:
        with suppress(OSError):
            home.asking.rmdir()


def _client(home: Home, trusted: ssl.SSLContext, seconds: float) -> httpx.Client:
    way = httpx.HTTPTransport(verify=trusted, uds=str(home.asking / SOCKET), trust_env=False)
    return httpx.Client(transport=way, timeout=seconds, trust_env=False)
