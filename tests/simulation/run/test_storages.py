"""Federations whose clients store one base model in different ways."""

import dataclasses
import json

import pytest
import torch
from tests.simulation.small_run import prepare, small_settings

import fedperfit.simulation.stored_models as stored_models
from fedperfit.edge.agent.history import read_history
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.client_app import CLIENTS, REFUSALS
from fedperfit.simulation.run.in_process import run_federation
from fedperfit.simulation.stored_models import items_of, storage_of, stored

MIXED = ["fp32", "fp32", "bf16", "4-bit"]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A run's folder of clients, and the histories of its four others."""
    folder = tmp_path_factory.mktemp("storages") / "run"
    settings = small_settings(others=4, storages=MIXED, history_lengths=[], collective_sizes=[])
    prepare(folder, settings)
    return folder, [read_history(folder / CLIENTS / str(number)) for number in range(4)]


def test_storages_are_dealt_out_in_turn_and_checked_against_the_model_as_it_is(people):
    folder, _ = people
    clients = folder / CLIENTS
    assert [storage_of(clients, number) for number in range(6)] == [*MIXED, "fp32", "fp32"]
    whole, half, quarter = (items_of(clients, number).base for number in (0, 2, 3))
    assert items_of(clients, 1).base is whole
    assert half.card == quarter.card == whole.card
    for first, second in zip(whole.model.parameters(), half.model.parameters(), strict=True):
        assert torch.equal(second, first.bfloat16().float())
    layer = quarter.model.get_decoder().layers[0].mlp.up_proj.weight
    values = [len(row.unique()) for row in layer.reshape(-1, 64)]
    assert max(values) <= 16
    assert torch.equal(quarter.model.get_input_embeddings().weight, whole.model.get_input_embeddings().weight)


def test_the_more_bits_the_nearer(people):
    base = items_of(people[0] / CLIENTS).base
    ids = torch.arange(40).reshape(2, 20)
    whole = base.model(ids).logits
    far = [
        float((stored(base, storage).model(ids).logits - whole).abs().mean())
        for storage in ("fp32", "fp16", "bf16", "8-bit", "4-bit")
    ]
    assert far[0] == 0
    assert max(far[:3]) < far[3] < far[4]


def test_a_federation_of_mixed_storage_learns_nearly_what_one_of_fp32_learns(people):
    _, histories = people
    changes = {"rounds": 2, "clients-per-round": 4, "device": "cpu", "dtype": "float32"}
    plain = run_federation(histories, settings=changes)
    mixed = run_federation(histories, settings={**changes, "storages": MIXED})
    assert [len(report.admitted) for report in mixed.rounds] == [4, 4]
    assert mixed.header == plain.header
    first, second = (torch.cat([one.shift.R, one.shift.W]) for one in (plain, mixed))
    assert 0 < float((first - second).norm() / first.norm()) < 0.1


def test_a_copy_that_is_another_model_takes_no_part(people, monkeypatch, tmp_path):
    """A client whose copy predicts something else is refused as an edge is when it joins."""
    _, histories = people

    def other(base, storage):
        if storage == "fp32":
            return base
        copy = stored(base, "bf16").model
        for weight in copy.parameters():
            weight.data = weight.data.flip(0)
        return dataclasses.replace(base, model=copy)

    monkeypatch.setattr(stored_models, "stored", other)
    stored_models._copies.cache_clear()
    changes = {"rounds": 1, "clients-per-round": 4, "device": "cpu", "dtype": "float32", "storages": MIXED}
    try:
        with pytest.raises(InputError, match="client 'others-2' is not connected"):
            run_federation(histories, settings=changes, folder=tmp_path)
    finally:
        stored_models._copies.cache_clear()
    refused = [json.loads(line) for line in (tmp_path / REFUSALS).read_text().splitlines()]
    assert {(one["client"], one["request"]) for one in refused} == {
        ("2", "query.status"),
        ("3", "query.status"),
    }
    assert all("is another base model: its predictions are" in one["error"] for one in refused)
