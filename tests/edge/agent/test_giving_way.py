"""Whether the prior over people gives way to a free fit, by the items held out of both."""

import math
from contextlib import nullcontext
from dataclasses import replace
from statistics import mean, stdev

import pytest
import torch
from tests.edge.deployment.deployments import CLOUD, agree, deployed, policy
from tests.edge.edge_clients import write_client
from tests.edge.fitting.test_form import PERSONAL, people_of, release_of

from fedperfit.edge.agent import giving_way
from fedperfit.edge.agent.agent import Agent, personalize
from fedperfit.edge.agent.giving_way import settled_forms
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.engine.people.whitened import PASSES
from fedperfit.edge.engine.training import fit
from fedperfit.edge.fitting.choice import Intervention, held_out, losses
from fedperfit.edge.fitting.form import Form, personal_shift
from fedperfit.edge.learning.renewal import learn, renew
from fedperfit.protocol.people.people import People
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.release import Release

IDLE, LIVELY = 1e-9, 5e-3
"""Rates of a free fit that does nothing, and of one that learns."""
LOOSE, TIGHT = 3.0, 0.01
"""Deviations of a prior that lets people differ, and of one that lets nobody."""


def asking(header, *, items: int = 8, floor: float = LOOSE) -> People:
    people = people_of(header, items=items)
    return People(people.basis, replace(people.prior, floor=floor, gives_way="loss"))


def in_basis(agent: Agent, people: People) -> bool:
    return Coordinates.of_shift(people.basis, agent.vault.open("full")[1]) is not None


def test_only_those_with_more_items_than_the_prior_is_surely_for_are_asked(header):
    people = asking(header)
    assert [Form.of(people, items) for items in (1, 8, 9, 99)] == [
        Form.PRIOR,
        Form.PRIOR,
        Form.HELD_OUT,
        Form.HELD_OUT,
    ]
    assert Form.of(people, 99, 8.0) is Form.PRIVATE


@pytest.mark.parametrize(
    ("floor", "rate", "expected"),
    [(LOOSE, IDLE, Form.PRIOR), (TIGHT, LIVELY, Form.FREE), (LOOSE, LIVELY, None)],
)
def test_it_is_free_where_the_free_fit_to_four_fifths_clearly_answers_the_fifth_better(
    tmp_path, base, header, training, floor, rate, expected
):
    release = OpenedRelease.of(release_of(header, asking(header, floor=floor)), base)
    training = training.replace(learning_rate=rate, epochs=4)
    agents = [Agent(write_client(tmp_path / s, seed=s, items=n), base) for s, n in (("a", 40), ("b", 30))]
    settled = settled_forms(agents, release, PERSONAL, training, agents[0].items)
    for agent in agents:
        job = agent.personal_job(release, PERSONAL, training)
        held, rest = held_out(job.examples)
        alone = []
        for form in (Form.PRIOR, Form.FREE):
            free = replace(agent.personal_job(release, PERSONAL, training), examples=rest)
            one = form.job(free, release.people, training)
            fit([one], training, agent.items, frozen=[release.frozen(base)], decay_rate=True)
            answers = Intervention([release.frozen(base), personal_shift(one.shift)])
            alone.append(losses(base, held, answers).tolist())
        gains = [simple - free for simple, free in zip(*alone, strict=True)]
        sure = mean(gains) - stdev(gains) / math.sqrt(len(gains))
        assert abs(sure) > 1e-3, "the example tells the forms apart"
        assert settled[agent] is (Form.FREE if sure > 0 else Form.PRIOR)
    if expected is not None:
        assert list(settled.values()) == [expected] * 2


def test_too_few_items_to_hold_any_out_leave_it_to_the_prior(tmp_path, base, header, training, monkeypatch):
    agent = Agent(write_client(tmp_path, items=12), base)
    people = asking(header, floor=TIGHT)
    monkeypatch.setattr(giving_way, "losses", None)
    agent.personalize(release_of(header, people), PERSONAL, training.replace(learning_rate=LIVELY))
    assert in_basis(agent, people)


def test_a_fit_that_fails_loses(tmp_path, base, header, training):
    people = asking(header, floor=TIGHT)
    agent = Agent(write_client(tmp_path, items=40), base)
    agent.personalize(release_of(header, people), PERSONAL, training.replace(learning_rate=1e30))
    assert in_basis(agent, people)


def test_people_side_by_side_each_get_their_own_form(tmp_path, base, header, training):
    people = asking(header, items=12, floor=TIGHT)
    agents = [Agent(write_client(tmp_path / str(n), seed="a", items=n), base) for n in (12, 40)]
    training = training.replace(learning_rate=LIVELY, epochs=4)
    done = dict(personalize(agents, release_of(header, people), PERSONAL, training, agents[0].items))
    assert [done[agent].items for agent in agents] == [12, 40]
    assert [in_basis(agent, people) for agent in agents] == [True, False]


@pytest.mark.parametrize(("floor", "rate", "prior"), [(LOOSE, IDLE, True), (TIGHT, LIVELY, False)])
def test_a_lesson_keeps_the_form_of_the_last_fit(
    tmp_path, base, header, training, floor, rate, prior, monkeypatch
):
    people = asking(header, floor=floor)
    release = OpenedRelease.of(release_of(header, people), base)
    agent = Agent(write_client(tmp_path, seed="a", items=40), base)
    renew(agent, release, 1, PERSONAL, training.replace(learning_rate=rate, epochs=4))
    assert in_basis(agent, people) is prior
    assert agent.vault.slots() == ["full", "full-held-out"]
    monkeypatch.setattr("fedperfit.edge.learning.renewal.settled_forms", None)
    lesson = learn(agent, [dict(agent.history.items[0])], release, PERSONAL)
    assert (lesson.steps == PASSES) is prior
    assert in_basis(agent, people) is prior


def test_the_rule_travels_with_the_release_and_older_ones_mean_what_they_did(header):
    older, newer = people_of(header, items=8), asking(header)
    assert b"gives_way" not in older.to_bytes()
    assert People.from_bytes(older.to_bytes()).prior.gives_way == "items"
    assert People.from_bytes(newer.to_bytes()).prior.gives_way == "loss"
    forged = newer.to_bytes().replace(b'\\"loss\\"', b'\\"lass\\"')
    with pytest.raises(InputError, match="gives way to something unknown"):
        People.from_bytes(forged)


def test_the_choice_is_the_same_each_time(tmp_path, base, header, training):
    data = release_of(header, asking(header))
    agent = Agent(write_client(tmp_path, items=40), base)
    shifts = []
    for _ in range(2):
        agent.personalize(data, PERSONAL, training)
        shifts.append(agent.vault.open("full")[1].W.detach())
    assert torch.equal(*shifts)


def test_the_steps_of_all_fits_count_that_held_out_items_take(tmp_path, base, header, training):
    release = Release.first(Shift.identity(header.shape, seed=1), header, CLOUD, people=asking(header))
    training = training.replace(epochs=4, batch_size=8, max_items=0)
    for name, most in (("ada", 59), ("ben", 60)):
        folder = write_client(tmp_path / name, items=40)
        agree(folder, policy(most_steps=most))
        with deployed(folder) as edge:
            refused = pytest.raises(InputError, match="60 steps, agreed are at most 59")
            with refused if most == 59 else nullcontext():
                edge.personalize(release.to_bytes(), PERSONAL, training, lambda: True)
            assert bool(edge.agent.vault.slots()) is (most == 60)
