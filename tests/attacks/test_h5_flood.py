"""One caller that does not stop: the agent's disk and log stay bounded, and its owner is answered."""

import time
from contextlib import suppress

import grpc
import pytest
from tests.edge.deployment.deployments import deployed, served
from tests.edge.edge_clients import write_client

from fedperfit.edge.audit.log import Unrecorded
from fedperfit.edge.audit.rates import STATUS, Rates
from fedperfit.edge.audit.verification import verify
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc, owner_pb2, owner_pb2_grpc

_REQUESTS = 400


@pytest.fixture
def folder(tmp_path):
    return write_client(tmp_path / "ada", items=2, questions=1)


def flood(bridge: bridge_pb2_grpc.BridgeStub) -> int:
    """How many of the requests were answered."""
    answered = 0
    for _ in range(_REQUESTS):
        with suppress(grpc.RpcError):
            bridge.Status(bridge_pb2.StatusRequest())
            answered += 1
    return answered


def lines_after_a_flood(folder) -> tuple[int, int, float]:
    """Requests answered, lines of the log, and the seconds that the flood took."""
    with deployed(folder) as edge, served(edge) as (bridge, owner):
        start = time.monotonic()
        answered = flood(bridge_pb2_grpc.BridgeStub(bridge))
        seconds = time.monotonic() - start
        owner_pb2_grpc.OwnerStub(owner).Explain(owner_pb2.ExplainRequest(), timeout=2)
    totals = edge.record.totals
    assert totals.messages["status"][0] == _REQUESTS
    assert totals.refused == _REQUESTS - answered
    verdict = verify(edge.home.audit)
    assert verdict.problems == []
    return answered, verdict.lines, seconds


def test_without_the_buckets_every_request_makes_the_log_grow(folder, monkeypatch):
    monkeypatch.setattr(Rates, "take", lambda rates, kind: None)
    answered, lines, _ = lines_after_a_flood(folder)
    assert answered == _REQUESTS
    assert lines >= 2 * _REQUESTS


def test_a_flood_is_counted_not_recorded_one_by_one(folder):
    answered, lines, seconds = lines_after_a_flood(folder)
    assert answered <= STATUS.burst + STATUS.per_second * seconds + 1
    assert lines <= 2 * answered + seconds + 4


def test_a_refusal_is_told_by_its_type(folder):
    with deployed(folder) as edge, served(edge) as (channel, _):
        bridge = bridge_pb2_grpc.BridgeStub(channel)
        flood(bridge)
        with pytest.raises(grpc.RpcError) as caught:
            bridge.Status(bridge_pb2.StatusRequest())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "TooManyRequests"


def test_what_cannot_be_recorded_does_not_leave(folder, monkeypatch):
    with deployed(folder) as edge, served(edge) as (channel, owner):
        bridge = bridge_pb2_grpc.BridgeStub(channel)

        def full(*arguments: object) -> None:
            raise Unrecorded("no room")

        monkeypatch.setattr(edge.record, "answered", full)
        with pytest.raises(grpc.RpcError) as caught:
            bridge.Status(bridge_pb2.StatusRequest())
        assert caught.value.details() == "Unrecorded"
        explained = owner_pb2_grpc.OwnerStub(owner).Explain(owner_pb2.ExplainRequest())
        assert (explained.refused, explained.refusal.endswith("status: no room")) == (1, True)
        monkeypatch.undo()
        assert bridge.Status(bridge_pb2.StatusRequest()).client
