"""Everything undocumented that we use of Flower inside a process, each behind a name of ours.

`flwr.app`, `flwr.serverapp` and `flwr.clientapp` are documented and imported wherever they are needed; every
other module of Flower is imported here alone. Each name below has a test that fails where a version of
Flower behaves otherwise. What we use of Flower's programs is in `flower.py`, which starts without Flower.
"""

import hmac
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any

import httpx
import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.control_pb2 import ListNodesResponse
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.serverapp import Grid
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import select_multikrum
from flwr.supercore.constant import NodeStatus
from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedperfit.protocol.system.errors import RunFailed
from fedperfit.protocol.system.flower import KEPT_SECONDS

NODE_UNAVAILABLE: int = ErrorCode.NODE_UNAVAILABLE
"""Error code of the reply that a SuperLink makes up for a node that is gone."""

MalformedContent = UnexpectedObjectContentError
"""Raised while a message is pulled whose objects do not have Flower's structure."""


def identify_process(run_id: int, *, node_id: int = 0, task_id: int = 1) -> None:
    """Say who sends the messages that this process constructs; Flower's own programs know it already.

    Args:
        run_id: Flower's number of the run.
        node_id: Flower's number of the node; a ServerApp's is 0.
        task_id: Flower's number of the task within the run.
    """
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, task_id


def set_message_id(message: Message, message_id: str) -> None:
    """Give a message the id that pushing it would; replies to it then carry that id."""
    message.metadata.__dict__["_message_id"] = message_id


def set_reply_to(reply: Message, message_id: str) -> None:
    """Make `reply` one to the message `message_id`, which may have been constructed without an id."""
    reply.metadata.__dict__["_reply_to_message_id"] = message_id


def transmitted(message: Message) -> Message:
    """A copy of the message as it arrives at the other side, through Flower's serialisation."""
    return message_from_proto(message_to_proto(message))


def message_to_bytes(message: Message) -> bytes:
    """Serialise a message as Flower does, for another process."""
    data: bytes = message_to_proto(message).SerializeToString()
    return data


def message_from_bytes(data: bytes) -> Message:
    """Return the message that `message_to_bytes` serialised."""
    return message_from_proto(MessageProto.FromString(data))


def message_bytes(message: Message) -> int:
    """Size of a message as protobuf, in bytes.

    Raises:
        ValueError, TypeError: A field of the message has a value that cannot be serialised.
    """
    size: int = message_to_proto(message).ByteSize()
    return size


LIST_NODES = "/v1/control/list-nodes"
"""Path of the SuperLink that lists its nodes, asked by POST with an empty body."""


def node_keys(listed: bytes) -> dict[str, int]:
    """Return Flower's ids of the nodes in a reply to `LIST_NODES`, by public key in OpenSSH form.

    Args:
        listed: Body of the reply; nodes that were unregistered are in it, and left out.
    """
    nodes = ListNodesResponse.FromString(listed).nodes_info
    there = [node for node in nodes if node.status != NodeStatus.UNREGISTERED]
    keys = [load_pem_public_key(node.public_key) for node in there]
    texts = [key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() for key in keys]
    return {text: node.node_id for text, node in zip(texts, there, strict=True)}


def run_superlink(token: str, middleware: Sequence[Any]) -> None:
    """Run Flower's SuperLink with the command line of this process, its control interface under a token.

    Flower knows accounts, and its command line sends an account's token; what checks one is not in the
    open-source SuperLink, which takes anybody for the same account.

    Args:
        token: Token that a caller of the control interface must present.
        middleware: Starlette's `Middleware` objects that stand in front of all interfaces.

    Raises:
        AttributeError: If Flower has no longer what is replaced here.
    """
    from flwr.common.constant import ACCESS_TOKEN_KEY
    from flwr.supercore.auth.typing import AccountInfo
    from flwr.superlink import extensions
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin

    program = import_module("flwr.superlink.cli.flower_superlink")  # the package has a function of that name

    class TokenPlugin(NoOpControlAuthnPlugin):
        """Knows the one account by its token."""

        def validate_tokens_in_metadata(
            self, metadata: Sequence[tuple[str, str | bytes]]
        ) -> tuple[bool, AccountInfo | None]:
            given = str(dict(metadata).get(ACCESS_TOKEN_KEY, ""))
            if not hmac.compare_digest(given.encode(), token.encode()):
                return False, None
            return super().validate_tokens_in_metadata(metadata)

    replacements: list[tuple[Any, str, Any]] = [
        (program, "load_control_authn_plugin", TokenPlugin),
        (extensions, "get_middleware", lambda: tuple(middleware)),
    ]
    for module, name, replacement in replacements:
        getattr(module, name)
        setattr(module, name, replacement)
    program.flower_superlink()


def lasting(client: type[Any]) -> type[Any]:
    """Return a class of Flower's HTTP clients that keeps its connection between two looks for a message.

    Flower's gives one up after five seconds, so that each look begins with a handshake. Headers that tell the
    SuperLink nothing are left out.

    Args:
        client: Flower's class.
    """

    class LastingClient(client):  # type: ignore[misc]
        """One that keeps its connection."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            flowers: httpx.Client = vars(self)["_client"]
            flowers.close()
            self._client = httpx.Client(
                verify=options.get("verify", True),
                timeout=flowers.timeout,
                follow_redirects=flowers.follow_redirects,
                limits=httpx.Limits(keepalive_expiry=KEPT_SECONDS),
            )
            for header in ("Accept-Encoding", "Connection", "User-Agent"):
                self._client.headers.pop(header, None)

    return LastingClient


def run_supernode(rest: Callable[[bool], None]) -> None:
    """Run Flower's SuperNode with the command line of this process, and a rest after each look for a message.

    Its connection to the SuperLink lasts from one look to the next.

    Args:
        rest: Called after each look with whether there was a message; where there was none, before Flower's
            own pause of three seconds.

    Raises:
        AttributeError: If Flower has no longer what is replaced here.
    """
    program: Any = import_module("flwr.supernode.start_client_internal")
    look: Callable[..., int | None] = program._pull_and_store_message

    def looked(*args: Any, **kwargs: Any) -> int | None:
        run = look(*args, **kwargs)
        rest(run is not None)
        return run

    program._pull_and_store_message = looked
    fleet: Any = import_module("flwr.supernode.fleet_http_connection")
    fleet.FleetHttpClient = lasting(fleet.FleetHttpClient)
    import_module("flwr.supernode.cli.flower_supernode").flower_supernode()


class InProcessGrid(Grid):
    """A grid whose nodes are in this process: a subclass has nodes, and pushes and pulls messages.

    The other abstract methods of Flower's grid are for its own programs or superseded.
    """

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push the messages and pull their replies, which are never late here."""
        return self.pull_messages(self.push_messages(messages))

    def set_run(self, run: Run) -> None:
        """Not supported: a grid in process has no run of Flower's."""
        raise NotImplementedError

    @property
    def run(self) -> Run:
        """Not supported: a grid in process has no run of Flower's."""
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Not supported: messages are constructed."""
        raise NotImplementedError


def run_client_app(app: ClientApp, why_refused: Callable[[bytes], str]) -> None:
    """Run Flower's program for one message, with an app in place of the one in the run's bundle.

    Nothing of the bundle is unpacked or imported. Where it is refused, the ServerApp gets an error that says
    no more than that the ClientApp was not loaded; the reason is in the log.

    Args:
        app: Handles the message.
        why_refused: Takes the content of the bundle; returns why it is refused, empty where it is not.
    """
    from flwr.clientapp.client_app import LoadClientAppError
    from flwr.supernode.cli.flwr_clientapp import flwr_clientapp
    from flwr.supernode.runtime import run_clientapp

    def check(bundle: bytes, **_: object) -> None:
        if reason := why_refused(bundle):
            raise LoadClientAppError(f"refused, nothing of the run's code was executed: {reason}")

    def loader(**_: object) -> Callable[..., ClientApp]:
        return lambda *_: app

    replaced = {"install_from_fab": check, "get_load_client_app_fn": loader}
    for name, function in replaced.items():
        if not hasattr(run_clientapp, name):
            raise RunFailed(f"this version of Flower has no {name} where the run's code is kept from running")
        setattr(run_clientapp, name, function)
    flwr_clientapp()


def trimmed_mean(values: np.ndarray, share: float) -> np.ndarray:
    """Mean over the first axis without the `share` lowest and the `share` highest values of each entry.

    Args:
        values: Shape (n, ...).
        share: Trimmed at either end, of all n, rounded down to whole values; below one half.

    Returns:
        Shape (...).
    """
    return trim_mean(values, share)


def multi_krum(points: np.ndarray, malicious: int, selected: int) -> list[int]:
    """Choose the points whose nearest neighbours are nearest (Blanchard et al. 2017).

    Args:
        points: Shape (n, d).
        malicious: Number of points that may be anywhere; the n - malicious - 2 nearest neighbours count.
        selected: Number of points to choose; 1 is Krum.

    Returns:
        Indices of the chosen points, in ascending order.
    """
    contents = [RecordDict({"point": ArrayRecord({"x": Array(point)})}) for point in points]
    best = {id(content) for content in select_multikrum(contents, malicious, selected)}
    return [index for index, content in enumerate(contents) if id(content) in best]
