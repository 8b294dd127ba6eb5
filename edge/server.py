"""Serves an agent on two sockets, each in a folder of its own that only its owner may enter."""

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc

from edge.deployed import Deployed
from edge.home import Home, socket_path
from edge.services import BridgeService, OwnerService
from protocol import bridge_pb2_grpc, owner_pb2_grpc
from protocol.errors import InputError

MAX_MESSAGE = 16 << 20
"""Bytes: the largest release."""
_THREADS = 32
_GRACE_SECONDS = 5.0
_PR_SET_DUMPABLE = 4


@contextmanager
def serving(deployed: Deployed, home: Home) -> Iterator[None]:
    """Both services until the end of the block; calls under way are then given seconds to end."""
    bridge = _server(
        home.bridge, lambda s: bridge_pb2_grpc.add_BridgeServicer_to_server(BridgeService(deployed), s)
    )
    owner = _server(
        home.owner, lambda s: owner_pb2_grpc.add_OwnerServicer_to_server(OwnerService(deployed), s)
    )
    try:
        yield
    finally:
        deployed.stopping.set()
        for stopped in [server.stop(_GRACE_SECONDS) for server in (bridge, owner)]:
            stopped.wait()


def undumpable() -> None:
    """Keep other processes of the same user, and core dumps, from this one's memory (Linux)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _server(folder: Path, add: Callable[[grpc.Server], None]) -> grpc.Server:
    path = socket_path(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    limits = [(f"grpc.max_{way}_message_length", MAX_MESSAGE) for way in ("receive", "send")]
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=limits)
    add(server)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError:
        raise InputError(f"{path}: the socket cannot be made") from None
    path.chmod(0o600)
    server.start()
    return server
