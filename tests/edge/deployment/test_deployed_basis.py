"""A round in the basis that the owner agreed to, over the bridge and as Flower's message."""

from contextlib import nullcontext

import grpc
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from tests.edge.deployment.deployments import TRAINING, agree, deployed, policy, served
from tests.edge.edge_clients import write_client

from fedperfit.edge import client_app
from fedperfit.edge.agent.basis_file import CoordinateRequest
from fedperfit.edge.consent.refusal import Refused
from fedperfit.edge.deployment.endpoint import BRIDGE_KEY
from fedperfit.protocol.messages.keys import (
    BASIS_KEY,
    BASIS_RECORD,
    ITEMS_KEY,
    ROUND_KEY,
    SETTINGS_RECORD,
    SHIFT_KEY,
    SHIFT_RECORD,
    UPDATE_KEY,
    UPDATE_RECORD,
)
from fedperfit.protocol.messages.settings import CoordinateSettings
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.shift.coordinate_packing import Agreement, pack_coordinates, unpack_update
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.flower_internals import identify_process


def basis_of(header, seed=0, **changes):
    about = {"task": header.task, "fingerprint": header.fingerprint}
    return random_basis(header.shape, 5, seed=seed, **about | changes)


def agreed(basis, **changes):
    values = {"update_basis": basis.digest, "update_codec": "sign", "update_numbers": basis.numbers}
    return policy(**values | changes)


def packed_for(basis, codec="sign", start=0.0):
    coordinates = Coordinates.of(basis, torch.full((basis.numbers,), start))
    return pack_coordinates(coordinates, Agreement(basis.digest, codec, 0))


def request(basis, *, codec="sign", sent=True, start=0.0):
    wanted = CoordinateSettings(basis=basis.digest, codec=codec)
    return CoordinateRequest(packed_for(basis, codec, start), wanted, basis.to_bytes() if sent else b"")


@pytest.fixture
def folder(tmp_path):
    return write_client(tmp_path / "ada", items=8, questions=2)


def test_a_round_over_the_bridge_is_told_in_the_record(folder, header):
    basis = basis_of(header)
    agree(folder, agreed(basis))
    asked = bridge_pb2.ContributeRequest(
        shift=packed_for(basis),
        training=bridge_pb2.Training(**vars(TRAINING)),
        coordinates=bridge_pb2.Coordinates(basis=basis.digest, codec="sign"),
    )
    with deployed(folder) as edge, served(edge) as (channel, _):
        bridge = bridge_pb2_grpc.BridgeStub(channel)
        lacking = bridge.Contribute(asked)
        assert (lacking.items, lacking.update) == (0, b"")
        asked.basis = basis.to_bytes()
        update = bridge.Contribute(asked)
        asked.basis = b""
        assert bridge.Contribute(asked).update == update.update
        change = unpack_update(update.update, Agreement(basis.digest, "sign", 0), basis.numbers)
        assert (update.items, bool(change.any())) == (8, True)
        (told,) = [f for f in list(edge.record.messages(0, 0))[1].fields if f.name == "update"]
        assert told.value == "changed coordinates of the collective shift in the agreed basis"


def test_what_the_owner_did_not_agree_to_is_refused(folder, header):
    basis, other = basis_of(header), basis_of(header, seed=1)
    agree(folder, agreed(basis, largest_change=8.0))
    foreign = basis_of(header, task="LaMP_3")
    alive = lambda: True  # noqa: E731
    with deployed(folder) as edge:
        for wrong in (request(other), request(basis, codec="float32")):
            with pytest.raises(Refused, match="agreed is"):
                edge.contribute_coordinates(wrong, TRAINING, alive)
        edge.guard.policy = agreed(basis, update_numbers=9)
        with pytest.raises(Refused, match=f"of {basis.numbers} coordinates; agreed are 9"):
            edge.contribute_coordinates(request(basis), TRAINING, alive)
        edge.guard.policy = agreed(basis, largest_change=8.0)
        with pytest.raises(Refused, match="changes"):
            edge.contribute_coordinates(request(basis, start=9.0), TRAINING, alive)
        with pytest.raises(Refused, match="a whole shift"):
            edge.contribute(pack(Shift.identity(header.shape, seed=0), header), TRAINING, alive)
    agree(folder, agreed(foreign))
    with deployed(folder) as edge, pytest.raises(Refused, match="another task"):
        edge.contribute_coordinates(request(foreign), TRAINING, alive)
    agree(folder, policy())
    with deployed(folder) as edge, pytest.raises(Refused, match="agreed is none"):
        edge.contribute_coordinates(request(basis), TRAINING, alive)


def test_the_client_app_passes_the_basis_on_and_sends_one_record(folder, header, monkeypatch):
    basis = basis_of(header)
    agree(folder, agreed(basis))
    identify_process(1, node_id=1)
    data = packed_for(basis)
    array = Array(dtype="uint8", shape=(len(data),), stype="x", data=data)
    config = {**TRAINING.to_config(), "basis": basis.digest, "codec": "sign", ROUND_KEY: 1}
    content = RecordDict(
        {
            SHIFT_RECORD: ArrayRecord({SHIFT_KEY: array}),
            SETTINGS_RECORD: ConfigRecord(config),
            BASIS_RECORD: ConfigRecord({BASIS_KEY: basis.to_bytes()}),
        }
    )
    message = Message(content, 1, "train.contribute", ttl=60.0)
    context = Context(1, 1, {BRIDGE_KEY: str(folder)}, RecordDict(), {})
    with deployed(folder) as edge, served(edge) as (channel, _):
        monkeypatch.setattr(client_app, "connect", lambda path: nullcontext(channel))
        reply = client_app.contribute(message, context)
    assert not reply.has_error(), reply
    assert set(reply.content) == {UPDATE_RECORD}
    record = dict(reply.content[UPDATE_RECORD])
    assert (record[ITEMS_KEY], record[ROUND_KEY], record["loss"] > 0) == (8, 1, True)
    assert len(record[UPDATE_KEY]) == 4 + 2 + -(-basis.numbers // 8)
    assert isinstance(channel, grpc.Channel)
