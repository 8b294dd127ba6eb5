"""A cloud that takes two sums over nearly the same people: their difference is one person's update."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.protocol.secure_sums.parties import session_of

from fedperfit.edge.sums.party import SumParty, TooFewApart, make_keys
from fedperfit.protocol.secure_sums.cohorts import fewest_together
from fedperfit.protocol.secure_sums.field import Elements
from fedperfit.protocol.secure_sums.keys import SumKeys
from fedperfit.protocol.secure_sums.sealing import contribute, envelopes
from fedperfit.protocol.secure_sums.session import Session
from fedperfit.protocol.secure_sums.sharing import reconstruct

VICTIM = "c0"


class Cloud:
    """A cloud with nine clients, which begins runs as it likes and asks members for sums."""

    def __init__(self, folder: Path, together: int) -> None:
        self.folder, self.together = folder, together
        self.keys = {f"c{number}": make_keys(folder / f"c{number}") for number in range(9)}
        self.names = sorted(self.keys)
        self.session = session_of(self.keys)
        rng = np.random.default_rng(0)
        self.votes = {name: rng.choice([-1, 1], 11) for name in self.names}
        """What each client's training says, the same in every run from the same shift."""

    def run(self, number: int) -> Session:
        return replace(self.session, run=f"{number:032}")

    def answers(self, session: Session, names: Sequence[str]) -> Mapping[int, Elements]:
        """What members tell; none of those that refuse."""
        sent = {
            name: envelopes(contribute(self.votes[name], session, name, self.keys[name]), session, name)
            for name in names
        }
        answers = {}
        for place, member in enumerate(session.members):
            sealed = [sent[name][place] for name in names]
            party = SumParty(self.folder / member, member, session.directory, together=self.together)
            try:
                told = party.answer(session, names, sealed).total
            except TooFewApart:
                continue
            answers[place] = session.numbers.field.from_bytes(told, session.columns)
        return answers

    def sum(self, session: Session, names: Sequence[str]) -> Elements:
        total, _ = reconstruct(self.answers(session, names), 11, session.shape, session.numbers.field)
        return total


def test_without_the_guard_two_sums_isolate_one_person(tmp_path):
    cloud = Cloud(tmp_path, together=1)
    rest = [name for name in cloud.names if name != VICTIM]
    told = cloud.sum(cloud.run(1), cloud.names) - cloud.sum(cloud.run(2), rest)
    assert np.array_equal(told, cloud.votes[VICTIM])


def test_without_the_guard_three_sums_isolate_one_person_though_no_two_are_alike(tmp_path):
    cloud = Cloud(tmp_path, together=1)
    lists = [cloud.names, cloud.names[1:5], cloud.names[5:]]
    whole, one, other = (cloud.sum(cloud.run(number), names) for number, names in enumerate(lists))
    assert np.array_equal(whole - one - other, cloud.votes[VICTIM])


def without_one_of_the_clouds(cloud: Cloud) -> list[str]:
    """All but the person, and a client that the cloud controls, whose update it knows."""
    return [name for name in cloud.names if name not in (VICTIM, "c1")]


def test_kept_together_with_a_machine_of_the_clouds_one_person_is_isolated(tmp_path):
    cloud = Cloud(tmp_path, together=2)
    told = cloud.sum(cloud.run(1), cloud.names) - cloud.sum(cloud.run(2), without_one_of_the_clouds(cloud))
    assert np.array_equal(told - cloud.votes["c1"], cloud.votes[VICTIM])


def test_machines_that_the_cloud_may_control_do_not_count(tmp_path):
    corrupt = session_of({f"c{number}": SumKeys.new() for number in range(9)}).shape.corrupt
    cloud = Cloud(tmp_path, together=fewest_together(2, corrupt))
    cloud.sum(cloud.run(1), cloud.names)
    assert cloud.answers(cloud.run(2), without_one_of_the_clouds(cloud)) == {}


@pytest.mark.parametrize("lists", [[slice(None), slice(1, None)], [slice(None), slice(1, 5), slice(5, None)]])
def test_members_refuse_the_sum_that_would_isolate_one(tmp_path, lists):
    cloud = Cloud(tmp_path, together=2)
    *before, last = (cloud.names[names] for names in lists)
    for number, names in enumerate(before):
        assert np.array_equal(cloud.sum(cloud.run(number), names), sum(cloud.votes[name] for name in names))
    assert cloud.answers(cloud.run(9), last) == {}


def test_a_cloud_that_asks_other_members_for_the_second_sum_has_too_few(tmp_path):
    cloud = Cloud(tmp_path, together=2)
    session, shape = cloud.run(1), cloud.session.shape
    helped = session.members[: shape.threshold]
    sealed = {
        n: envelopes(contribute(cloud.votes[n], session, n, cloud.keys[n]), session, n) for n in cloud.names
    }
    for place, member in enumerate(helped):
        party = SumParty(tmp_path / member, member, session.directory, together=2)
        assert party.answer(session, cloud.names, [sealed[name][place] for name in cloud.names]).total
    left = cloud.answers(cloud.run(2), cloud.names[1:])
    assert len(left) == shape.size - shape.threshold
    assert len(left) + shape.corrupt < shape.threshold


def test_the_same_people_are_summed_again_and_again(tmp_path):
    cloud = Cloud(tmp_path, together=2)
    for number in range(3):
        assert len(cloud.answers(cloud.run(number), cloud.names)) == cloud.session.shape.size


def test_a_refused_sum_is_not_remembered(tmp_path):
    cloud = Cloud(tmp_path, together=2)
    cloud.answers(cloud.run(1), cloud.names)
    assert cloud.answers(cloud.run(2), cloud.names[1:]) == {}
    assert len(cloud.answers(cloud.run(2), cloud.names[2:])) == cloud.session.shape.size
