"""Rows of the study against what they are made of: PEFT's state dicts, hand-made means, counted bytes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import save
from tests.simulation.communication.small_study import RATES, TASK, clients_of, empty, row_of, small_settings

from fedperfit.edge.agent.history import History
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.simulation.communication.ground import Ground, asked_of
from fedperfit.simulation.communication.rates import drawn_rates
from fedperfit.simulation.communication.training.adapter_row import AdapterRow
from fedperfit.simulation.communication.training.averaging import load_vector
from fedperfit.simulation.compare.building_blocks.adapters import targets, wrapped
from fedperfit.simulation.compare.building_blocks.baseline_training import train


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("ground"), small_settings())


def adapter(ground: Ground, name: str) -> AdapterRow:
    row = row_of(ground, name)
    assert isinstance(row, AdapterRow)
    return row


def state_of(row: AdapterRow) -> dict[str, torch.Tensor]:
    """PEFT's state dict of the trained row."""
    with row.model() as model:
        load_vector(row.parameters(model)[0], row.values)
        return {name: each.clone() for name, each in peft.get_peft_model_state_dict(model).items()}


def by_hand(row: AdapterRow, clients: Sequence[History], rounds: int) -> dict[str, torch.Tensor]:
    """FedAvg (McMahan et al., 2017) of PEFT's state dicts over all clients, without any message."""
    context, state = row.context, {}
    for number in range(1, rounds + 1):
        total, weights = {}, 0
        for client in clients:
            examples = context.encode(client.pairs(context.form, 4))
            with torch.random.fork_rng():
                torch.manual_seed(context.number("communication", "lora"))
                modules = targets(context.base, collective=False)
                with wrapped(context.base, 8, modules, dropout=0.0) as model:
                    if state:
                        peft.set_peft_model_state_dict(model, state)
                    trained = [each for each in model.parameters() if each.requires_grad]
                    train(
                        context.base,
                        trained,
                        examples,
                        epochs=1,
                        learning_rate=RATES.shared,
                        batch_size=8,
                        order=f"0/{client.name}/{number}",
                        last_rate=1.0,
                    )
                    for name, each in peft.get_peft_model_state_dict(model).items():
                        total[name] = total.get(name, 0) + len(examples) * each.detach().double()
            weights += len(examples)
        state = {name: (each / weights).float() for name, each in total.items()}
    return state


def test_lora_is_the_average_of_pefts_state_dicts(ground: Ground, tmp_path: Path) -> None:
    row = adapter(ground, "lora")
    row.settings = row.settings.replace(clients_per_round=0)
    first, *rest = clients_of(ground)
    clients = [replace(first, items=first.items[-2:]), *rest]  # fewer items, less weight
    entries = row.learn(clients, tmp_path)
    expected, found = by_hand(row, clients, rounds=2), state_of(row)
    assert set(found) == set(expected)
    for name, each in expected.items():
        torch.testing.assert_close(found[name], each, rtol=1e-4, atol=1e-6)
    assert any(bool(each.any()) for name, each in expected.items() if "lora_B" in name)
    tensors = sum(each.numel() * each.element_size() for each in found.values())
    data = save(found)
    assert tensors == len(data) - 8 - int.from_bytes(data[:8], "little")  # without safetensors' header
    assert {entry.payload for entry in entries} == {tensors}
    assert entries == Ledger(tmp_path / "ledger" / "train.jsonl").entries()


def test_all_rows_ask_the_same_clients_in_the_same_rounds(ground: Ground, tmp_path: Path) -> None:
    asked = {
        name: {
            (entry.round, entry.client, entry.direction)
            for entry in row_of(ground, name).learn(clients_of(ground), empty(tmp_path / name))
        }
        for name in ("perfit", "lora-xs")
    }
    assert asked["perfit"] == asked["lora-xs"]
    assert len(asked["perfit"]) == 2 * 2 * 2


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("lora", 4 * 2 * 2 * 8 * 32),
        ("ffa-lora", 4 * 2 * 8 * 32),
        ("fedsa-lora", 4 * 2 * 8 * 32),
        ("lora-xs", 4 * 2 * 8 * 8),
        ("lora-r1", 4 * 2 * 2 * 32),
    ],
)
def test_what_travels_is_what_the_method_averages(ground: Ground, name: str, numbers: int) -> None:
    row = adapter(ground, name)
    with row.model() as model:
        shared, own = row.parameters(model)
        assert sum(each.numel() for each in shared.values()) == numbers
        assert bool(own) == (name == "fedsa-lora")
        assert all("lora_B" in each for each in own)


@pytest.mark.parametrize("name", ["lora-int8", "lora-sign"])
def test_encoded_changes_come_near_the_average(ground: Ground, name: str, tmp_path: Path) -> None:
    whole, coded = adapter(ground, "lora"), adapter(ground, name)
    start = torch.zeros(0)
    with whole.model() as model:
        start = torch.cat([each.detach().flatten() for each in whole.parameters(model)[0].values()])
    for row in (whole, coded):
        row.settings = row.settings.replace(rounds=1)
    whole.learn(clients_of(ground), empty(tmp_path / "whole"))
    (entry, *_) = [
        e for e in coded.learn(clients_of(ground), empty(tmp_path / "coded")) if e.direction == "up"
    ]
    bits, tensors = {"lora-int8": 8, "lora-sign": 1}[name], 4 * 2 * 2
    assert entry.payload == (bits * len(start) + 7) // 8 + 2 * tensors
    along = torch.cosine_similarity(whole.values - start, coded.values - start, dim=0)
    assert float(along) > 0.6


def test_lora_xs_moves_between_the_singular_vectors_alone(ground: Ground, tmp_path: Path) -> None:
    row = adapter(ground, "lora-xs")
    row.learn(clients_of(ground), tmp_path)
    with row.model() as model:
        load_vector(row.parameters(model)[0], row.values)
        layer = next(each for each in model.modules() if hasattr(each, "lora_A") and "default" in each.lora_A)
        middle, back = layer.lora_B["default"]
        change = back.weight @ middle.weight @ layer.lora_A["default"].weight
        U, _, Vt = torch.linalg.svd(layer.get_base_layer().weight)
    assert bool(change.any())
    kept = U[:, :8] @ U[:, :8].T @ change @ Vt[:8].T @ Vt[:8]
    torch.testing.assert_close(kept, change, rtol=1e-3, atol=1e-6)


def test_the_base_model_is_as_before_once_a_row_has_answered(ground: Ground, tmp_path: Path) -> None:
    row = adapter(ground, "fedsa-lora")
    before = {name: each.clone() for name, each in row.context.base.model.state_dict().items()}
    row.learn(clients_of(ground), tmp_path)
    people = ground.training(TASK)[1]
    answers = row.answer(asked_of(people))
    assert [len(each) for each in answers] == [len(person.questions) for person in people]
    after = row.context.base.model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], each) for name, each in before.items())


def test_rates_are_spread_over_their_range(ground: Ground) -> None:
    settings = ground.settings.replace(draws=4, lowest_rate=1e-4, highest_rate=1.0)
    rates = drawn_rates(settings)
    for kind in ("shared", "personal"):
        drawn = sorted(getattr(each, kind) for each in rates)
        assert [int(n) for n in torch.tensor(drawn).log10().floor() + 4] == [0, 1, 2, 3]
    assert rates == drawn_rates(settings)
