"""What an owner asks is asked whole in every way, or refused in every way; what is learned is cut."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.edge.asking.test_one_prompt import CHAT, by_template, reading
from tests.edge.asking.test_talk import TALK, TASK
from tests.edge.chat_models import write_chat_model
from tests.edge.deployment.deployments import agree, deployed, policy, releases
from tests.edge.edge_clients import evaluation, write_client

from fedperfit.edge.asking.asking import Asked
from fedperfit.edge.engine.generation import Sampling
from fedperfit.edge.writing import streaming
from fedperfit.edge.writing.streaming import free_prompt
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.system.errors import PromptTooLong
from fedperfit.protocol.tasks import Turn, task_by_name

FEW = Sampling(max_new_tokens=2)
LONG, TOO_LONG = "a b " * 400 + "sea", "a b " * 2_000


@pytest.fixture(scope="module", params=["LaMP_2M", "LaMP_4", TASK], ids=["labels", "text", "conversation"])
def edge(request, tmp_path_factory, header):
    """An agent with a release, of a model that reads more than is learned of a text."""
    home = tmp_path_factory.mktemp("long")
    model = write_chat_model(home / "model")
    config = Path(model) / "config.json"
    values = json.loads(config.read_text())
    config.unlink()
    config.write_text(json.dumps(values | {"max_position_embeddings": 2048}))
    task, fingerprint = task_by_name(request.param), read_card(model).fingerprint
    folder = home / "ada"
    if task.conversation:
        folder.mkdir()
        about = {"name": "ada", "task": TASK, "shares_metrics": False}
        (folder / "client.json").write_text(json.dumps(about))
        (folder / "history.jsonl").write_text(json.dumps({"messages": TALK}))
    else:
        write_client(folder, task=request.param, items=2)
    asked = {"id": "0", "input": question(task, LONG), "gold": "action" if task.labels else "A sea."}
    (folder / "questions.jsonl").write_text(json.dumps(asked))
    agree(folder, policy(fingerprint=fingerprint, prompt_form="chat", task=request.param))
    header = replace(header, fingerprint=fingerprint, task=task.id)
    with deployed(folder, base_model=model, cache_gib=0.0) as edge:
        edge.releases.accept(releases(header, 1)[0].to_bytes(), lambda release: None)
        yield edge


def question(task, text):
    return text if task.conversation else task.instruction + text


def chat(edge, text, stage):
    asked = Asked(prompt=(Turn("user", text),), stage=stage, task_form=True, sampling=FEW)
    return edge.generate(asked, lambda part, stage: None, lambda: True)[0]


def test_a_long_question_is_asked_whole_in_every_way(edge):
    task, base = edge.agent.history.task, edge.agent.base
    text = question(task, LONG)
    expected = by_template(base, text)
    release = edge.stages.current().to_bytes()
    stage = evaluation("collective").replace(prompt_form="chat")
    ways = {
        "ask": lambda: edge.answer(text, "collective", lambda: True),
        "ask the base": lambda: edge.answer(text, "base", lambda: True),
        "chat": lambda: chat(edge, text, "collective"),
        "evaluate": lambda: edge.agent.evaluate(release, stage),
    }
    for way, ask in ways.items():
        ask()  # the first time the model's paths are checked
        with reading(base, expected) as read:
            ask()
        assert read == expected, way
    (held,) = edge.agent.history.asked(CHAT.prompt_form)
    (learned,) = replace(edge.agent.history, items=[], answered=edge.agent.history.questions).pairs(
        CHAT.prompt_form, 0
    )
    assert held.prompt[-1].text == text
    assert text.startswith(learned.prompt[-1].text)
    assert len(learned.prompt[-1].text) < len(text)


@pytest.mark.parametrize("stage", ["base", "collective"])
def test_a_question_beyond_the_context_is_refused_in_every_way(edge, stage):
    text = question(edge.agent.history.task, TOO_LONG)
    for ask in (lambda: edge.answer(text, stage, lambda: True), lambda: chat(edge, text, stage)):
        with pytest.raises(PromptTooLong, match=r"the prompt has \d+ tokens; the base model reads"):
            ask()


@pytest.mark.parametrize("chat", [True, False])
def test_megabytes_are_refused_before_they_are_made_tokens(base, monkeypatch, chat):
    longest = max(base.tokenizer.get_vocab(), key=len)
    fits = len(longest) * (base.context - 1)
    monkeypatch.setattr(streaming, "prompt_tokens", lambda base, prompts: [[len(prompts[0])]])
    assert free_prompt(base, "a" * fits) == (fits,)
    text = "a" * (fits + 1)
    monkeypatch.setattr(streaming, "prompt_tokens", None)
    told = f"the prompt has at least {base.context} tokens; the base model reads {base.context - 1}"
    with pytest.raises(PromptTooLong, match=told):
        free_prompt(base, (Turn("user", text),) if chat else text)
