"""Preference pairs: which items stand for a person, what is asked, what is read."""

from dataclasses import replace

import pytest
import torch

from fedperfit.edge.agent.history import History
from fedperfit.edge.chameleon.pairs import Reader, preference_states, representative, selected
from fedperfit.edge.chameleon.prompts import Persona, insight_prompt, output_prompt
from fedperfit.edge.chameleon.states import embeddings, last_states, tokenize
from fedperfit.protocol.messages.settings import PairSource
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.tasks import TASKS, PromptForm

ITEMS = {
    "LaMP_2M": [
        {"description": f"A {w} keeps a secret of {n} years.", "tag": "fantasy"}
        for n, w in enumerate(("baker", "sailor", "wizard", "widow", "thief", "miner"))
    ],
    "LaMP_3": [{"text": f"It broke after {n} days.", "score": str(1 + n % 5)} for n in range(6)],
    "LaMP_4": [{"text": f"The council met {n} times.", "title": f"Council {n}"} for n in range(4)],
    "LaMP_7": [{"text": f"off to the beach number {n}!!"} for n in range(4)],
}


def history(task: str, items: int | None = None) -> History:
    return History("one", TASKS[task], ITEMS[task][:items])


def reader(base: BaseModel, task: str) -> Reader:
    return Reader(base, TASKS[task], PromptForm.LAMP)


def test_last_states_are_transformers_own(base):
    texts = ["a storm", "the very long tale of a baker and a queen", "x"]
    rows = [tokenize(base, text) for text in texts]
    states = last_states(base, rows)
    for number, row in enumerate(rows):
        with torch.no_grad():
            out = base.model(torch.tensor([row]), output_hidden_states=True)
        # the last of transformers' hidden states has gone through the final norm
        for layer, hidden in enumerate(out.hidden_states[1:-1]):
            torch.testing.assert_close(states[layer, number], hidden[0, -1], rtol=1e-4, atol=1e-4)
    assert states.shape == (base.card.layers, 3, base.card.hidden_size)


def test_an_embedding_is_the_mean_over_a_texts_tokens_whatever_stands_beside_it(base):
    texts = ["a storm", "the very long tale of a baker and a queen"]
    together = embeddings(base, texts)
    for number, text in enumerate(texts):
        torch.testing.assert_close(together[number], embeddings(base, [text])[0], rtol=1e-4, atol=1e-4)


def test_the_items_longest_on_the_components_are_chosen():
    vectors = 0.01 * torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    vectors[[3, 7, 15], [0, 1, 2]] += 5
    assert representative(vectors, 3) == [3, 7, 15]
    assert representative(vectors[:2], 3) == [0, 1]


def test_past_questions_are_items_too(base):
    task = TASKS["LaMP_2M"]
    asked = {"id": "1", "input": task.instruction + "a ghost", "gold": "classic"}
    person = replace(history("LaMP_2M", 2), answered=[asked])
    assert selected(reader(base, "LaMP_2M"), person, 10)[0] == {"description": "a ghost", "tag": "classic"}


@pytest.mark.parametrize("task", ITEMS)
@pytest.mark.parametrize("source", PairSource)
def test_pairs_are_read_in_every_task(base, task, source):
    states = preference_states(reader(base, task), history(task), 4, source)
    assert states.personalized.shape == states.neutral.shape
    assert states.personalized.shape[::2] == (base.card.layers, base.card.hidden_size)
    assert len(states) <= 4
    if source is PairSource.CONTRAST and len(states):
        assert not torch.equal(states.personalized, states.neutral)


def test_contrast_reads_the_persons_answer_against_the_models(base):
    """There is no pair for an item that the model answers as the person does."""
    task = TASKS["LaMP_2M"]
    read = reader(base, "LaMP_2M")
    prompts = [task.item_pair(item, PromptForm.LAMP).prompt for item in ITEMS["LaMP_2M"]]
    said = read.answers(prompts)
    agreeing = [{**item, "tag": answer} for item, answer in zip(ITEMS["LaMP_2M"], said, strict=True)]
    agreeing[2]["tag"] = next(tag for tag in task.labels if tag != said[2])
    person = replace(history("LaMP_2M"), items=agreeing)
    states = preference_states(read, person, 10, PairSource.CONTRAST)
    rows = [tokenize(base, prompts[2] + tag) for tag in (agreeing[2]["tag"], said[2])]
    expected = last_states(base, rows)
    torch.testing.assert_close(states.personalized[:, 0], expected[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(states.neutral[:, 0], expected[:, 1], rtol=1e-4, atol=1e-4)
    assert len(states) == 1


def test_no_history_no_pairs(base):
    for source in PairSource:
        assert len(preference_states(reader(base, "LaMP_3"), history("LaMP_3", 0), 5, source)) == 0


@pytest.mark.parametrize("task", [name for name in TASKS if not TASKS[name].conversation])
def test_prompts_hold_history_query_and_insight(task):
    about = TASKS[task]
    item = {**dict.fromkeys(about.fields, "a lighthouse keeper"), about.answer: "true story"}
    if about.free_history:
        item = {about.field: "a lighthouse keeper"}
    for agent in Persona:
        prompt = output_prompt(about, [item], "the new one", agent, "calm answers.")
        for part in ("1. ", "a lighthouse keeper", "the new one", "calm answers.", "Your answer: "):
            assert part in prompt
        assert "lighthouse" in insight_prompt(about, [item], agent)
    assert ("personalized assistant" in prompt) is False
    assert "impersonal assistant" in prompt


def test_a_history_longer_than_the_context_is_cut_to_whole_items(base):
    read = reader(base, "LaMP_2M")
    many = ITEMS["LaMP_2M"] * 40
    shown = read.shown(many, 100)
    assert 0 < len(shown) < len(many)
    assert (
        len(tokenize(base, insight_prompt(TASKS["LaMP_2M"], shown, Persona.NEUTRAL), 10**6)) + 100
        < base.context
    )
