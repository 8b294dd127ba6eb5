"""A person's conversations are learned as they are kept, and gone on with by the tokens of training."""

import json
import random
from dataclasses import replace

import pytest
import torch
from tests.edge.asking.test_one_prompt import CHAT, reading
from tests.edge.chat_models import write_chat_model
from tests.edge.deployment.deployments import PERSONAL, TRAINING, agree, deployed, policy, releases
from tests.protocol.model.chat_templates import CHATML, with_template

from fedperfit.edge.agent.history import read_history
from fedperfit.edge.asking.asking import Asked
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.generation import Sampling
from fedperfit.edge.engine.paths.plain import plain_losses
from fedperfit.edge.writing.scores import prompt_scores
from fedperfit.protocol.model.base_model import BaseModel, read_card
from fedperfit.protocol.model.prompt_tokens import prompt_length, prompt_tokens
from fedperfit.protocol.tasks import Pair, Turn, task_by_name
from fedperfit.simulation.data.lamp import open_lamp

TASK = (
    'name = "Messages"\nkind = "text"\nfields = ["messages"]\ntarget = "reply"\nconversation = "assistant"\n'
)
TALK = [
    {"role": "user", "content": "a quiet story about the sea"},
    {"role": "assistant", "content": "classic"},
    {"role": "user", "content": "and a loud one"},
    {"role": "assistant", "content": "action"},
]
FEW = Sampling(max_new_tokens=3)


def write_talker(folder):
    folder.mkdir(parents=True)
    about = {"name": "ada", "task": TASK, "shares_metrics": False}
    (folder / "client.json").write_text(json.dumps(about))
    lines = [{"messages": TALK}] * 4 + [{"messages": TALK[:1]}]
    (folder / "history.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "questions.jsonl").write_text(json.dumps({"messages": TALK}))
    return folder


@pytest.fixture(scope="module", params=["chat", "lamp"])
def edge(request, tmp_path_factory, header):
    """An agent of conversations: an instruct model, and one without a chat template."""
    home = tmp_path_factory.mktemp("talk")
    model = write_chat_model(home / "model") if request.param == "chat" else "embedded"
    folder, task = write_talker(home / "ada"), task_by_name(TASK)
    fingerprint = read_card(model).fingerprint
    agree(folder, policy(fingerprint=fingerprint, prompt_form=request.param, task=TASK))
    header = replace(header, fingerprint=fingerprint, task=task.id)
    training = CHAT if request.param == "chat" else TRAINING
    with deployed(folder, base_model=model, cache_gib=0.0) as edge:
        edge.personalize(releases(header, 1)[0].to_bytes(), PERSONAL, training, lambda: True)
        yield edge, training


def test_a_history_of_conversations_is_read_as_it_is(tmp_path):
    history = read_history(write_talker(tmp_path / "ada"))
    assert [item["reply"] for item in history.items] == ["classic", "action"] * 4
    assert [question["gold"] for question in history.questions] == ["classic", "action"]
    assert len(history.remarks) == 1
    assert "line 5: no turn of the assistant" in history.remarks[0]


def test_a_chat_goes_on_by_the_tokens_of_training(edge):
    edge, training = edge
    agent, base = edge.agent, edge.agent.base
    job = agent.personal_job(edge.stages.open(edge.stages.current()), PERSONAL, training)
    turns = tuple(Turn(one["role"], one["content"]) for one in TALK[:3])
    for talk, example in ((turns[:1], job.examples[0]), (turns, job.examples[1])):
        asked = Asked(prompt=talk, stage="personal", sampling=FEW, task_form=True)

        def ask(asked=asked):
            return edge.generate(asked, lambda part, stage: None, lambda: True)

        ask()  # the first time the model's paths are checked
        with reading(base, example.prompt) as read:
            done, _ = ask()
        assert tuple(read) == example.prompt
        assert (done.task, done.prompt_tokens) == (agent.history.task.id, len(example.prompt))


def test_conversations_are_learned_one_by_one(edge):
    edge, _ = edge
    before = len(edge.agent.history.items)
    lesson = edge.learn([{"messages": TALK}], lambda: True)
    assert (lesson.learned, len(edge.agent.read().items)) == (2, before + 2)
    assert lesson.steps


def test_the_oldest_turns_make_room(base):
    turns = tuple(Turn(("user", "assistant")[n % 2], f"turn {n} " + "word " * 40) for n in range(31))
    chatty = BaseModel(base.model, with_template(base.tokenizer, CHATML), base.card)
    system = Turn("system", "Be brief.")
    (row,) = encode(chatty, [Pair((system, *turns), "yes")])
    text = chatty.tokenizer.decode(row.prompt)
    assert len(row.prompt) <= base.context
    assert text.startswith("[system]\nBe brief.</s>")
    assert "turn 30 " in text
    assert "turn 0 " not in text
    first = min(int(word) for word in text.replace("\n", " ").split() if word.isdigit())
    assert all(f"turn {n} " in text for n in range(first, 31))


def test_as_few_turns_as_can_be_are_left_out_and_that_is_found_at_once(base, monkeypatch):
    chatty = BaseModel(base.model, with_template(base.tokenizer, CHATML), base.card)
    written = []

    def counted(base, prompts):
        written.extend(prompts)
        return prompt_tokens(base, prompts)

    monkeypatch.setattr("fedperfit.edge.engine.examples.prompt_tokens", counted)
    draw = random.Random(0)
    for _ in range(8):
        roles = ["user", "assistant"] * 20
        for _ in range(draw.randrange(4)):
            roles.insert(draw.randrange(len(roles)), "system")
        words = draw.choice(["word ", "a quiet story ", "灯塔", "é", "\n"])
        turns = [Turn(role, f"turn {n} " + words * draw.randrange(60)) for n, role in enumerate(roles)]
        (row,) = encode(chatty, [Pair(tuple(turns), "yes")], reserve=32)
        assert len(written) <= 5
        written.clear()
        left = list(turns)
        (slow,) = prompt_tokens(chatty, [tuple(left)])
        while len(slow) > base.context - 32:
            left.remove(next(turn for turn in left if turn.role != "system"))
            (slow,) = prompt_tokens(chatty, [tuple(left)])
        assert row.prompt == tuple(slow)


def test_a_mapping_unfolds_conversations_by_person(tmp_path):
    lines = [{"who": name, "talk": TALK} for name in ("ada", "ben", "carl", "dora")]
    (tmp_path / "talk.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "talk.toml").write_text('file = "talk.jsonl"\nuser = "who"\nfields = {messages = "talk"}\n')
    data = open_lamp(tmp_path / "talk.toml", task_by_name(TASK), tmp_path / "cache")
    (name,) = data.users("targets")
    user = data.user("targets", name)
    assert [item["reply"] for item in user.history] == ["classic"]
    assert [question["gold"] for question in user.questions] == ["action"]


def test_an_answer_that_is_sent_has_the_likelihood_of_training(edge):
    """As lm-evaluation-harness sends a conversation and an answer; the shift acts before the answer alone."""
    edge, training = edge
    agent, base = edge.agent, edge.agent.base
    job = agent.personal_job(edge.stages.open(edge.stages.current()), PERSONAL, training)
    stack = edge.stages.stack("personal")
    for example in job.examples[:2]:
        row = [*example.prompt, *example.target]
        if training is not CHAT:
            assert prompt_length(base, row) == len(row), "nothing says where the prompt ends"
            continue
        assert prompt_length(base, row) == prompt_length(base, example.prompt) == len(example.prompt)
        told = prompt_scores(base, stack, row, 0)[len(example.prompt) :]
        with torch.no_grad():
            (loss,) = plain_losses(base, stack, [(0, example)])
        assert sum(one.score for one in told) / len(told) == pytest.approx(-float(loss), abs=1e-4)
