"""Long conversations: each learned turn holds what training can show of those before it, and no more."""

import json
import random
from dataclasses import replace

import pytest
from tests.edge.deployment.deployments import PERSONAL
from tests.protocol.model.chat_templates import CHATML, with_template

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.sealed_history import seal_history
from fedperfit.edge.engine.examples import encode, latest_turns
from fedperfit.edge.learning.renewal import learn
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.prompt_tokens import prompt_tokens
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.tasks import PromptForm, Turn, task_by_name
from fedperfit.protocol.tasks.conversations import as_text, learned, turns_of

TASK = task_by_name("messages")
WORDS = ["word", "a quiet story", "灯塔", "é", "\n", " ", "..."]


@pytest.fixture(scope="module")
def chatty(base):
    return BaseModel(base.model, with_template(base.tokenizer, CHATML), base.card)


def talk(draw, turns, words=60):
    """A conversation that user and assistant take turns in, with notes of the system."""
    said = [
        Turn(
            ("user", "assistant")[n % 2], " ".join(["so", *draw.choices(WORDS, k=draw.randrange(2 * words))])
        )
        for n in range(turns)
    ]
    for _ in range(draw.randrange(3)):
        said.insert(draw.randrange(turns), Turn("system", "Be brief."))
    return tuple(said)


def line(turns):
    return {"messages": [{"role": turn.role, "content": turn.text} for turn in turns]}


def folder_of(place, *talks):
    place.mkdir()
    write_json(place / "client.json", {"name": "ada", "task": "messages", "shares_metrics": False})
    (place / "history.jsonl").write_text("".join(f"{json.dumps(line(one))}\n" for one in talks))
    return place


def examples(base, conversations, form):
    items = [{"messages": as_text(before), "reply": text} for before, text in conversations]
    return encode(base, [TASK.item_pair(item, form) for item in items])


def test_training_sees_the_same_tokens_with_and_without_what_is_left_out(chatty):
    draw, cut = random.Random(0), latest_turns(chatty)
    shorter = 0
    for turns in [2, 12, 40]:
        whole = [(before, "yes") for before, _ in learned(talk(draw, turns), "assistant")]
        short = [(cut(before), text) for before, text in whole]
        assert examples(chatty, short, PromptForm.CHAT) == examples(chatty, whole, PromptForm.CHAT)
        shorter += short != whole
    assert shorter == 2


@pytest.mark.parametrize("form", PromptForm)
def test_nothing_is_left_out_of_what_fits(chatty, form):
    draw, cut = random.Random(1), latest_turns(chatty)
    fitting = 0
    for _ in range(40):
        (*_, (before, _)) = learned(talk(draw, 4, words=draw.randrange(1, 90)), "assistant")
        (row,) = prompt_tokens(chatty, [TASK.next_turn(before, form)])
        if len(row) < chatty.context:
            fitting += 1
            assert cut(before) == before
    assert 5 < fitting < 40


def test_the_vault_grows_with_the_turns_of_a_conversation_and_not_with_their_square(base, tmp_path):
    sizes = []
    for turns in (80, 160):
        agent = Agent(folder_of(tmp_path / str(turns)), base)
        draw = random.Random(2)
        lesson = learn(agent, [line(talk(draw, turns))], None, PERSONAL)
        assert lesson.added > turns / 2 - 8
        sizes.append((agent.vault.folder / "learned.sealed").stat().st_size)
        assert agent.history.items == agent.vault.learned()
    assert sizes[1] < 2.5 * sizes[0]


def test_an_import_and_a_file_are_cut_alike(base, tmp_path):
    folder = folder_of(tmp_path / "ada", talk(random.Random(3), 80))
    read = Agent(folder, base).history.items
    write_json(folder / "client.json", {**read_json(folder / "client.json"), "sealed": False})
    agent = Agent(folder, base)
    seal_history(folder, agent.vault, latest_turns(base))
    assert agent.vault.imported()["items"] == agent.read().items == read
    assert max(len(turns_of(item["messages"])) for item in read) < 40


def test_what_an_earlier_version_kept_whole_is_read_without_it(base, tmp_path):
    agent = Agent(folder_of(tmp_path / "ada"), base)
    whole = [
        {"messages": as_text(before), "reply": text}
        for before, text in learned(talk(random.Random(4), 80), "assistant")
    ]
    agent.vault.learn(whole)
    cut = latest_turns(replace(base))
    assert [turns_of(item["messages"]) for item in agent.read().items] == [
        cut(turns_of(item["messages"])) for item in whole
    ]
