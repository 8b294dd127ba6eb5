"""Runs the gRPC servers of an agent: for the cloud's bridge, for what fetches releases, and for its owner."""

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc

from fedperfit.edge.deployment.deployed import Deployed
from fedperfit.edge.deployment.endpoint import LIMITS, listen
from fedperfit.edge.deployment.feed import FeedService
from fedperfit.edge.deployment.home import Home
from fedperfit.edge.deployment.services import BridgeService, OwnerService
from fedperfit.protocol.schema import bridge_pb2_grpc, feed_pb2_grpc, owner_pb2_grpc

_THREADS = 32
_GRACE_SECONDS = 5.0
_PR_SET_DUMPABLE = 4


@contextmanager
def serving(deployed: Deployed, home: Home) -> Iterator[None]:
    """Serve all services inside the block; calls under way then have 5 seconds to end.

    Args:
        deployed: the agent.
        home: its folder, which holds the endpoints.

    Raises:
        InputError: an endpoint cannot be listened on.
    """
    tcp = deployed.settings.tcp
    bridge_service, owner_service = BridgeService(deployed), OwnerService(deployed)
    feed_service = FeedService(deployed)
    bridge = _server(
        home.bridge, tcp, lambda s: bridge_pb2_grpc.add_BridgeServicer_to_server(bridge_service, s)
    )
    feed = _server(home.feed, tcp, lambda s: feed_pb2_grpc.add_FeedServicer_to_server(feed_service, s))
    owner = _server(home.owner, tcp, lambda s: owner_pb2_grpc.add_OwnerServicer_to_server(owner_service, s))
    try:
        yield
    finally:
        deployed.stopping.set()
        for stopped in [server.stop(_GRACE_SECONDS) for server in (bridge, feed, owner)]:
            stopped.wait()


def undumpable() -> None:
    """Keep other processes of the same user, and core dumps, from this one's memory (Linux)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _server(folder: Path, tcp: bool, add: Callable[[grpc.Server], None]) -> grpc.Server:
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=LIMITS)
    add(server)
    listen(server, folder, tcp=tcp)
    server.start()
    return server
