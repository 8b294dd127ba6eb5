"""Rounds in a frozen basis over scripted clients."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from tests.cloud.fake_grid import SHAPE, FakeGrid, flat, items_of
from tests.cloud.fake_grid import federation as federation_over

from fedperfit.cloud.rounds.federation import Federation
from fedperfit.cloud.rounds.robust import RULES
from fedperfit.protocol.messages.broadcast import broadcast
from fedperfit.protocol.messages.keys import (
    BASIS_KEY,
    BASIS_RECORD,
    ITEMS_KEY,
    ROUND_KEY,
    SETTINGS_RECORD,
    UPDATE_KEY,
    UPDATE_RECORD,
)
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.shift.codecs import encode
from fedperfit.protocol.shift.coordinate_packing import Agreement, pack_update, unpack_coordinates
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError

BASIS = random_basis(SHAPE, 3, task="LaMP_2M", fingerprint="f" * 64, seed=0)
CLIENTS = dict(enumerate(("anna", "ben", "carl", "dora", "emil"), start=1))
Values = dict[str, object]
Lie = Callable[[str, Message, Values], Values | None]


class Edges:
    """Clients that keep a basis once they were sent one, and answer as honest ones do, or lie."""

    def __init__(self, lie: Lie | None = None) -> None:
        self.kept: dict[str, Basis] = {}
        self.sent_basis: list[str] = []
        self.lie = lie

    def __call__(self, client: str, message: Message) -> list[Message]:
        config = dict(message.content[SETTINGS_RECORD])
        assert set(message.content) <= {SETTINGS_RECORD, BASIS_RECORD}  # each costs requests of Flower's
        if BASIS_RECORD in message.content:
            self.sent_basis.append(client)
            self.kept[client] = Basis.from_bytes(message.content[BASIS_RECORD][BASIS_KEY])
        values: Values = {ITEMS_KEY: 0, ROUND_KEY: config[ROUND_KEY]}
        if client in self.kept:
            packed = broadcast(message)
            _, agreement = unpack_coordinates(packed, self.kept[client], config["codec"])
            change = drawn(client, config[ROUND_KEY])
            values |= {
                UPDATE_KEY: pack_update(change, agreement, 0),
                ITEMS_KEY: items_of(client),
                "loss": 0.5,
            }
        changed = values if self.lie is None else self.lie(client, message, values)
        if changed is None:
            return []
        return [Message(RecordDict({UPDATE_RECORD: ConfigRecord(changed)}), reply_to=message)]


def drawn(client: str, round: object) -> torch.Tensor:
    seed = random.Random(f"{client}/{round}").getrandbits(60)
    return 0.1 * torch.randn(BASIS.numbers, generator=torch.Generator().manual_seed(seed))


def federation(folder: Path, edges: Edges, **changes: object) -> Federation:
    return federation_over(folder, FakeGrid(CLIENTS, edges), basis=BASIS, **changes)


def train(folder: Path, edges: Edges | None = None, **changes: object) -> tuple[Shift, Federation]:
    job = federation(folder, edges or Edges(), **changes)
    return job.train(CLIENTS.values(), lambda report: None), job


def test_the_mean_of_changes_is_what_the_formula_says(tmp_path: Path) -> None:
    result, _ = train(tmp_path)
    weights = np.array([min(items_of(name), 6) for name in CLIENTS.values()], dtype=float)
    numbers = torch.zeros(BASIS.numbers)
    for number in (1, 2):
        changes = torch.stack([drawn(name, number) for name in CLIENTS.values()]).double()
        mean = torch.from_numpy(weights / weights.sum()) @ changes
        numbers = (numbers.double() + mean).float()
    torch.testing.assert_close(result.W, Coordinates.of(BASIS, numbers).shift().W, rtol=0, atol=1e-7)
    assert torch.equal(result.R, BASIS.R)


def test_one_bit_updates_are_votes_with_the_median_scale(tmp_path: Path) -> None:
    _, job = train(tmp_path, dtype="sign", rounds=1)
    votes = torch.stack([drawn(name, 1).sign() for name in CLIENTS.values()])
    scales = torch.stack([drawn(name, 1).abs().mean() for name in CLIENTS.values()])
    weights = torch.tensor([float(min(items_of(name), 6)) for name in CLIENTS.values()])
    expected = float(scales.median()) * (weights / weights.sum()) @ votes
    found = torch.tensor(job.checkpoints.latest().numbers)
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=0)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "krum"])
def test_no_claimed_scale_makes_a_vote_count_for_more_than_one(tmp_path: Path, rule: str) -> None:
    def lie(client: str, message: Message, values: Values) -> Values:
        if client != "anna":
            return values
        agreement = Agreement(BASIS.digest, "sign", int(values[ROUND_KEY]) - 1)
        return values | {UPDATE_KEY: agreement.tag + encode("sign", drawn("anna", 1) * 100, 0)}

    _, honest = train(tmp_path / "honest", dtype="sign", rounds=1, aggregation=rule)
    _, lied = train(tmp_path / "lied", Edges(lie), dtype="sign", rounds=1, aggregation=rule)
    numbers = [torch.tensor(job.checkpoints.latest().numbers) for job in (honest, lied)]
    assert float((numbers[1] / numbers[0].where(numbers[0] != 0, torch.ones(()))).abs().max()) < 1.5


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "mean"])
def test_robust_rules_resist_one_that_sends_far_more(tmp_path: Path, rule: str) -> None:
    def lie(client: str, message: Message, values: Values) -> Values:
        if client != "anna":
            return values
        told = Agreement(BASIS.digest, "float32", int(values[ROUND_KEY]) - 1)
        return values | {UPDATE_KEY: pack_update(torch.full((BASIS.numbers,), 5.0), told, 0)}

    _, job = train(tmp_path, Edges(lie), rounds=1, aggregation=rule)
    assert max(map(abs, job.checkpoints.latest().numbers)) < 0.4


def test_the_basis_is_sent_once_and_again_to_who_lost_it(tmp_path: Path) -> None:
    edges = Edges()

    def forget(client: str, message: Message, values: Values) -> Values:
        if client == "ben" and values[ROUND_KEY] == 1:
            edges.kept.pop("ben", None)
        return values

    edges.lie = forget
    _, job = train(tmp_path, edges, rounds=3)
    assert sorted(edges.sent_basis) == sorted([*CLIENTS.values(), "ben"])
    assert all(report.admitted == sorted(CLIENTS.values()) for report in job.history)
    assert job.history[0].bytes_down > job.history[2].bytes_down + 4 * len(BASIS.to_bytes())
    assert sum(e.round == 2 and e.client == "ben" for e in job.ledger.entries()) == 4


def test_who_lacks_the_basis_for_ever_is_dropped(tmp_path: Path) -> None:
    def never(client: str, message: Message, values: Values) -> Values:
        return {ITEMS_KEY: 0, ROUND_KEY: values[ROUND_KEY]} if client == "carl" else values

    _, job = train(tmp_path, Edges(never), rounds=1)
    assert job.history[0].dropped == {"carl": "it was sent the basis twice and still lacks it"}
    assert len(job.history[0].admitted) == 4


@pytest.mark.parametrize("dtype", ["float32", "sign"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, dtype: str, number: int) -> None:
    whole, job = train(tmp_path / "whole", rounds=3, dtype=dtype)

    def kill(client: str, message: Message, values: Values) -> Values:
        if values[ROUND_KEY] == number and client == "carl":
            raise KeyboardInterrupt
        return values

    edges = Edges(kill)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", edges, rounds=3, dtype=dtype)
    edges.lie = None
    resumed, again = train(tmp_path / "killed", edges, rounds=3, dtype=dtype)
    assert flat(resumed) == flat(whole)
    assert again.history == job.history
    last = "checkpoints/round-0003.safetensors"
    assert (tmp_path / "killed" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


def changed(key: str, value: object) -> Callable[[Values], Values]:
    return lambda values: values | {key: value}


def huge(values: Values) -> Values:
    told = Agreement(BASIS.digest, "float32", 0)
    return values | {UPDATE_KEY: pack_update(torch.full((BASIS.numbers,), 1e4), told, 0)}


HOSTILE: dict[str, tuple[Callable[[Values], Values], str]] = {
    "cut": (lambda v: v | {UPDATE_KEY: v[UPDATE_KEY][:-1]}, "bytes of"),
    "another round": (lambda v: v | {UPDATE_KEY: b"\0\0\0\0" + v[UPDATE_KEY][4:]}, "another basis, codec"),
    "far away": (huge, "norm of W - R"),
    "not bytes": (changed(UPDATE_KEY, 1.0), "not bytes"),
    "no items": (changed(ITEMS_KEY, -1), "at least 1"),
    "items a float": (changed(ITEMS_KEY, 2.0), "whole number"),
    "old round": (changed(ROUND_KEY, 7), "expected 1"),
    "loss": (changed("loss", float("nan")), "metric loss"),
    "extra": (changed("personal", b"x"), "unknown key 'personal'"),
    "missing": (lambda v: {key: v[key] for key in (ITEMS_KEY, ROUND_KEY)}, "lacks the key"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_replies_cost_their_sender_alone(tmp_path: Path, name: str) -> None:
    change, reason = HOSTILE[name]
    edges = Edges(lambda client, message, values: change(values) if client == "anna" else values)
    _, job = train(tmp_path, edges, rounds=1)
    assert reason in job.history[0].dropped["anna"]
    assert len(job.history[0].admitted) == 4


def test_another_basis_is_another_run_and_no_start_is_given(tmp_path: Path) -> None:
    _, job = train(tmp_path)
    plain = federation(tmp_path, Edges())
    plain.basis = None
    assert plain.digest != job.digest
    start = random_shift()
    with pytest.raises(InputError, match="does not lie in the update basis"):
        federation(tmp_path / "new", Edges()).train(["anna"], lambda report: None, lambda: start)


def test_a_release_from_this_basis_is_gone_on_from(tmp_path: Path) -> None:
    released, _ = train(tmp_path, rounds=1)
    again = federation(tmp_path / "next", Edges(), rounds=1)
    begun = again.form.start(released, 0)
    torch.testing.assert_close(begun.shift().W, released.W, rtol=0, atol=1e-6)
    assert torch.equal(begun.b, released.b)


def random_shift() -> Shift:
    return Shift.identity(SHAPE, seed=0)
