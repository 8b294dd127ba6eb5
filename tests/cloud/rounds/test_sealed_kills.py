"""Rounds of sums that are killed at any moment, and go on to the same result."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flwr.app import Message
from tests.cloud.rounds.test_sealed_rounds import (
    NAMES,
    SealedEdges,
    members,
    numbers,
    sealed,
    train,
    votes,
)

from fedperfit.cloud.rounds.federation import Federation
from fedperfit.protocol.messages.keys import SUM_TYPE


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def _killed(*_: object) -> None:
    raise Killed


def _before_members(job: Federation, edges: SealedEdges, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("fedperfit.cloud.rounds.sums.SecureSums.total", _killed)


def _at_the_third_member(job: Federation, edges: SealedEdges, patch: pytest.MonkeyPatch) -> None:
    def kill(client: str, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == SUM_TYPE and len(edges.asked) == 3:
            raise Killed
        return reply

    patch.setattr(edges, "change", kill)


def _with_all_answers(job: Federation, edges: SealedEdges, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("fedperfit.cloud.rounds.sums.reconstruct", _killed)


def _with_the_sum(job: Federation, edges: SealedEdges, patch: pytest.MonkeyPatch) -> None:
    write = job.checkpoints.write
    patch.setattr(job.checkpoints, "write", lambda c: write(c) if c.round == 0 else _killed())


def _with_the_checkpoint(job: Federation, edges: SealedEdges, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("fedperfit.cloud.rounds.sums.SecureSums.forget", _killed)


Moment = Callable[[Federation, SealedEdges, pytest.MonkeyPatch], None]


def kill(job: Federation, edges: SealedEdges, monkeypatch: pytest.MonkeyPatch, moment: Moment) -> None:
    """Train until a moment at which the cloud is killed."""
    with monkeypatch.context() as patch:
        moment(job, edges, patch)
        with pytest.raises(Killed):
            train(job)


@pytest.mark.parametrize(
    "moment",
    [_before_members, _at_the_third_member, _with_all_answers, _with_the_sum, _with_the_checkpoint],
)
def test_a_killed_round_goes_on_to_the_same_sum_and_report(tmp_path, monkeypatch, moment: Moment):
    undisturbed = sealed(tmp_path / "whole", SealedEdges(tmp_path / "whole"), rounds=2)
    expected = train(undisturbed)
    edges = SealedEdges(tmp_path)
    contributed: list[str] = []
    update = edges._update
    monkeypatch.setattr(
        edges, "_update", lambda client, message: (contributed.append(client), update(client, message))[1]
    )
    begun = sealed(tmp_path, edges, rounds=2)
    kill(begun, edges, monkeypatch, moment)
    job = sealed(tmp_path, edges, rounds=2)
    train(job)
    assert torch.equal(numbers(job), numbers(undisturbed))
    assert job.history == expected
    assert len(job.ledger.entries()) == len(undisturbed.ledger.entries())
    assert len(contributed) == 2 * len(NAMES), "no contributor is asked for a round twice"
    assert not list((tmp_path / "checkpoints").glob("sealed-*"))


def test_members_that_left_after_a_kill_are_lost_as_any_other(tmp_path, monkeypatch):
    edges = SealedEdges(tmp_path)
    begun = sealed(tmp_path, edges)
    kill(begun, edges, monkeypatch, _with_all_answers)
    edges.lost = {f"{name}/sum" for name in members(edges, begun)[:2]}
    job = sealed(tmp_path, edges)
    train(job)
    assert torch.equal(numbers(job), (0.02 * votes(NAMES).sum(dim=0) / 9).float())


def test_a_sum_under_another_release_is_begun_anew_under_another_name(tmp_path, monkeypatch, caplog):
    edges = SealedEdges(tmp_path)
    begun = sealed(tmp_path, edges)
    kill(begun, edges, monkeypatch, _with_all_answers)
    assert begun.sums is not None
    before = begun.sums.terms.sum_run
    edges.release = "ab" * 32
    job = sealed(tmp_path, edges)
    with caplog.at_level(logging.INFO):
        train(job)
    assert job.sums is not None
    assert job.sums.terms.sum_run != before
    assert "going on with what contributors sealed" not in caplog.text
    assert torch.equal(numbers(job), (0.02 * votes(NAMES).sum(dim=0) / 9).float())


def test_what_was_sealed_is_gone_once_its_round_is_over(tmp_path: Path):
    job = sealed(tmp_path, SealedEdges(tmp_path), rounds=1)
    train(job)
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("s*.json")) == [
        "sum-0001.json",
        "sums.json",
    ]
