"""Checks of addresses and ports: who listens, and whether TLS leads to the right machine."""

import socket
import ssl
from collections.abc import Collection, Iterator
from contextlib import closing

import psutil

from fedperfit.protocol.doctor.findings import Finding, ok, warning, wrong

_SECONDS = 5.0
_FAMILIES = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}


def listener(port: int) -> tuple[int | None, str] | None:
    """Find who listens on a TCP port of this machine.

    Returns:
        Process id and name, or None and words where the system does not tell this account; None if nobody.
    """
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # not all systems tell an account of others' ports
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            if connection.pid is None:
                return None, "a program of another account"
            try:
                return connection.pid, psutil.Process(connection.pid).name()
            except psutil.Error:
                return connection.pid, "a program that just ended"
    return None


def port(number: int, name: str, *, own: Collection[int], up: bool) -> Finding:
    """Check that a port is free, or held by programs of our own.

    Args:
        number: Port.
        name: Setting that says it.
        own: Process ids of our own programs.
        up: Whether our own programs should listen there now.
    """
    check, held = f"{name} {number}", listener(number)
    if held is None:
        if up:
            advice = "wait, if `up` was started just now; else start it again"
            return wrong(check, "nobody listens there", advice)
        return ok(check, "free")
    process, what = held
    if process in own:
        return ok(check, f"{what}, process {process}, of this cloud")
    said = f"in use by {what}" + (f", process {process}" if process is not None else "")
    return wrong(check, said, f"stop it, or change {name}")


def reach(host: str, port: int, trusted: ssl.SSLContext, advice: str) -> Iterator[Finding]:
    """Try every address of a host by TLS, over IPv4 and IPv6.

    Args:
        host: Name or address.
        port: Port.
        trusted: Authorities that may vouch for it.
        advice: What to do where it does not answer.
    """
    check = f"way to {host}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        yield wrong(check, "the name has no address", "correct the name, or your system's resolver")
        return
    tried = {
        (_FAMILIES.get(family, "?"), str(place[0])): _problem(host, str(place[0]), port, trusted)
        for family, _, _, _, place in found
    }
    reached = not all(tried.values())
    for (family, address), problem in tried.items():
        if not problem:
            yield ok(check, f"{address} answers over {family}")
        elif reached:
            said = f"{address} ({family}) does not answer as it should: {problem}"
            yield warning(check, said, f"listen there too, or take {family} from the name")
        else:
            yield wrong(check, f"{address} ({family}): {problem}", advice)


def _problem(host: str, address: str, port: int, trusted: ssl.SSLContext) -> str:
    """Return what keeps a TLS connection from being made; empty if nothing does."""
    try:
        with (
            closing(socket.create_connection((address, port), timeout=_SECONDS)) as plain,
            trusted.wrap_socket(plain, server_hostname=host),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not the one expected: {error.verify_message}"
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return error.strerror or type(error).__name__
