"""One test for each undocumented thing of Flower's that we use, and that nobody else uses any."""

import ast
import importlib
import inspect
import re
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import flwr
import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import LoadClientAppError
from flwr.common.serde import message_to_proto
from flwr.proto.control_pb2 import ListNodesResponse
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_res_message
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND, NodeStatus
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.runtime import run_clientapp

from fedperfit.protocol.system.errors import RunFailed
from fedperfit.protocol.system.flower import CLIENT_APP, FLEET, OTHER_APPS, SUPEREXEC, executable
from fedperfit.protocol.system.flower_internals import (
    NODE_UNAVAILABLE,
    InProcessGrid,
    MalformedContent,
    identify_process,
    lasting,
    message_bytes,
    message_from_bytes,
    message_to_bytes,
    multi_krum,
    node_keys,
    run_client_app,
    run_supernode,
    set_message_id,
    set_reply_to,
    transmitted,
    trimmed_mean,
)
from fedperfit.protocol.trust.certificates import new_authority
from fedperfit.protocol.trust.node_key import NodeKey

NODE_STATUSES = (NodeStatus.REGISTERED, NodeStatus.ONLINE, NodeStatus.OFFLINE, NodeStatus.UNREGISTERED)
ROOT = Path(__file__).parents[3]
DOCUMENTED = ("flwr.app", "flwr.serverapp", "flwr.clientapp")
EXEMPT = ("protocol/system/flower_internals.py", "tests/protocol/system/test_flower_internals.py")


@pytest.fixture(autouse=True)
def _identity() -> None:
    identify_process(7, node_id=3)


def message(size: int = 10, node: int = 5) -> Message:
    array = Array(dtype="uint8", shape=(size,), stype="test", data=bytes(size))
    content = RecordDict({"arrays": ArrayRecord({"a": array}), "config": ConfigRecord({"key": "value"})})
    return Message(content, node, "train.test")


def test_messages_come_from_the_identity_of_the_process() -> None:
    identify_process(11, node_id=4)
    assert (message().metadata.run_id, message().metadata.src_node_id) == (11, 4)


def test_nodes_are_listed_by_their_keys_but_those_unregistered() -> None:
    listed = ListNodesResponse()
    keys = [NodeKey() for _ in NODE_STATUSES]
    for number, (key, status) in enumerate(zip(keys, NODE_STATUSES, strict=True), start=1 << 63):
        public = load_ssh_public_key(key.public.encode())
        assert isinstance(public, ec.EllipticCurvePublicKey)
        listed.nodes_info.add(node_id=number, status=status, public_key=public_key_to_bytes(public))
    found = node_keys(listed.SerializeToString())
    assert found == {key.public: number for number, key in enumerate(keys[:3], start=1 << 63)}


def test_replies_carry_the_id_that_a_message_was_given() -> None:
    asked = message()
    set_message_id(asked, "an-id")
    assert asked.metadata.message_id == "an-id"
    assert Message(RecordDict(), reply_to=asked).metadata.reply_to_message_id == "an-id"


def test_a_reply_is_made_one_to_another_message() -> None:
    reply = Message(Error(1), reply_to=message())
    set_reply_to(reply, "another")
    assert reply.metadata.reply_to_message_id == "another"


def test_a_transmitted_message_is_an_equal_copy() -> None:
    asked = message()
    set_message_id(asked, "an-id")
    arrived = transmitted(asked)
    assert arrived is not asked
    assert (arrived.content, arrived.metadata) == (asked.content, asked.metadata)
    arrived.content["config"]["key"] = "changed"
    assert asked.content["config"]["key"] == "value"


def test_a_message_travels_as_bytes() -> None:
    asked = message()
    set_message_id(asked, "an-id")
    arrived = message_from_bytes(message_to_bytes(asked))
    assert (arrived.content, arrived.metadata) == (asked.content, asked.metadata)
    assert len(message_to_bytes(asked)) == message_bytes(asked)


def test_an_error_is_transmitted() -> None:
    assert transmitted(Message(Error(3, "why"), reply_to=message())).error == Error(3, "why")


def test_bytes_of_a_message_are_those_of_its_protobuf() -> None:
    assert message_bytes(message(1000)) == len(message_to_proto(message(1000)).SerializeToString())


def test_malformed_content_is_what_pulling_it_raises() -> None:
    with pytest.raises(MalformedContent):
        validate_object_content(b"no head and no body")


def test_the_superlink_answers_for_a_lost_node_with_that_code() -> None:
    asked = message()
    set_message_id(asked, "an-id")
    lost = create_message_error_unavailable_res_message(asked.metadata, "node_unavailable")
    assert lost.error.code == NODE_UNAVAILABLE


class Echo(InProcessGrid):
    """A grid of one node that returns what it gets."""

    def __init__(self) -> None:
        self.pushed: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        return [5]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.pushed |= {str(n): one for n, one in enumerate(messages)}
        return list(self.pushed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [Message(self.pushed[name].content, reply_to=self.pushed[name]) for name in message_ids]


def test_a_grid_in_process_needs_nodes_and_messages_only() -> None:
    grid = Echo()
    (reply,) = grid.send_and_receive([message()])
    assert reply.content == message().content
    assert [node.node_id for node in grid.get_nodes()] == [5]


@pytest.mark.parametrize(("n", "share", "cut"), [(5, 0.2, 1), (7, 0.25 + 0.25 / 7, 2), (4, 0.0, 0)])
def test_trimmed_mean_equals_that_of_sorted_values(n: int, share: float, cut: int) -> None:
    values = np.random.default_rng(0).normal(size=(n, 3, 2))
    assert np.allclose(trimmed_mean(values, share), np.sort(values, axis=0)[cut : n - cut].mean(axis=0))


@pytest.mark.parametrize(("n", "malicious", "selected"), [(9, 2, 1), (9, 2, 7), (5, 1, 1), (6, 1, 5)])
def test_krum_equals_its_definition(n: int, malicious: int, selected: int) -> None:
    points = np.random.default_rng(n).normal(size=(n, 4))
    points[:malicious] += 50
    scores = []
    for point in points:
        distances = sorted(((point - other) ** 2).sum() for other in points)
        scores.append(sum(distances[1 : n - malicious - 1]))
    expected = sorted(sorted(range(n), key=scores.__getitem__)[:selected])
    assert multi_krum(points, malicious, selected) == expected
    assert not set(range(malicious)) & set(expected)


def test_the_fleet_interface_is_what_a_supernode_asks_for() -> None:
    client = Path(flwr.__file__).parent / "supernode" / "fleet_http_client.py"
    assert sorted(re.findall(r'path="/v1/fleet/([a-z-]+)"', client.read_text())) == sorted(FLEET)


def test_flower_starts_apps_by_a_program_of_that_name() -> None:
    assert Path(executable(SUPEREXEC)).name == SUPEREXEC


def test_superexec_starts_apps_by_programs_of_those_names() -> None:
    assert sorted(TASK_TYPE_TO_COMMAND.values()) == sorted([CLIENT_APP, *OTHER_APPS])


def test_flower_runs_our_app_and_leaves_the_bundle_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    app, seen = ClientApp(), []

    def program() -> None:
        run_clientapp.install_from_fab(b"a bundle", skip_prompt=True)
        load = run_clientapp.get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)
        seen.append(load("publisher/name", "0.1.0", "hash"))

    monkeypatch.setattr(
        importlib.import_module("flwr.supernode.cli.flwr_clientapp"), "flwr_clientapp", program
    )
    for name in ("install_from_fab", "get_load_client_app_fn"):
        monkeypatch.setattr(run_clientapp, name, getattr(run_clientapp, name))
    run_client_app(app, lambda bundle: "" if bundle == b"a bundle" else "another")
    assert seen == [app]
    with pytest.raises(LoadClientAppError, match=r"nothing of the run's code was executed: of the cloud"):
        run_client_app(app, lambda bundle: "of the cloud")
    monkeypatch.delattr(run_clientapp, "install_from_fab")
    with pytest.raises(RunFailed, match="install_from_fab"):
        run_client_app(app, lambda bundle: "")


def test_a_supernode_rests_after_each_look_for_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's own loop calls what is replaced, by its name in its module."""
    program = importlib.import_module("flwr.supernode.start_client_internal")
    source = inspect.getsource(program.start_client_internal)
    assert re.search(
        r"run_id = _pull_and_store_message\(.*if run_id is None:.*time\.sleep\(3\)", source, re.S
    )
    looks, told = iter([None, 7, None]), []
    monkeypatch.setattr(program, "_pull_and_store_message", lambda *, state: next(looks))

    def loop() -> None:
        assert [program._pull_and_store_message(state="s") for _ in range(3)] == [None, 7, None]

    command = importlib.import_module("flwr.supernode.cli.flower_supernode")
    fleet = importlib.import_module("flwr.supernode.fleet_http_connection")
    flowers = fleet.FleetHttpClient
    monkeypatch.setattr(command, "flower_supernode", loop)
    monkeypatch.setattr(fleet, "FleetHttpClient", flowers)
    run_supernode(told.append)
    assert told == [False, True, False]
    assert issubclass(fleet.FleetHttpClient, flowers)
    assert fleet.FleetHttpClient is not flowers
    assert "FleetHttpClient.from_server_address(" in inspect.getsource(fleet.http_request_response)


class _Asked(BaseHTTPRequestHandler):
    """Answers every request with an empty message, and notes connections and headers."""

    protocol_version = "HTTP/1.1"
    connections: ClassVar[set[tuple[str, int]]]
    headers_of: ClassVar[list[str]]

    def do_POST(self) -> None:
        self.connections.add(self.client_address)
        self.headers_of.extend(name.lower() for name in self.headers)
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(("lasts", "pause", "connections"), [(False, 6, 2), (True, 60, 1), (True, 70, 2)])
def test_a_supernode_keeps_its_connection_from_one_look_to_the_next(
    lasts: bool, pause: int, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Asked.connections, _Asked.headers_of = set(), []
    client = importlib.import_module("flwr.supernode.fleet_http_connection").FleetHttpClient
    client = lasting(client) if lasts else client
    now = time.monotonic
    with ThreadingHTTPServer(("127.0.0.1", 0), _Asked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with client.from_server_address(f"127.0.0.1:{server.server_port}", True, None, []) as asking:
            for look in range(2):
                monkeypatch.setattr(time, "monotonic", lambda look=look: now() + look * pause)
                assert asking.PullMessages(PullMessagesRequest()) == PullMessagesResponse()
        monkeypatch.undo()
        server.shutdown()
    assert len(_Asked.connections) == connections
    assert ("user-agent" in _Asked.headers_of) is not lasts


def test_a_lasting_client_trusts_whom_flowers_does(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    clients = importlib.import_module("flwr.supercore.protobuf.client")
    plain = clients.httpx.Client
    monkeypatch.setattr(clients.httpx, "Client", lambda **options: made.append(options) or plain(**options))
    client = lasting(importlib.import_module("flwr.supernode.fleet_http_connection").FleetHttpClient)
    authority = new_authority("cloud").certificate
    client.from_server_address("cloud:1", False, authority, [])
    flowers, ours = made
    assert ours["verify"] is flowers["verify"]
    assert ours["follow_redirects"] is flowers["follow_redirects"]
    assert ours["timeout"] == httpx.Timeout(flowers["timeout"])
    assert ours["verify"].get_ca_certs()
    assert ours["verify"].verify_mode is ssl.CERT_REQUIRED


def test_flower_uses_a_bundle_in_those_two_ways_only() -> None:
    source = inspect.getsource(run_clientapp.run_clientapp)
    uses = [line.strip() for line in source.splitlines() if re.search(r"\bfab\b(?!_)", line)]
    assert [line for line in uses if "fab.content" in line or "load" in line] == [
        "install_from_fab(fab.content, skip_prompt=True)"
    ]
    assert "client_app: ClientApp = load_client_app_fn(" in source


def undocumented(source: str) -> Iterator[str]:
    """What a module uses of Flower beside its documented API: imports, names in strings, hidden fields."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "flwr")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "flwr":
            public = importlib.import_module(node.module).__all__ if node.module in DOCUMENTED else ()
            yield from (f"{node.module}.{a.name}" for a in node.names if a.name not in public)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"flwr(\.\w+)+(?<!\.py)", str(node.value)):
            yield str(node.value)
        elif isinstance(node, ast.Attribute) and re.search(r"\bmetadata\._", ast.unparse(node)):
            yield ast.unparse(node)


def test_no_other_module_uses_anything_undocumented() -> None:
    files = [
        path
        for part in ("cloud", "edge", "protocol", "simulation", "configs", "tests", "examples")
        for path in (ROOT / part).rglob("*.py")
    ]
    assert len(files) > 100
    used = {path.relative_to(ROOT).as_posix(): sorted(undocumented(path.read_text())) for path in files}
    assert all(used.pop(name) for name in EXEMPT)
    assert {name: what for name, what in used.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import flwr",
        "import flwr.common.serde as serde",
        "from flwr.common.serde import message_to_proto",
        "from flwr.serverapp.strategy.multikrum import select_multikrum",
        "from flwr.app import message",
        "monkeypatch.setattr('flwr.supercore.date.now', now)",
        "reply.metadata.__dict__['_message_id'] = 'x'",
        "print(reply.metadata._message_id)",
    ],
)
def test_what_is_undocumented_is_seen(source: str) -> None:
    assert list(undocumented(source))
