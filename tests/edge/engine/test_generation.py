"""What is generated follows the settings, whatever generation_config.json lies in the model's folder."""

import json
import random

import pytest
import torch
from tests.protocol.model.chat_templates import CHATML, STRICT, with_template
from tests.protocol.tiny_models import END, PAD, VOCABULARY, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fedperfit.edge.engine.answering import generate
from fedperfit.edge.engine.batching import Question
from fedperfit.edge.engine.generation import Sampling, drawing, ends, generation_config
from fedperfit.edge.engine.slab import Stack
from fedperfit.edge.writing.streaming import stream
from fedperfit.protocol.model.base_model import BaseModel, load
from fedperfit.protocol.system.errors import InputError

NOTHING = Stack([], None, False)
PROMPT = (5, 9, 12, 7)
TOKENS = range(2, VOCABULARY)
KEYS = {
    "use_cache": lambda draw: False,
    "eos_token_id": lambda draw: draw.choice([draw.choice(TOKENS), draw.sample(TOKENS, 3), None]),
    "pad_token_id": lambda draw: draw.choice(TOKENS),
    "bos_token_id": lambda draw: draw.choice(TOKENS),
    "do_sample": lambda draw: True,
    "temperature": lambda draw: draw.choice([0.0, 0.1, 2.0, -1.0]),
    "top_k": lambda draw: draw.choice([-1, 0, 1, 5]),
    "top_p": lambda draw: draw.choice([0.0, 0.1, 3.0]),
    "min_p": lambda draw: 0.9,
    "typical_p": lambda draw: 0.2,
    "epsilon_cutoff": lambda draw: 0.5,
    "num_beams": lambda draw: draw.choice([0, 3]),
    "num_return_sequences": lambda draw: 3,
    "repetition_penalty": lambda draw: draw.choice([0.2, 5.0]),
    "no_repeat_ngram_size": lambda draw: 1,
    "suppress_tokens": lambda draw: draw.sample(TOKENS, 20),
    "begin_suppress_tokens": lambda draw: draw.sample(TOKENS, 20),
    "bad_words_ids": lambda draw: [[token] for token in draw.sample(TOKENS, 20)],
    "sequence_bias": lambda draw: [[[draw.choice(TOKENS)], 100.0]],
    "forced_eos_token_id": lambda draw: draw.choice(TOKENS),
    "forced_bos_token_id": lambda draw: draw.choice(TOKENS),
    "min_length": lambda draw: 30,
    "min_new_tokens": lambda draw: 12,
    "max_length": lambda draw: draw.choice([1, 8]),
    "max_new_tokens": lambda draw: 1,
    "max_time": lambda draw: 0.0,
    "stop_strings": lambda draw: ["w1"],
    "guidance_scale": lambda draw: 3.0,
    "exponential_decay_length_penalty": lambda draw: [1, 5.0],
    "cache_implementation": lambda draw: draw.choice(["static", "offloaded", "none such"]),
    "prompt_lookup_num_tokens": lambda draw: 2,
    "penalty_alpha": lambda draw: 0.6,
    "dola_layers": lambda draw: "low",
    "watermarking_config": lambda draw: {"bias": 9.0},
    "return_dict_in_generate": lambda draw: True,
    "output_scores": lambda draw: True,
    "renormalize_logits": lambda draw: True,
    "token_healing": lambda draw: True,
    "constraints": lambda draw: ["x"],
    "compile_config": lambda draw: {"mode": "x"},
    "transformers_version": lambda draw: 1,
    "a key of tomorrow's": lambda draw: draw.random(),
}


def drawn(seed):
    draw = random.Random(seed)
    if seed % 20 == 0:
        return draw.choice(["", "{", "[]", "null", '"x"', "\x00"])
    keys = draw.sample(list(KEYS), draw.randint(1, 6))
    return json.dumps({key: KEYS[key](draw) for key in keys})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model whose greedy text ends neither at once nor late."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model("llama").save_pretrained(folder)
    words = {f"w{number}": number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=f"w{PAD}", eos_token=f"w{END}", unk_token="w3"
    ).save_pretrained(folder)
    return folder


def texts(base):
    """Greedy texts, and a sampled one with how it ended."""
    greedy = generate(base, NOTHING, [Question(PROMPT), Question(PROMPT[:2])], most=4, batch_size=2)
    pieces = []
    sampling = Sampling(temperature=2.0, top_p=0.9, seed=3, max_new_tokens=4)
    finished = stream(base, NOTHING, PROMPT, sampling, pieces.append, lambda: True)
    return greedy, "".join(pieces), finished


def test_two_hundred_generation_configurations_change_nothing(folder):
    (folder / "generation_config.json").unlink(missing_ok=True)
    expected = texts(load(str(folder), device="cpu", dtype="float32"))
    assert [len(text.split()) for text in expected[0]] == [4, 4]
    for seed in range(200):
        (folder / "generation_config.json").write_text(drawn(seed))
        assert texts(load(str(folder), device="cpu", dtype="float32")) == expected, drawn(seed)


def test_a_text_ends_at_the_tokenizers_token_the_models_and_the_templates(folder):
    base = load(str(folder), device="cpu", dtype="float32")
    assert ends(base) == [END]
    base.model.config.eos_token_id = [END, 7, 9]
    assert ends(base) == [END, 7, 9]
    pieces = []
    first = stream(base, NOTHING, PROMPT, Sampling(max_new_tokens=1), pieces.append, lambda: True)
    assert (first.reason, first.completion_tokens) == ("length", 1)
    base.model.config.eos_token_id = [END, int(pieces[0].strip()[1:])]
    last = stream(base, NOTHING, PROMPT, Sampling(max_new_tokens=9), pieces.append, lambda: True)
    assert (last.reason, last.completion_tokens) == ("stop", 1)
    base.model.config.eos_token_id = None
    assert ends(base) == [END]


def test_the_chat_templates_end_of_turn_ends_texts(base):
    for template, known in ((CHATML, ["</s>"]), (STRICT, ["</s>", "<pad>"])):
        chatty = BaseModel(base.model, with_template(base.tokenizer, template), base.card)
        assert ends(chatty) == base.tokenizer.convert_tokens_to_ids(known)


def test_what_is_drawn_follows_the_seed_or_nothing_and_leaves_no_trace(base):
    def draws(seed):
        with drawing(base, Sampling(temperature=1.0, seed=seed)):
            return torch.rand(4).tolist()

    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert draws(1) == draws(1) != draws(0)
    assert draws(None) != draws(None)
    assert torch.equal(before, torch.get_rng_state())


def test_a_configuration_is_of_the_settings_alone(base):
    config = generation_config(base, 5, Sampling(temperature=0.5))
    assert (config.max_new_tokens, config.do_sample, config.temperature, config.top_p) == (5, True, 0.5, 1.0)
    assert not generation_config(base, 5, Sampling(temperature=1e-38)).do_sample, "it would overflow"
    for wrong in ({"temperature": -1}, {"temperature": float("nan")}, {"top_p": 2}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Sampling(**wrong)


def test_without_a_cache_the_configuration_says_so(base):
    assert generation_config(base, 5, cached=False).use_cache is False
    assert generation_config(base, 5).use_cache is True
