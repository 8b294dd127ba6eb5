"""Address of one of the agent's services, in a folder that only its owner may enter.

A Unix socket, or where the system has none (or the settings ask for it) a port of the loopback with mutual
TLS, whose certificates are issued anew at each start by an authority of the folder's own: who can read one
folder cannot call the other service.
"""

import socket
from pathlib import Path
from typing import Any

import grpc
from typing_extensions import TypedDict

from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic, write_json
from fedperfit.protocol.trust.certificates import issue, new_authority

BRIDGE_KEY = "bridge"
"""Key in the node's configuration of the folder with the agent's endpoint for it."""
SOCKET = "agent.sock"
_TCP = "tcp.json"
_NAME = "localhost"
_LONGEST_SOCKET = 100
"""Bytes of the longest path used for a socket; a Unix socket's path may have 107."""
LARGEST = 17 << 20
"""Bytes of the largest message, a little more than the largest release."""
LIMITS = [(f"grpc.max_{way}_message_length", LARGEST) for way in ("receive", "send")]
"""gRPC's limits on messages in bytes."""


def listen(server: grpc.Server, folder: Path, *, tcp: bool) -> None:
    """Have a server listen for those who can read a folder.

    Args:
        server: gRPC server, not yet started.
        folder: made where it is missing, and closed to other users.
        tcp: listen on a port of the loopback with mutual TLS, not on a Unix socket.

    Raises:
        InputError: the server cannot listen there.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    for left in (SOCKET, _TCP):
        (folder / left).unlink(missing_ok=True)
    try:
        if tcp or not hasattr(socket, "AF_UNIX"):
            _listen_on_tcp(server, folder)
        else:
            path = _socket_path(folder)
            server.add_insecure_port(f"unix:{path}")
            path.chmod(0o600)
    except RuntimeError:
        raise InputError(f"{folder}: the agent cannot listen there") from None


def connect(folder: Path) -> grpc.Channel:
    """Open a channel to the service of a folder; raises InputError when none ever listened there."""
    target, credentials, options = _target(folder)
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)


def connect_async(folder: Path) -> grpc.aio.Channel:
    """Open a channel for asyncio to the service of a folder; raises InputError like `connect`."""
    target, credentials, options = _target(folder)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


def _listen_on_tcp(server: grpc.Server, folder: Path) -> None:
    authority = new_authority("fedperfit agent")
    own, client = issue(authority, [_NAME]), issue(authority, [_NAME], client=True)
    credentials = grpc.ssl_server_credentials(
        [(own.key, own.certificate)], authority.certificate, require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    for name, content in (
        ("ca.crt", authority.certificate),
        ("client.crt", client.certificate),
        ("client.key", client.key),
    ):
        write_atomic(folder / name, content)
    write_json(folder / _TCP, {"address": f"127.0.0.1:{port}"})


class _Address(TypedDict):
    address: str


def _target(folder: Path) -> tuple[str, Any, list[tuple[str, Any]]]:
    if not (folder / _TCP).exists():
        return f"unix:{_socket_path(folder)}", None, LIMITS
    authority, certificate, key = (
        (folder / name).read_bytes() for name in ("ca.crt", "client.crt", "client.key")
    )
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    named = [*LIMITS, ("grpc.ssl_target_name_override", _NAME)]
    return read_form(folder / _TCP, _Address)["address"], credentials, named


def _socket_path(folder: Path) -> Path:
    path = (folder / SOCKET).absolute()
    if len(str(path).encode()) > _LONGEST_SOCKET:
        raise InputError(f"{path}: too long for a socket; use a folder with a shorter path")
    return path
