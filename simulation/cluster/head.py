"""The head of a Ray cluster: whether it answers, at first and for as long as the cluster is used."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fedperfit.protocol.system.errors import InputError, RunFailed

_ANSWER_SECONDS = 5.0
"""Longest wait for the machine of a given address, and for its cluster."""
_CLUSTER_ID = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""Call that the head of a Ray cluster answers."""
_LOOK_SECONDS = 5.0
"""Time between two looks at a head."""
_MOST_SILENT = 3
"""Number of looks without an answer after which a head is lost; Ray would end this process after a minute."""
_LEAVE_SECONDS = 20.0
"""Longest wait for what was interrupted; some of Ray's calls end only when Ray ends this process."""
AUTO = "auto"
"""Address of the cluster that runs on this machine."""


def check_address(address: str) -> None:
    """Check that a cluster answers, which Ray itself finds out after minutes, or never.

    Args:
        address: `HOST:PORT`; empty and `auto` are known only when Ray looks.

    Raises:
        InputError: It is no such address, nothing answers there, or something that is no cluster.
    """
    if address in ("", AUTO):
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit()) or "/" in host:
        raise InputError(f"ray-address={address}: expected HOST:PORT of a cluster's head, or auto")
    try:
        _connect(address)
    except (OSError, OverflowError) as error:
        raise InputError(f"ray-address={address}: no cluster answers there ({error})") from None
    if not _is_head(address):
        raise InputError(f"ray-address={address}: what answers there is no head of a Ray cluster")


def _is_head(address: str) -> bool:
    """Whether something that listens is the head of a Ray cluster, one that lets nobody in included."""
    import grpc

    others = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_CLUSTER_ID)(b"", timeout=_ANSWER_SECONDS)
        except grpc.RpcError as error:
            return error.code() not in others
    return True


class HeadLost(RunFailed):
    """The head of a cluster that is used no longer answers."""


@contextmanager
def watched(address: str) -> Iterator[None]:
    """Run a block for as long as the head of its cluster answers.

    Args:
        address: `HOST:PORT` of the head.

    Raises:
        HeadLost: It no longer does; what the block waits for is interrupted then. Where that cannot be, the
            process ends.
    """
    ended = threading.Event()

    def watch() -> None:
        silent = 0
        while silent < _MOST_SILENT:
            if ended.wait(_LOOK_SECONDS):
                return
            silent = 0 if _listens(address) else silent + 1
        # What a script starts in the background ignores SIGINT; our programs take SIGTERM like Ctrl-C.
        for number in [one for one in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(one))][:1]:
            os.kill(os.getpid(), number)
        if not ended.wait(_LEAVE_SECONDS):
            print(f"error: {_lost(address)}", file=sys.stderr, flush=True)
            os._exit(1)

    if threading.current_thread() is threading.main_thread():
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except BaseException:
        check_head(address)
        raise
    finally:
        ended.set()


def check_head(address: str) -> None:
    """Check that the head of a cluster that is used still answers.

    Args:
        address: `HOST:PORT` of the head.

    Raises:
        HeadLost: It does not.
    """
    if not _listens(address):
        raise HeadLost(_lost(address)) from None


def _lost(address: str) -> str:
    lost = f"the head of the Ray cluster at {address} no longer answers"
    return f"{lost}; --resume goes on with the run on another"


def _listens(address: str) -> bool:
    try:
        _connect(address)
    except OSError:
        return False
    return True


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
