"""Rounds under a rule against liars: what it is given, and what happens with too few updates."""

from pathlib import Path

import pytest
from flwr.app import Message
from tests.cloud.fake_grid import FakeGrid, federation, flat, honest, perturbed

from fedperfit.cloud.rounds.robust import RULES, needed, robust
from fedperfit.protocol.system.errors import InputError

CLIENTS = dict(enumerate(("anna", "ben", "carl", "dora", "emil"), start=1))


def test_a_round_uses_the_rule_the_share_and_the_broadcast_shift(tmp_path: Path) -> None:
    settings = {"aggregation": "trimmed-mean", "assumed_malicious": 0.4, "rounds": 2}
    job = federation(tmp_path, FakeGrid(CLIENTS, honest), **settings)
    shift = job.train(CLIENTS.values(), lambda report: None)
    before = job.checkpoints._read(job.checkpoints.path(1)).shift
    updates = [perturbed(before, f"{name}/2") for name in sorted(CLIENTS.values())]
    assert flat(shift) == flat(robust("trimmed-mean", updates, 0.4, before))
    assert flat(shift) != flat(robust("trimmed-mean", updates, 0.2, before))


def test_a_round_with_too_few_updates_is_skipped(tmp_path: Path) -> None:
    def answer(client: str, message: Message) -> list[Message]:
        return honest(client, message) if client in ("anna", "ben") else []

    job = federation(tmp_path, FakeGrid(CLIENTS, answer), aggregation="median", rounds=1)
    shift = job.train(CLIENTS.values(), lambda report: None)
    assert [report.skipped for report in job.history] == [True]
    assert flat(shift) == flat(job.checkpoints._read(job.checkpoints.path(0)).shift)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_never_has_enough_updates_is_refused_at_once(tmp_path: Path, rule: str) -> None:
    job = federation(tmp_path, FakeGrid(CLIENTS, honest), aggregation=rule, assumed_malicious=0.2)
    if rule == "mean":
        job.train(["anna"], lambda report: None)
        return
    most = max(count for count in range(1, len(CLIENTS)) if count < needed(rule, count, 0.2))
    few = sorted(CLIENTS.values())[:most]
    with pytest.raises(InputError, match=f"aggregation={rule}: a round asks {len(few)} clients"):
        job.train(few, lambda report: None)
    assert not job.history
    job.train(CLIENTS.values(), lambda report: None)


def test_a_rule_that_has_enough_only_when_a_client_is_lost_is_not_refused(tmp_path: Path) -> None:
    """With six updates two may lie, for which Krum needs seven; with five only one may."""
    clients = {**CLIENTS, 6: "fay"}

    def answer(client: str, message: Message) -> list[Message]:
        return [] if client == "fay" else honest(client, message)

    for name, script, skipped in (("all", honest, True), ("lost", answer, False)):
        job = federation(tmp_path / name, FakeGrid(clients, script), aggregation="krum", rounds=1)
        job.train(clients.values(), lambda report: None)
        assert [report.skipped for report in job.history] == [skipped]
