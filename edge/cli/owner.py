"""The owner's way from a command to the running agent."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from fedperfit.protocol.system.errors import InputError

Folder = Annotated[Path, typer.Argument(help="The person's own folder, as `join` made it.")]


@contextmanager
def owner(folder: Path) -> Iterator[Any]:
    """Open the agent's owner service; its errors, and its absence, are one line.

    Args:
        folder: The person's own folder.

    Raises:
        InputError: The folder is no joined edge's, the agent is not running, or it refused.
    """
    import grpc

    from fedperfit.edge.deployment.endpoint import connect
    from fedperfit.edge.deployment.home import Home, read_settings
    from fedperfit.protocol.schema import owner_pb2_grpc

    home = Home(folder)
    try:
        with connect(home.owner) as channel:
            yield owner_pb2_grpc.OwnerStub(channel)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            read_settings(home)
            raise InputError(f"{folder}: the agent is not running; see fedperfit-edge join") from None
        raise InputError(str(error.details())) from None


def sendable(request: Any, name: str) -> Any:
    """Return a request, unless it is larger than the agent takes.

    Args:
        request: Message for the agent.
        name: Name of what it holds.

    Raises:
        InputError: It is too large, and how large it may be.
    """
    from fedperfit.edge.deployment.endpoint import LARGEST

    if request.ByteSize() > LARGEST:
        size = f"{request.ByteSize() / 2**20:.1f} MiB; the agent takes {LARGEST >> 20} at once"
        raise InputError(f"{name}: {size}: divide it")
    return request


def running(folder: Path) -> bool:
    """Return whether the agent of a person's own folder answers."""
    from fedperfit.protocol.schema import owner_pb2

    try:
        with owner(folder) as agent:
            agent.Explain(owner_pb2.ExplainRequest(), timeout=5)
        return True
    except InputError:
        return False
