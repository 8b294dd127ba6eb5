"""The form of a personal fit on a release that carries a basis, and perhaps a prior over people."""

import math
import pickle

import pytest
import torch
from tests.edge.edge_clients import evaluation, write_client

from fedperfit.edge.agent import side_by_side
from fedperfit.edge.agent.agent import Agent, personalize
from fedperfit.edge.agent.consent import limit_epsilon
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.engine.people.whitened import PASSES
from fedperfit.edge.fitting.form import DELTA, Form, noisy_steps
from fedperfit.edge.learning import renewal
from fedperfit.edge.learning.renewal import learn, renew
from fedperfit.edge.vault.personal import PersonalCoordinates
from fedperfit.protocol.messages.settings import PersonalSettings
from fedperfit.protocol.people.people import People
from fedperfit.protocol.people.prior import Prior
from fedperfit.protocol.privacy.gaussian import epsilon_of_mu
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.signing import SigningKey

PERSONAL = PersonalSettings(rank=2, additive=False, slot="full")


def people_of(header: ShiftHeader, *, items: int | None = None) -> People:
    basis = random_basis(header.shape, 6, task=header.task, fingerprint=header.fingerprint, seed=0)
    if items is None:
        return People(basis)
    directions = torch.linalg.qr(torch.randn(basis.numbers, 3, generator=torch.Generator().manual_seed(0)))
    return People(basis, Prior(directions.Q.T.contiguous(), torch.tensor([0.3, 0.2, 0.1]), 0.05, 0.1, items))


def release_of(header: ShiftHeader, people: People | None) -> bytes:
    shift = Shift.identity(header.shape, seed=1)
    return Release.first(shift, header, SigningKey(), people=people).to_bytes()


def test_the_form_follows_what_the_release_says_and_the_number_of_items(header):
    assert Form.of(None, 3) is Form.FREE
    assert Form.of(people_of(header), 3) is Form.BASIS
    assert Form.of(people_of(header, items=3), 3) is Form.PRIOR
    assert Form.of(people_of(header, items=3), 4) is Form.FREE
    assert Form.of(people_of(header, items=3), 3, 8.0) is Form.of(people_of(header), 99, 8.0) is Form.PRIVATE
    with pytest.raises(InputError, match="personal-epsilon=8: the release has no basis"):
        Form.of(None, 3, 8.0)


@pytest.mark.parametrize("epsilon", [0.5, 8.0])
def test_the_noise_is_the_least_that_keeps_the_promise(training, epsilon):
    how = noisy_steps(epsilon, training)
    assert epsilon_of_mu(how.mu, DELTA) <= epsilon < epsilon_of_mu(1.001 * how.mu, DELTA)


def test_under_a_limit_the_shift_is_noised_and_nothing_else_tells_of_the_items(
    tmp_path, base, header, training
):
    limited, other, wrong = (Agent(write_client(tmp_path / name), base) for name in ("a", "b", "c"))
    limit_epsilon(tmp_path / "a", 2.0)
    (tmp_path / "c" / "client.json").write_text(
        (tmp_path / "c" / "client.json").read_text().replace("{", '{"personal-epsilon": true, ', 1)
    )
    data = release_of(header, people_of(header))
    outcomes = dict(personalize([limited, wrong, other], data, PERSONAL, training, limited.items))
    assert isinstance(outcomes[wrong], InputError)
    assert outcomes[limited].items == 16
    assert outcomes[limited].metrics == {}
    assert "loss" in outcomes[other].metrics
    stored, shift = limited.vault.open("full")
    assert (stored.fit_record.epsilon, stored.fit_record.judged) == (2.0, {})
    assert other.vault.open("full")[0].fit_record.epsilon == 0.0
    limited.personalize(data, PERSONAL, training)
    assert not torch.equal(limited.vault.open("full")[1].W, shift.W), "noise of its own for every fit"


def test_renewing_and_learning_under_a_limit_judge_by_no_items(tmp_path, base, header, training):
    agent = Agent(write_client(tmp_path, items=40), base)
    release = OpenedRelease.of(release_of(header, people_of(header)), base)
    renew(agent, release, 1, PERSONAL, training)
    assert agent.vault.slots() == ["full", "full-held-out"]
    assert agent.vault.open("full")[0].fit_record.judged
    limit_epsilon(tmp_path, 8.0)
    lesson = learn(agent, [dict(agent.history.items[0])], release, PERSONAL)
    assert (lesson.steps, math.isnan(lesson.loss)) == (noisy_steps(8.0, training).steps, True)
    for origin in ("learned", "fitted"):
        record = agent.vault.open("full")[0].fit_record
        assert agent.vault.slots() == ["full"]
        assert (record.origin, record.epsilon, record.judged, record.stage) == (origin, 8.0, {}, "personal")
        renew(agent, release, 2, PERSONAL, training)
    limit_epsilon(tmp_path, 0.0)
    renew(agent, release, 3, PERSONAL, training)
    assert agent.vault.open("full")[0].fit_record.epsilon == 0.0


def _during(monkeypatch, change) -> None:
    """Have a change made at the end of the next fit."""
    for module in (renewal, side_by_side):
        fit = module.fit

        def fitted(*args, fit=fit, **how):
            done = fit(*args, **how)
            change()
            return done

        monkeypatch.setattr(module, "fit", fitted)


@pytest.mark.parametrize("first", [8.0, 0.0])
def test_a_limit_lowered_during_a_fit_keeps_nothing_that_tells_more(
    tmp_path, base, header, training, first, monkeypatch
):
    agent = Agent(write_client(tmp_path), base)
    data = release_of(header, people_of(header))
    release, item = OpenedRelease.of(data, base), dict(agent.history.items[0])
    limit_epsilon(tmp_path, first)
    renew(agent, release, 1, PERSONAL, training)
    kept = agent.vault.open("full")[0]
    _during(monkeypatch, lambda: limit_epsilon(tmp_path, 2.0))
    for action in (
        lambda: renew(agent, release, 2, PERSONAL, training),
        lambda: learn(agent, [item], release, PERSONAL),
        lambda: agent.personalize(data, PERSONAL, training),
    ):
        limit_epsilon(tmp_path, first)
        with pytest.raises(InputError, match="personal-epsilon=2 was set while a shift was fitted"):
            action()
        assert agent.vault.open("full")[0] == kept
        assert agent.vault.learned() == []
    renew(agent, release, 2, PERSONAL, training)
    assert agent.vault.open("full")[0].fit_record.epsilon == 2.0


def test_a_limit_lowered_by_one_of_several_costs_that_one_alone(
    tmp_path, base, header, training, monkeypatch
):
    agents = [Agent(write_client(tmp_path / name), base) for name in ("a", "b")]
    _during(monkeypatch, lambda: limit_epsilon(tmp_path / "a", 2.0))
    results = dict(personalize(agents, release_of(header, None), PERSONAL, training, agents[0].items))
    assert isinstance(results[agents[0]], InputError)
    assert results[agents[1]].items == 16
    assert [agent.vault.slots() for agent in agents] == [[], ["full"]]


def test_a_limit_raised_during_a_fit_leaves_the_promise_that_its_noise_keeps(
    tmp_path, base, header, training, monkeypatch
):
    agent = Agent(write_client(tmp_path), base)
    data = release_of(header, people_of(header))
    release, item = OpenedRelease.of(data, base), dict(agent.history.items[0])
    for action in (
        lambda: renew(agent, release, 1, PERSONAL, training),
        lambda: learn(agent, [item], release, PERSONAL),
        lambda: agent.personalize(data, PERSONAL, training),
    ):
        limit_epsilon(tmp_path, 2.0)
        with monkeypatch.context() as patch:
            _during(patch, lambda: limit_epsilon(tmp_path, 0.0))
            action()
        assert agent.vault.open("full")[0].fit_record.epsilon == 2.0


@pytest.mark.parametrize("epsilon", [-1.0, 101.0, float("nan")])
def test_a_limit_that_is_none_is_one_line(tmp_path, epsilon):
    write_client(tmp_path)
    with pytest.raises(InputError, match="personal-epsilon: expected a number from 0 to 100"):
        limit_epsilon(tmp_path, epsilon)


@pytest.mark.parametrize("items", [None, 16])
def test_the_shift_in_the_vault_lies_in_the_basis_and_answers(tmp_path, base, header, training, items):
    people = people_of(header, items=items)
    agent = Agent(write_client(tmp_path / "client"), base)
    data = release_of(header, people)
    outcome = agent.personalize(data, PERSONAL, training)
    assert outcome.items == 16
    stored, shift = agent.vault.open("full")
    assert stored.shape == header.shape
    inside = Coordinates.of_shift(people.basis, shift)
    assert inside is not None
    assert float(inside.numbers.norm()) > 1e-3
    assert agent.evaluate(data, evaluation("personal")).items > 0
    agent.personalize(data, PERSONAL, training)
    assert torch.equal(agent.vault.open("full")[1].W, shift.W)


def test_those_with_more_items_are_fitted_freely_beside_the_others(tmp_path, base, header, training):
    data = release_of(header, people_of(header, items=8))
    agents = [Agent(write_client(tmp_path / str(n), items=n), base) for n in (4, 12)]
    results = dict(personalize(agents, data, PERSONAL, training, agents[0].items))
    assert [results[agent].items for agent in agents] == [4, 12]
    assert [agent.vault.open("full")[0].shape.rank for agent in agents] == [header.shape.rank, PERSONAL.rank]
    plain = Agent(write_client(tmp_path / "plain", items=12), base)
    plain.personalize(release_of(header, None), PERSONAL, training)
    ours, plainly = (each.vault.open("full")[1].W for each in (agents[1], plain))
    torch.testing.assert_close(ours, plainly, rtol=1e-3, atol=1e-4)


def test_a_lesson_under_a_prior_is_a_fit_on_all_items(tmp_path, base, header, training):
    release = OpenedRelease.of(release_of(header, people_of(header, items=40)), base)
    agent = Agent(write_client(tmp_path / "client", items=20, questions=4), base)
    renew(agent, release, 1, PERSONAL, training)
    before = agent.vault.open("full")[1]
    asked = agent.history.questions[0]
    task = agent.history.task
    lesson = learn(
        agent, [{**task.query_fields(asked["input"]), task.answer: asked["gold"]}], release, PERSONAL
    )
    assert (lesson.learned, lesson.steps) == (1, PASSES)
    stored, after = agent.vault.open("full")
    assert stored.fit_record.items == 21
    assert not torch.equal(after.W, before.W)
    people = release.people
    assert people is not None
    assert Coordinates.of_shift(people.basis, after) is not None


def test_coordinates_of_a_person_are_not_handed_out(header):
    person = PersonalCoordinates.zero(people_of(header).basis)
    assert repr(person) == "PersonalCoordinates()"
    with pytest.raises(TypeError, match="does not leave the edge"):
        pickle.dumps(person)
