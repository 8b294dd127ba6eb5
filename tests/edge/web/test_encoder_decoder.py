"""A person's agent on an encoder-decoder model: trained, asked, and asked through OpenAI's client."""

from dataclasses import replace

import openai
import pytest
from tests.edge.asking.test_one_prompt import reading
from tests.edge.deployment.deployments import (
    PERSONAL,
    TRAINING,
    agree,
    deployed,
    policy,
    releases,
    served,
)
from tests.edge.edge_clients import evaluation, write_client
from tests.edge.web.openai_client import PROMPT, Client, chat, completion
from tests.edge.web.web_servers import TOKEN
from tests.protocol.encoder_decoders import save_with_words

from fedperfit.edge.asking.asking import Asked
from fedperfit.edge.chameleon.pairs import Reader, preference_states
from fedperfit.edge.engine.paths.plain import plain_losses
from fedperfit.edge.web.app import build
from fedperfit.edge.writing.streaming import free_prompt
from fedperfit.protocol.messages.settings import PairSource, Stage
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.tasks import PromptForm, Turn

POSITIONS = "f3+l4"
SHAPE = ShiftShape(layers=(1, 2), rank=4, hidden_size=32, positions=Positions.parse(POSITIONS))


@pytest.fixture(scope="module")
def edge(tmp_path_factory, header):
    home = tmp_path_factory.mktemp("t5")
    model, folder = save_with_words(home / "model"), write_client(home / "ada", items=8, questions=1)
    card = read_card(model)
    agree(
        folder,
        policy(
            fingerprint=card.fingerprint, layers=[1, 2], hidden_size=card.hidden_size, positions=POSITIONS
        ),
    )
    header = replace(header, fingerprint=card.fingerprint, shape=SHAPE)
    with deployed(folder, base_model=model, cache_gib=0.0) as edge, served(edge):
        edge.personalize(releases(header, 1)[0].to_bytes(), PERSONAL, TRAINING, lambda: True)
        yield edge


@pytest.fixture(scope="module")
def client(edge):
    return Client(build(edge.home.folder, TOKEN, hosts=["127.0.0.1"]))


def test_the_model_reads_the_same_tokens_however_it_is_asked(edge):
    agent, base = edge.agent, edge.agent.base
    task, question = agent.history.task, agent.history.questions[0]["input"]

    def tokens(asked):
        text = task.query_pair(asked, "", PromptForm.LAMP).prompt
        return [*base.start, *base.tokenizer(text, add_special_tokens=False)["input_ids"], *base.mark]

    expected = tokens(question)
    job = agent.personal_job(edge.stages.open(edge.stages.current()), PERSONAL, TRAINING)
    for item, example in zip(agent.history.items, job.examples, strict=True):
        assert list(example.prompt) == tokens(task.instruction + item[task.field])
    asked = Asked(stage="personal", prompt=(Turn("user", question),), task_form=True)
    release = edge.stages.current().to_bytes()
    for ask in (
        lambda: agent.evaluate(release, evaluation("personal")),
        lambda: edge.answer(question, "personal", lambda: True),
        lambda: edge.generate(asked, lambda part, stage: None, lambda: True),
    ):
        ask()  # the first time the model's paths are checked
        with reading(base, expected) as read:
            ask()
        assert read == expected


def test_the_personal_shift_has_learned(edge):
    """Its training items are likelier than under the collective shift alone."""
    agent = edge.agent
    job = agent.personal_job(edge.stages.open(edge.stages.current()), PERSONAL, TRAINING)
    losses = [
        sum(
            float(plain_losses(agent.base, edge.stages.stack(stage), [(0, example)]))
            for example in job.examples
        )
        for stage in (Stage.COLLECTIVE, Stage.PERSONAL)
    ]
    assert losses[1] < 0.98 * losses[0]


def test_text_comes_from_the_endpoint_in_all_its_forms(client, edge):
    base = edge.agent.base
    told = chat(client)
    assert told.usage.prompt_tokens == len(free_prompt(base, PROMPT))
    assert told.choices[0].message.content == completion(client).choices[0].text
    assert completion(client, prompt=list(free_prompt(base, PROMPT))[:-1]).choices[0].text == (
        completion(client).choices[0].text
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(client, stream=True)]
    assert "".join(pieces) == told.choices[0].message.content
    assert told.choices[0].finish_reason in ("stop", "length")


def test_log_likelihoods_of_what_is_written_are_told(client):
    content = chat(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert [token.top_logprobs[0].logprob for token in content] == [token.logprob for token in content]


def test_likelihoods_of_what_is_read_are_a_400_and_the_text_alone_is_not(client):
    with pytest.raises(openai.BadRequestError, match="predicts nothing of what it reads"):
        completion(client, echo=True, logprobs=1)
    assert completion(client, echo=True).choices[0].text.startswith(PROMPT)
    tokens = [5, 6, 7]
    assert completion(client, prompt=tokens, echo=True).choices[0].text


def test_pairs_for_directions_end_with_what_the_decoder_wrote(edge):
    agent = edge.agent
    reader = Reader(agent.base, agent.history.task, PromptForm.LAMP)
    states = preference_states(reader, agent.history, 3, PairSource.CONTRAST)
    assert states.personalized.shape == states.neutral.shape == (4, len(states), 32)
    assert len(states)
    assert (states.personalized - states.neutral).abs().amax(-1).min() > 0.01
