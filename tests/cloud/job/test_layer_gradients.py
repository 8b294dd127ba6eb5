"""Clients' layer gradients are admitted one by one; a bad reply costs its own client only."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from tests.cloud.fake_grid import FakeGrid

from fedperfit.cloud.clients.exchange import Exchange
from fedperfit.cloud.job.layer_gradients import gather_layer_gradients
from fedperfit.protocol.messages.keys import (
    COUNTS_RECORD,
    ITEMS_KEY,
    LAYER_GRADIENT_KEY,
    LAYER_GRADIENT_TYPE,
    ROUND_KEY,
    STATISTICS_RECORD,
)
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.messages.settings import LayerGradientSettings
from fedperfit.protocol.messages.statistics import layer_gradient_to_bytes
from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.protocol.shift.selection import LayerGradient

CARD = BaseModelCard("f", hidden_size=16, layers=3, parameters=1, dtype="float32", lora_qv=1)
SETTINGS = LayerGradientSettings(positions="l7", max_items=10, batch_size=8, prompt_form="lamp")
CLIENTS = {number: f"c{number}" for number in range(1, 5)}
Twist = Callable[[RecordDict], None]


def honest(client: str) -> LayerGradient:
    start = torch.Generator().manual_seed(sum(client.encode()))
    return LayerGradient(torch.randn(3, 16, generator=start), torch.rand(3, generator=start), 7)


def content(client: str) -> RecordDict:
    told = honest(client)
    return RecordDict(
        {
            COUNTS_RECORD: MetricRecord({ITEMS_KEY: told.pairs, ROUND_KEY: 0}),
            STATISTICS_RECORD: ConfigRecord({LAYER_GRADIENT_KEY: layer_gradient_to_bytes(told)}),
        }
    )


def gathered(folder: Path, twist: Twist | None = None, max_items: int = 1024) -> dict[str, LayerGradient]:
    """Gather layer gradients from four clients, the last of which may be hostile."""

    def answer(client: str, message: Message) -> list[Message]:
        assert message.metadata.message_type == LAYER_GRADIENT_TYPE
        replied = content(client)
        if client == "c4" and twist is not None:
            twist(replied)
        return [Message(replied, reply_to=message)]

    grid = FakeGrid(CLIENTS, answer)
    exchange = Exchange(grid, Ledger(folder / "pulls.jsonl"), grid.clients)
    return gather_layer_gradients(
        exchange, SETTINGS, CARD, list(CLIENTS.values()), max_items=max_items, deadline=5.0
    )


def test_all_are_heard_and_none_outweighs_the_limit(tmp_path):
    found = gathered(tmp_path, max_items=6)
    assert list(found) == ["c1", "c2", "c3", "c4"]
    for client, told in found.items():
        assert told.pairs == 6
        assert torch.equal(told.gradient, honest(client).gradient)
        assert torch.equal(told.length, honest(client).length)
    entries = Ledger(tmp_path / "pulls.jsonl").entries()
    assert {(entry.phase, entry.round) for entry in entries} == {("pulls", 0)}
    assert [entry.payload for entry in entries if entry.direction == "up"] == [3 * 17 * 4] * 4


def data(change: Callable[[bytes], object], key: str = LAYER_GRADIENT_KEY) -> Twist:
    def twist(replied: RecordDict) -> None:
        replied[STATISTICS_RECORD] = ConfigRecord({key: change(layer_gradient_to_bytes(honest("c4")))})  # type: ignore[dict-item]

    return twist


def items(value: int | float) -> Twist:
    def twist(replied: RecordDict) -> None:
        replied[COUNTS_RECORD] = MetricRecord({ITEMS_KEY: value, ROUND_KEY: 0})

    return twist


def last(value: float) -> Callable[[bytes], bytes]:
    return lambda told: told[:-4] + torch.tensor([value]).numpy().tobytes()


def first(value: float) -> Callable[[bytes], bytes]:
    return lambda told: torch.tensor([value]).numpy().tobytes() + told[4:]


def without(name: str) -> Twist:
    return lambda replied: replied.pop(name) and None


def extra(replied: RecordDict) -> None:
    replied["pairs"] = ConfigRecord({"texts": b"x"})


HOSTILE: dict[str, tuple[Twist, str]] = {
    "truncated": (data(lambda told: told[:-1]), "203 bytes of statistics, expected 204"),
    "another model's": (data(lambda told: told + bytes(68)), "272 bytes of statistics, expected 204"),
    "nothing": (data(lambda told: b""), "0 bytes of statistics"),
    "text": (data(lambda told: "text"), "is not bytes"),
    "another key": (data(lambda told: told, "texts"), "unknown key 'texts'"),
    "another record": (extra, "unknown ConfigRecord 'pairs'"),
    "no counts": (without(COUNTS_RECORD), "record counts is missing"),
    "no statistics": (without(STATISTICS_RECORD), "statistics is missing"),
    "not a number": (data(first(float("nan"))), "not finite"),
    "an endless gradient": (data(first(1e30)), "a layer gradient is longer than 10000"),
    "an endless length": (data(last(1e30)), "lengths of its states are outside 0"),
    "a negative length": (data(last(-1.0)), "lengths of its states are outside 0"),
    "three pairs": (items(3), "items=3: must be at least 4"),
    "more pairs than asked for": (items(11), "11 pairs, more than the 10 asked for"),
    "a broken count": (items(7.5), "is not a whole number"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_reply_costs_its_own_client_only(name, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    twist, reason = HOSTILE[name]
    assert list(gathered(tmp_path, twist)) == ["c1", "c2", "c3"]
    (logged,) = [line for line in caplog.messages if "dropped c4" in line]
    assert re.search(reason, logged), logged
