"""A personal shift over releases and lessons."""

import json
import math
from dataclasses import replace

import pytest
import torch
from tests.edge.deployment.deployments import PERSONAL, TRAINING, group
from tests.edge.edge_clients import evaluation, write_client

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.fitting.choice import Intervention, few, held_out, losses
from fedperfit.edge.learning.renewal import learn, renew
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import PromptForm

SLOTS = ["full", "full-held-out"]


def opened(base, header, seed=0, strength=0.0):
    shift = Shift.identity(header.shape, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        shift.b += strength * torch.randn(shift.b.shape, generator=generator)
    return OpenedRelease.of(pack(shift, header), base)


@pytest.fixture
def agent(tmp_path, base):
    return Agent(write_client(tmp_path / "client", items=40, questions=20), base)


def loss_after(agent, release, *items) -> float:
    return learn(agent, list(items), release, PERSONAL).loss


def item(agent, number):
    """A new item by the same person: one of their questions, answered."""
    asked = agent.history.questions[number]
    task = agent.history.task
    return {**task.query_fields(asked["input"]), task.answer: asked["gold"]}


def test_the_first_release_is_fitted_and_the_same_again_is_kept_or_better(agent, base, header):
    release = opened(base, header)
    outcome, origin = renew(agent, release, 1, PERSONAL, TRAINING)
    assert (outcome.items, origin) == (40, "fitted")
    assert agent.vault.slots() == SLOTS
    first = agent.vault.open("full")[1]
    _, origin = renew(agent, release, 1, PERSONAL, TRAINING)
    assert origin == "carried over"
    assert torch.equal(agent.vault.open("full")[1].W, first.W)


def test_what_validates_better_goes_on(agent, base, header):
    renew(agent, opened(base, header), 1, PERSONAL, TRAINING)
    before = agent.vault.open("full")[1]
    for _ in range(3):
        learn(agent, [item(agent, 0)], opened(base, header), PERSONAL)
    learned = agent.vault.open("full")[1]
    assert not torch.equal(learned.W, before.W)
    near, next_ = opened(base, header, strength=0.01), opened(base, header, seed=3, strength=0.01)
    hardly = TRAINING.replace(learning_rate=1e-6)
    _, origin = renew(agent, near, 2, PERSONAL, hardly)
    assert origin == "carried over"
    kept, shift = agent.vault.open("full")
    assert torch.equal(shift.W, learned.W)
    assert (kept.fit_record.origin, kept.fit_record.version) == ("carried over", 2)
    assert kept.shift_key == near.shift_key(False)
    agent.vault.forget()
    renew(agent, near, 2, PERSONAL, hardly)
    assert renew(agent, next_, 3, PERSONAL, TRAINING)[1] == "fitted"


def test_a_shift_is_carried_over_only_beside_the_sibling_of_its_own_fit(agent, base, header):
    release = opened(base, header)
    renew(agent, release, 1, PERSONAL, TRAINING)
    kept, shift = agent.vault.open("full")
    agent.vault.store("full", shift, kept.shift_key, replace(kept.fit_record, items=1))  # a kill came between
    assert renew(agent, release, 1, PERSONAL, TRAINING)[1] == "fitted"
    renew(agent, release, 1, PERSONAL, TRAINING.replace(max_items=1))
    assert agent.vault.slots() == ["full"], "so few items have no sibling"


def test_another_rank_is_fitted_anew(agent, base, header):
    release = opened(base, header)
    renew(agent, release, 1, PERSONAL, TRAINING)
    other = type(PERSONAL)(rank=3, additive=False, slot="full")
    assert renew(agent, release, 2, other, TRAINING)[1] == "fitted"
    assert agent.vault.open("full")[0].shape.rank == 3


def test_a_learned_item_takes_effect_and_is_kept(agent, base, header):
    release = opened(base, header)
    renew(agent, release, 1, PERSONAL, TRAINING)
    new = item(agent, 1)
    first = learn(agent, [new], release, PERSONAL)
    assert (first.learned, first.steps) == (1, 4)
    losses = [loss_after(agent, release, new) for _ in range(6)]
    assert losses[-1] < first.loss
    assert agent.vault.learned() == [new]
    assert len(agent.history.items) == 41
    again = Agent(agent._folder, base)
    assert len(again.history.items) == 41
    assert agent.vault.open("full")[0].fit_record.origin == "learned"


def test_items_that_are_learned_again_are_taught_and_not_added(agent, base, header):
    """As where a call was killed once the items were kept, before the shift was taught."""
    release, one, two = opened(base, header), item(agent, 0), item(agent, 1)
    renew(agent, release, 1, PERSONAL, TRAINING)
    agent.vault.learn([one])
    items = len(agent.history.items)
    lesson = learn(agent, [one, two], release, PERSONAL)
    assert (lesson.added, lesson.learned, lesson.steps) == (1, 2, 4)
    assert lesson.remarks == ["1 item learned before: not added again"]
    assert agent.vault.learned() == [one, two]
    assert agent.history.items[items:] == [one, two]
    assert agent.vault.open("full")[0].fit_record.items == items + 2


def test_many_lessons_neither_drift_nor_forget(agent, base, header):
    release = opened(base, header)
    renew(agent, release, 1, PERSONAL, TRAINING)
    before = agent.evaluate(pack(release.shift, header), evaluation("personal")).metrics["correct"]
    for number in range(12):
        learn(agent, [item(agent, number % 4)], release, PERSONAL)
    shift = agent.vault.open("full")[1]
    for tensor in shift.parameters():
        assert tensor.isfinite().all()
    assert torch.allclose(shift.R @ shift.R.mT, torch.eye(PERSONAL.rank), atol=1e-5)
    assert (shift.W - shift.R).norm() < 50
    after = agent.evaluate(pack(release.shift, header), evaluation("personal")).metrics["correct"]
    assert after >= before - 2


def test_without_a_release_items_wait_for_one(agent, base, header):
    lesson = learn(agent, [item(agent, 0)], None, PERSONAL)
    assert (lesson.learned, lesson.steps) == (1, 0)
    assert math.isnan(lesson.loss)
    assert renew(agent, opened(base, header), 1, PERSONAL, TRAINING)[0].items == 41


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({}, "no text field 'description'"),
        ({"description": "a film", "tag": "no such tag"}, "tag is none of"),
        ([1], "expected an object"),
        (InputError("not JSON"), "not JSON"),
    ],
)
def test_a_bad_item_costs_itself_alone(agent, base, header, broken, reason):
    good = item(agent, 0)
    with pytest.raises(InputError, match=f"line 2: {reason}.*; line 3: {reason}"):
        learn(agent, [None, broken, broken], None, PERSONAL)
    assert agent.vault.learned() == []
    lesson = learn(agent, [None, good, broken], None, PERSONAL)
    assert (lesson.added, lesson.learned, len(agent.vault.learned())) == (1, 1, 1)
    (remark,) = lesson.remarks
    assert remark.startswith(f"line 3: {reason}")
    assert "no such tag" not in remark


def test_few_items_are_fitted_without_a_sibling(tmp_path, base, header):
    agent = Agent(write_client(tmp_path / "few", items=1, questions=2), base)
    release = opened(base, header)
    assert renew(agent, release, 1, PERSONAL, TRAINING)[1] == "fitted"
    assert renew(agent, release, 2, PERSONAL, TRAINING)[1] == "fitted"
    assert agent.vault.slots() == ["full"]
    assert learn(agent, [item(agent, 0)], release, PERSONAL).steps == 4


def test_a_kill_between_the_two_writes_is_survived(agent, base, header, monkeypatch):
    release, later = opened(base, header), opened(base, header, seed=1, strength=1.0)
    renew(agent, release, 1, PERSONAL, TRAINING)
    store = agent.vault.store

    def dying(slot, *arguments):
        if slot != "full":
            raise KeyboardInterrupt
        store(slot, *arguments)

    monkeypatch.setattr(agent.vault, "store", dying)
    with pytest.raises(KeyboardInterrupt):
        renew(agent, later, 2, PERSONAL, TRAINING)
    monkeypatch.undo()
    assert learn(agent, [item(agent, 0)], later, PERSONAL).steps == 4
    renew(agent, later, 2, PERSONAL, TRAINING)
    assert agent.vault.open("full-held-out")[0].shift_key == later.shift_key(False)


def test_the_stages_are_judged_on_what_the_sibling_never_saw(agent, base, header):
    release = opened(base, header, strength=0.1)
    renew(agent, release, 1, PERSONAL, TRAINING)
    for _ in range(2):
        (kept, _), (_, sibling) = (agent.vault.open(slot) for slot in SLOTS)
        held, rest = held_out(encode(base, agent.history.pairs(PromptForm.LAMP, 0)))
        assert len(held) + len(rest) == len(agent.history.items)
        assert not few(held + rest)
        expected = {
            "collective": losses(base, held, Intervention([release.shift])),
            "personal": losses(base, held, Intervention([release.shift, sibling])),
        }
        assert kept.fit_record.judged == {
            stage: pytest.approx(float(each.mean()), rel=1e-4) for stage, each in expected.items()
        }
        learn(agent, [item(agent, 0)], release, PERSONAL)


def test_of_few_items_each_is_held_out_in_turn(tmp_path, base, header):
    for items, stages in ((1, ["collective", "directions"]), (3, ["collective", "directions", "personal"])):
        agent = Agent(write_client(tmp_path / str(items), items=items, questions=2), base)
        release = replace(opened(base, header), directions=group(header))
        renew(agent, release, 1, PERSONAL, TRAINING)
        judged = agent.vault.open("full")[0].fit_record.judged
        assert sorted(judged) == stages
        examples = encode(base, agent.history.pairs(PromptForm.LAMP, 0))
        edited = losses(base, examples, Intervention([release.shift], release.directions))
        assert judged["directions"] == pytest.approx(float(edited.mean()), rel=1e-4)


def test_a_lesson_is_kept_whatever_comes_of_the_judgement(tmp_path, base, header, monkeypatch):
    agent = Agent(write_client(tmp_path / "few", items=6, questions=2), base)
    release = opened(base, header)
    renew(agent, release, 1, PERSONAL, TRAINING)
    (before, old), new = agent.vault.open("full"), item(agent, 0)

    def dying(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedperfit.edge.learning.renewal.choose", dying)
    with pytest.raises(KeyboardInterrupt):
        learn(agent, [new], release, PERSONAL)
    kept, shift = agent.vault.open("full")
    assert not torch.equal(shift.W, old.W)
    assert (kept.fit_record.origin, kept.fit_record.items) == ("learned", 7)
    assert kept.fit_record.judged == before.fit_record.judged


def test_a_shift_stored_before_stages_were_judged_is_still_read(agent, base, header, monkeypatch):
    release = opened(base, header)

    def without(value):
        return {name: part for name, part in vars(value).items() if name not in ("judged", "stage")}

    monkeypatch.setattr("fedperfit.edge.vault.stored_shift.asdict", without)
    renew(agent, release, 1, PERSONAL, TRAINING)
    monkeypatch.undo()
    kept, _ = agent.vault.open("full")
    assert (kept.fit_record.stage, kept.fit_record.judged) == ("personal", {})


def test_items_are_json_in_the_vault(agent):
    agent.vault.learn([{"description": "é🙂", "tag": "classic"}])
    assert json.loads(json.dumps(agent.vault.learned())) == [{"description": "é🙂", "tag": "classic"}]


def test_what_learning_refuses_is_not_kept(agent, base, header, monkeypatch):
    """Whatever the error: the next action is as if the item had never been."""
    release = opened(base, header)
    renew(agent, release, 1, PERSONAL, TRAINING)
    before, items = agent.vault.open("full")[1], len(agent.history.items)
    for error in (
        InputError("the loss is not finite"),
        ValueError("nobody thought of this"),
        KeyboardInterrupt(),
    ):

        def failing(*arguments, error=error, **more):
            raise error

        with monkeypatch.context() as patched:
            patched.setattr("fedperfit.edge.learning.renewal.fit", failing)
            with pytest.raises(type(error)):
                learn(agent, [item(agent, 0)], release, PERSONAL)
        assert agent.vault.learned() == []
        assert len(agent.history.items) == items
        assert torch.equal(agent.vault.open("full")[1].W, before.W)
    assert learn(agent, [item(agent, 0)], release, PERSONAL).learned == 1
