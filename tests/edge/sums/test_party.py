"""A member of the committee, asked by a cloud that may lie."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.protocol.secure_sums.parties import later, session_of

from fedperfit.edge.sums.party import ANSWERED, KEYS, AlreadyAnswered, SumParty, make_keys
from fedperfit.protocol.secure_sums.keys import SumKeys
from fedperfit.protocol.secure_sums.sealing import contribute, envelopes
from fedperfit.protocol.secure_sums.sharing import reconstruct
from fedperfit.protocol.system.errors import InputError

NAMES = ["c0", "c1", "c2"]


class Parties:
    """Nine clients with folders of their own, and what three of them sealed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = {f"c{n}": make_keys(folder / f"c{n}") for n in range(9)}
        self.session = session_of(self.keys)
        self.values = np.arange(11) % 3 - 1

    def sealed(self, place: int, names: list[str] = NAMES, session: object = None) -> list[bytes]:
        told = session or self.session
        made = [contribute(self.values, told, name, self.keys[name]) for name in names]
        return [envelopes(one, told, name)[place] for one, name in zip(made, names, strict=True)]

    def member(self, place: int) -> SumParty:
        name = self.session.members[place]
        return SumParty(self.folder / name, name, self.session.directory)


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    return Parties(tmp_path)


def test_answers_of_enough_members_make_the_sum(parties):
    session, field = parties.session, parties.session.numbers.field
    made = {name: contribute(parties.values, session, name, parties.keys[name]) for name in NAMES}
    answers = {}
    for place in range(5):
        sealed = [envelopes(made[name], session, name)[place] for name in NAMES]
        answers[place] = field.from_bytes(
            parties.member(place).answer(session, NAMES, sealed).total, session.columns
        )
    total, _ = reconstruct(answers, 11, session.shape, field)
    assert total.tolist() == (3 * parties.values).tolist()


def test_a_round_is_answered_once_also_after_a_restart(parties):
    sealed = parties.sealed(0)
    assert parties.member(0).answer(parties.session, NAMES, sealed).total
    for names, shares in (
        (NAMES[:2], sealed[:2]),
        (NAMES, parties.sealed(0)),
        (NAMES[::-1], sealed[::-1]),
    ):
        with pytest.raises(AlreadyAnswered, match="round 1 is answered"):
            parties.member(0).answer(parties.session, names, shares)


def test_the_very_same_request_gets_the_very_same_answer(parties):
    sealed = parties.sealed(0)
    told = parties.member(0).answer(parties.session, NAMES, sealed)
    assert parties.member(0).answer(parties.session, NAMES, sealed) == told


def test_other_terms_for_the_same_round_are_no_way_to_a_second_answer(parties):
    parties.member(0).answer(parties.session, NAMES, parties.sealed(0))
    other = replace(parties.session, agreement="cd")
    with pytest.raises(AlreadyAnswered):
        parties.member(0).answer(other, NAMES, parties.sealed(0, session=other))
    after = later(parties.session)
    assert parties.member(0).answer(after, NAMES, parties.sealed(0, session=after)).total


def test_that_it_answers_is_on_disk_before_the_answer(parties, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_: object) -> bytes:
        raise Killed

    member, sealed = parties.member(0), parties.sealed(0)
    monkeypatch.setattr("fedperfit.protocol.secure_sums.field.PrimeField.to_bytes", killed)
    with pytest.raises(Killed):
        member.answer(parties.session, NAMES, sealed)
    monkeypatch.undo()
    assert len(list((parties.folder / member.name / ANSWERED).iterdir())) == 1
    with pytest.raises(AlreadyAnswered):
        parties.member(0).answer(parties.session, NAMES, parties.sealed(0))
    assert parties.member(0).answer(parties.session, NAMES, sealed).total


def test_a_bad_share_names_its_sender_and_is_no_answer(parties):
    sealed = parties.sealed(0)
    broken = [sealed[0], sealed[1][:-1] + bytes([sealed[1][-1] ^ 1]), sealed[2]]
    told = parties.member(0).answer(parties.session, NAMES, broken)
    assert (told.total, told.bad) == (b"", ("c1",))
    assert parties.member(0).answer(parties.session, NAMES, sealed).total


def test_a_replay_of_an_earlier_round_is_refused(parties):
    told = parties.member(0).answer(later(parties.session), NAMES, parties.sealed(0))
    assert told.bad == tuple(NAMES)


def test_lists_that_are_too_short_or_name_one_twice_are_refused(parties):
    sealed = parties.sealed(0)
    for names, said in ((["c0"], "a sum of 1 client "), (["c0", "c0", "c1"], "names one twice")):
        with pytest.raises(InputError, match=said):
            parties.member(0).answer(parties.session, names, sealed[: len(names)])
    with pytest.raises(InputError, match="without a share"):
        parties.member(0).answer(parties.session, NAMES, sealed[:2])


def test_who_is_no_member_tells_nothing(parties):
    name = next(name for name in parties.keys if name not in parties.session.members)
    outsider = SumParty(parties.folder / name, name, parties.session.directory)
    with pytest.raises(InputError, match="not a member"):
        outsider.answer(parties.session, NAMES, parties.sealed(0))


def test_keys_are_the_owners_alone_and_kept(tmp_path):
    first, second = make_keys(tmp_path), make_keys(tmp_path)
    assert first.to_bytes() == second.to_bytes()
    assert (tmp_path / KEYS).stat().st_mode & 0o077 == 0
    with pytest.raises(InputError, match="No such file"):
        SumParty(tmp_path / "nowhere", "c0", session_of({"c0": SumKeys.new()}).directory)
