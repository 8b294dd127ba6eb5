"""The agent's endpoints where there are no Unix sockets: loopback with mutual TLS."""

import stat

import grpc
import pytest
from tests.edge.deployment.deployments import deployed, served
from tests.edge.edge_clients import write_client

from fedperfit.edge.deployment.endpoint import connect
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc, owner_pb2, owner_pb2_grpc
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json


@pytest.fixture
def edge(tmp_path):
    with deployed(write_client(tmp_path / "ada"), tcp=True) as edge:
        yield edge


def test_both_services_answer_who_can_read_their_folder(edge):
    with served(edge) as (bridge, owner):
        assert bridge_pb2_grpc.BridgeStub(bridge).Status(bridge_pb2.StatusRequest()).history == 16
        assert owner_pb2_grpc.OwnerStub(owner).Explain(owner_pb2.ExplainRequest()).history_items == 16
        for folder in (edge.home.bridge, edge.home.owner):
            assert not (folder / "agent.sock").exists()
            assert read_json(folder / "tcp.json")["address"].startswith("127.0.0.1:")
            assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())


def test_the_bridges_certificate_opens_nothing_of_the_owners(edge, tmp_path):
    with served(edge):
        address = read_json(edge.home.owner / "tcp.json")
        write_json(edge.home.bridge / "tcp.json", address)
        with (
            connect(edge.home.bridge) as channel,
            pytest.raises(grpc.RpcError) as caught,
        ):
            owner_pb2_grpc.OwnerStub(channel).Explain(owner_pb2.ExplainRequest(), timeout=5)
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        with grpc.insecure_channel(address["address"]) as channel, pytest.raises(grpc.RpcError):
            owner_pb2_grpc.OwnerStub(channel).Explain(owner_pb2.ExplainRequest(), timeout=5)


def test_a_path_too_long_for_a_socket_is_one_line(tmp_path):
    with pytest.raises(InputError, match="too long for a socket"):
        connect(tmp_path / ("x" * 100))
