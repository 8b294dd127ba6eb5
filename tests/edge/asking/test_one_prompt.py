"""Every way to ask an instruct model gives it the same tokens, so that a shift acts where it was trained."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
from tests.edge.chat_models import write_chat_model
from tests.edge.deployment.deployments import PERSONAL, TRAINING, agree, deployed, policy, releases
from tests.edge.edge_clients import evaluation, write_client

from fedperfit.edge.asking.asking import Asked
from fedperfit.edge.chameleon.pairs import Reader, _contrast, _insights
from fedperfit.edge.chameleon.states import tokenize, tokenize_answered
from fedperfit.edge.engine.answering import label_tokens
from fedperfit.edge.engine.generation import Sampling
from fedperfit.edge.engine.items import ItemCache
from fedperfit.protocol.messages.settings import Stage
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.tasks import PromptForm, Turn
from fedperfit.simulation.analyze.vectors import HISTORY, user_texts
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.data.participants import Target

CHAT = TRAINING.replace(prompt_form="chat")


@pytest.fixture(scope="module", params=["LaMP_2M", "LaMP_4"])
def edge(request, tmp_path_factory, header):
    """An agent with a personal shift whose base model has a chat template: labels, and text."""
    home = tmp_path_factory.mktemp("chat")
    model = write_chat_model(home / "model")
    folder = write_client(home / "ada", task=request.param, items=6, questions=1)
    fingerprint = read_card(model).fingerprint
    agree(folder, policy(fingerprint=fingerprint, prompt_form="chat", task=request.param))
    header = replace(header, fingerprint=fingerprint, task=request.param)
    with deployed(folder, base_model=model, cache_gib=0.0) as edge:
        edge.personalize(releases(header, 1)[0].to_bytes(), PERSONAL, CHAT, lambda: True)
        yield edge


@pytest.fixture
def question(edge):
    return edge.agent.history.questions[0]["input"]


def by_template(base, text):
    """What the tokenizer itself makes of a conversation in which somebody asks that."""
    turns = [{"role": "user", "content": text}]
    return base.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)


@contextmanager
def reading(base, tokens):
    """Tokens that the model reads inside the block, in order, up to as many as are expected."""
    read = []

    def hook(module, args, kwargs):
        ids = kwargs["input_ids"]
        assert len(ids) == 1
        read.extend(ids[0].tolist())

    handle = base.model.register_forward_pre_hook(hook, with_kwargs=True)
    yield read
    handle.remove()
    del read[len(tokens) :]


def test_the_model_reads_the_same_tokens_however_it_is_asked(edge, question):
    agent, base = edge.agent, edge.agent.base
    expected = by_template(base, question)
    context = MethodContext(
        base=base,
        task=agent.history.task,
        form=PromptForm.CHAT,
        seed=0,
        items=ItemCache(base, 0),
        folder=edge.home.folder,
    )
    turns = (Turn("user", question),)
    few = Sampling(max_new_tokens=2)

    def chat(stage, task_form):
        asked = Asked(prompt=turns, stage=stage, task_form=task_form, sampling=few)
        done, _ = edge.generate(asked, lambda text, stage: None, lambda: True)
        assert done.prompt_tokens == len(expected)
        assert done.task == (agent.history.task.id if task_form else "")

    ways = {
        "evaluate": lambda: agent.evaluate(
            edge.stages.current().to_bytes(), evaluation("personal").replace(prompt_form="chat")
        ),
        "ask": lambda: edge.answer(question, "personal", lambda: True),
        "ask the base": lambda: edge.answer(question, "base", lambda: True),
        "compare": lambda: context.answer([context.prompt(question)]),
    }
    for stage in ("base", "collective", "personal"):
        for task_form in (True, False):
            ways[f"chat at {stage}, {task_form}"] = lambda s=stage, t=task_form: chat(s, t)
    for way, ask in ways.items():
        ask()  # the first time the model's paths are checked
        with reading(base, expected) as read:
            ask()
        assert read == expected, way


def test_training_counts_over_the_same_tokens(edge):
    agent, base = edge.agent, edge.agent.base
    task = agent.history.task
    job = agent.personal_job(edge.stages.open(edge.stages.current()), PERSONAL, CHAT)
    for item, example in zip(agent.history.items, job.examples, strict=True):
        asked = task.instruction + item[task.field]
        assert list(example.prompt) == by_template(base, asked)
        answered = base.tokenizer(item[task.answer])["input_ids"]
        assert list(example.target) == [*answered, base.tokenizer.eos_token_id]
    if task.labels:
        labels = dict(zip(task.labels, label_tokens(base, task, PromptForm.CHAT), strict=True))
        targets = [labels[item[task.answer]] for item in agent.history.items]
        assert targets == [example.target for example in job.examples]


def test_directions_and_insights_read_the_same_tokens(edge):
    agent, base = edge.agent, edge.agent.base
    task, items = agent.history.task, agent.history.items[:2]
    reader = Reader(base, task, PromptForm.CHAT)
    for item, (own, _) in zip(items, _contrast(reader, items), strict=True):
        expected = by_template(base, task.instruction + item[task.field])
        row = list(tokenize_answered(base, *own))
        assert row == [*expected, *base.tokenizer(item[task.answer])["input_ids"]]
    assert list(tokenize(base, reader.asking("Who is this?"))) == by_template(base, "Who is this?")
    _insights(replace(reader, batch_size=1), items)
    with reading(base, by_template(base, "")[:3]) as read:
        _insights(replace(reader, batch_size=1), items)
    assert read == by_template(base, "")[:3]


def test_delta_vectors_put_the_history_into_the_turn_that_asks(edge, question):
    agent, base = edge.agent, edge.agent.base
    context = MethodContext(
        base=base,
        task=agent.history.task,
        form=PromptForm.CHAT,
        seed=0,
        items=ItemCache(base, 0),
        folder=edge.home.folder,
    )
    target = Target(agent.history, ("1",), (question,), ("",))
    texts, _ = user_texts(context, [target, target], 1, "sentences")
    expected = by_template(base, question)
    assert [*texts.start, *texts.queries[0]] == expected
    shown = base.tokenizer.decode(texts.contexts[HISTORY][0])
    whole = base.tokenizer.decode([*texts.start, *texts.contexts[HISTORY][0], *texts.queries[0]])
    assert whole == base.tokenizer.decode(by_template(base, shown + question))


def test_a_chat_answers_a_question_as_ask_does_and_other_talk_as_it_is(edge, question):
    def said(asked):
        pieces = []
        done, _ = edge.generate(asked, lambda text, stage: pieces.append(text), lambda: True)
        return "".join(pieces), done

    for stage in (Stage.BASE, Stage.COLLECTIVE, Stage.PERSONAL):
        expected = edge.answer(question, stage, lambda: True)[0]
        talk = (Turn("user", "Hello."), Turn("assistant", "Hi."), Turn("user", question))
        text, done = said(Asked(prompt=talk, stage=stage, task_form=True))
        assert (text.strip(), done.task) == (expected, edge.agent.history.task.id)
        few = Sampling(max_new_tokens=3)
        _, done = said(Asked(prompt=talk, stage=stage, sampling=few))
        assert (done.task, done.completion_tokens <= 3) == ("", True)
        other = (Turn("user", f"What do you think of this? {question}"),)
        assert said(Asked(prompt=other, stage=stage, task_form=True, sampling=few))[1].task == ""
