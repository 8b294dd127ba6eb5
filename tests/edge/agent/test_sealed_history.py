"""A history in the vault: nothing in clear, nothing lost, gone when forgotten."""

import pytest
from tests.edge.deployment.deployments import TRAINING, deployed, served
from tests.edge.edge_clients import write_client

from fedperfit.edge.agent import sealed_history
from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.history import files_to_seal, read_history
from fedperfit.edge.agent.sealed_history import seal_history
from fedperfit.edge.vault.keys import FileKey
from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc, owner_pb2, owner_pb2_grpc
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json


@pytest.fixture
def folder(tmp_path):
    """A folder whose history is yet to be imported."""
    folder = write_client(tmp_path / "ada", items=8, questions=2)
    about = read_json(folder / "client.json")
    write_json(folder / "client.json", {**about, "sealed": False})
    return folder


def in_clear(folder, history) -> bool:
    """Whether any file of the folder holds the text of any item."""
    texts = [item[history.task.field].encode() for item in history.items]
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return any(text in content for text in texts for content in contents)


def test_a_history_is_imported_and_read_from_the_vault_alone(folder, base):
    before = read_history(folder)
    assert in_clear(folder, before), "the positive control"
    files = seal_history(folder, Vault(folder / "vault"))
    assert [file.name for file in files] == ["history.jsonl", "answered.jsonl", "questions.jsonl"]
    for file in files:
        file.unlink()
    assert not in_clear(folder, before)
    after = Agent(folder, base).history
    assert (after.items, after.questions, after.sealed) == (before.items, before.questions, True)
    assert seal_history(folder, Vault(folder / "vault")) == files_to_seal(folder) == []
    assert len(Agent(folder, base).read().items) == 8


def test_a_kill_before_the_folder_says_so_is_made_good(folder, base, monkeypatch):
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    before = read_history(folder)
    monkeypatch.setattr(sealed_history, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        seal_history(folder, Vault(folder / "vault"))
    monkeypatch.undo()
    assert Agent(folder, base).history.items == before.items
    seal_history(folder, Vault(folder / "vault"))
    assert Agent(folder, base).history.items == before.items


def test_what_is_malformed_is_not_imported(folder):
    (folder / "history.jsonl").write_text("{\n")
    with pytest.raises(InputError, match="line 1"):
        seal_history(folder, Vault(folder / "vault"))
    assert read_json(folder / "client.json")["sealed"] is False
    assert Vault(folder / "vault").imported() == {}


def test_a_rotation_keeps_it_and_forgetting_destroys_it(folder, base):
    vault = Vault(folder / "vault")
    seal_history(folder, vault)
    vault.rotate(FileKey())
    assert len(Agent(folder, base).history.items) == 8
    assert vault.forget() == (0, 0, 8)
    assert not list((folder / "vault").rglob("*.sealed"))
    assert Agent(folder, base).history.items == []


def test_a_deployed_edge_seals_on_its_first_start_and_works_from_the_vault(folder, header):
    training = bridge_pb2.Training(**vars(TRAINING))
    packed = pack(Shift.identity(header.shape, seed=1), header)
    for name in ("history.jsonl", "answered.jsonl", "questions.jsonl"):
        with deployed(folder) as edge, served(edge) as (channel, owners):
            bridge, owner = bridge_pb2_grpc.BridgeStub(channel), owner_pb2_grpc.OwnerStub(owners)
            told = owner.Explain(owner_pb2.ExplainRequest())
            assert (told.history_items, told.sealed_history) == (8, True)
            status = bridge.Status(bridge_pb2.StatusRequest())
            assert (status.history, status.questions) == (8, 2)
        (folder / name).unlink()  # each start after the first finds one file less
    with deployed(folder) as edge, served(edge) as (channel, owners):
        bridge, owner = bridge_pb2_grpc.BridgeStub(channel), owner_pb2_grpc.OwnerStub(owners)
        request = bridge_pb2.ContributeRequest(shift=packed, training=training)
        assert bridge.Contribute(request).items == 8
        learned = '{"description": "a film about the sea", "tag": "classic"}'
        owner.Learn(owner_pb2.LearnRequest(items=[learned]))
        told = owner.Explain(owner_pb2.ExplainRequest())
        assert (told.history_items, told.learned_items) == (8, 1)
        forgotten = owner.Forget(owner_pb2.ForgetRequest())
        assert (forgotten.learned, forgotten.imported) == (1, 8)
        assert owner.Explain(owner_pb2.ExplainRequest()).history_items == 0
