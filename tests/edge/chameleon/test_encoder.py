"""Items are selected by a sentence encoder where one is given."""

import pytest
import torch
from tests.edge.edge_clients import write_client
from transformers import BertConfig, BertModel, BertTokenizerFast

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.chameleon.contribution import Memory, moments
from fedperfit.edge.chameleon.encoder import sentence_encoder
from fedperfit.edge.chameleon.pairs import Reader, representative, selected
from fedperfit.protocol.messages.settings import PairSettings
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import PromptForm

PAIRS = PairSettings(items=12, source="contrast", batch_size=8, prompt_form="lamp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT that was never trained, as its library stores it."""
    folder = tmp_path_factory.mktemp("encoder")
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **size)).save_pretrained(folder)
    return str(folder)


def test_it_embeds_texts_alike_whatever_stands_beside_them(folder):
    encode = sentence_encoder(folder, "cpu")
    vectors = encode(["a quiet story about the sea", "storm"])
    assert vectors.shape == (2, 16)
    torch.testing.assert_close(encode(["storm"])[0], vectors[1], rtol=1e-4, atol=1e-5)


def test_a_persons_items_are_those_it_finds(base, folder, tmp_path):
    agent = Agent(write_client(tmp_path / "c", items=30, questions=1), base, encoder=folder)
    task, items = agent.history.task, agent.history.items
    texts = [f"{item[task.field]} {item[task.answer]}" for item in items]
    expected = [items[n] for n in representative(sentence_encoder(folder, "cpu")(texts), 12)]
    reader = Reader(base, task, PromptForm.LAMP, encoder=folder)
    assert selected(reader, agent.history, 12) == expected
    assert selected(Reader(base, task, PromptForm.LAMP), agent.history, 12) != expected
    memory, by_itself = Memory(), Memory()
    moments(agent, PAIRS, memory)
    moments(Agent(agent._folder, base), PAIRS, by_itself)
    (_, states), (_, own) = memory.states[agent.history.name], by_itself.states[agent.history.name]
    assert not torch.equal(states.personalized, own.personalized)


def test_what_is_no_encoder_is_told_in_one_line(tmp_path):
    for name in (str(tmp_path), str(tmp_path / "nowhere")):
        with pytest.raises(InputError, match="no sentence encoder") as caught:
            sentence_encoder(name, "cpu")
        assert "\n" not in str(caught.value)
