"""Encoder-decoder models called row by row, compared with how transformers calls them."""

import copy

import pytest
import torch
from tests.protocol.encoder_decoders import (
    CONFIGS,
    SIZE,
    VOCABULARY,
    encoder_decoder,
    save_encoder_decoder,
    seq2seq,
    written_logits,
)
from tests.protocol.model.folders import edit_config, tokenizer_into
from transformers import BartConfig, WhisperConfig, WhisperForConditionalGeneration

from fedperfit.protocol.model import base_model
from fedperfit.protocol.model.base_model import load, read_card
from fedperfit.protocol.model.encoder_decoder import EncoderDecoder
from fedperfit.protocol.model.functional import functional_fingerprint
from fedperfit.protocol.model.layers import changing, decoder_layers, running
from fedperfit.protocol.model.prompt_tokens import prompt_tokens, target_tokens
from fedperfit.protocol.system.errors import InputError

PROMPTS = ([5, 6, 7, 8, 9, 1], [10, 11, 1])
TARGETS = ([12, 13, 14], [15, 16, 17, 18, 1])


@pytest.fixture(autouse=True)
def _no_old_cards():
    base_model._read_card.cache_clear()


@pytest.fixture(params=list(CONFIGS))
def name(request):
    return request.param


@pytest.fixture
def base(name):
    return encoder_decoder(name)


def close(logits, expected):
    return (logits - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


def rows(base, side):
    """Both rows in one batch without their last tokens, padded on a side, with their masks."""
    whole = [[*p, *base.mark, *t[:-1]] for p, t in zip(PROMPTS, TARGETS, strict=True)]
    width = max(map(len, whole))
    ids, mask = torch.zeros(2, width, dtype=torch.long), torch.zeros(2, width, dtype=torch.long)
    for number, row in enumerate(whole):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    return ids, mask


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_are_those_of_transformers_for_each_row_alone(base, name, side):
    ids, mask = rows(base, side)
    logits = base.model(input_ids=ids, attention_mask=mask).logits
    own = seq2seq(name)
    for row, prompt, target in zip(range(2), PROMPTS, TARGETS, strict=True):
        last = len(mask[row]) if side == "left" else int(mask[row].sum())
        expected = written_logits(own, prompt, target)
        assert close(logits[row, last - len(target) : last], expected)
        assert not logits[row, : last - len(target)].any()


@pytest.mark.parametrize("kept", [2, torch.tensor([3, 7, 8])], ids=["last", "columns"])
def test_only_the_wanted_columns_have_logits(base, kept):
    ids, mask = rows(base, "left")
    every = base.model(input_ids=ids, attention_mask=mask).logits
    some = base.model(input_ids=ids, attention_mask=mask, logits_to_keep=kept).logits
    assert torch.equal(some, every[:, -2:] if kept is not None and isinstance(kept, int) else every[:, kept])


def test_layers_pass_on_the_encoders_states_of_the_prompt_and_the_decoders_own(base):
    states = {}
    ids, mask = rows(base, "left")
    layers = range(len(decoder_layers(base.model)))
    with changing(base.model, layers, lambda layer, hidden: states.setdefault(layer, hidden)):
        base.model(input_ids=ids, attention_mask=mask)
    assert [states[layer].shape for layer in layers] == [(2, ids.shape[1], SIZE)] * 3
    encoder = base.model.model.get_encoder()
    for row, prompt in enumerate(PROMPTS):
        read = encoder(input_ids=torch.tensor([prompt])).last_hidden_state[0]
        begin = int((mask[row] == 0).sum())
        for layer in layers:
            assert close(states[layer][row, begin : begin + len(prompt)], read)
        assert not torch.allclose(states[0][row, -1], states[1][row, -1], atol=1e-2)


def test_a_change_of_the_prompts_states_is_what_the_layers_above_read_and_no_other(base, name):
    """As if the encoder had said something else, to these layers only."""
    ids, mask = (part[:1] for part in rows(base, "right"))
    ids, mask = ids[:, : len(PROMPTS[0]) + 3], mask[:, : len(PROMPTS[0]) + 3]

    def change(layer, hidden):
        return torch.cat([hidden[:, :2] + 1.0, hidden[:, 2:]], dim=1)

    with changing(base.model, [0], change):
        logits = base.model(input_ids=ids, attention_mask=mask).logits[0, -3:]
    own = seq2seq(name)
    decoder = own.get_decoder()
    layers = decoder.block if hasattr(decoder, "block") else decoder.layers
    for layer in layers[1:]:
        inner = layer.forward

        def other(hidden, *args, inner=inner, **kwargs):
            def said(value):
                read = isinstance(value, torch.Tensor) and value.shape == (1, len(PROMPTS[0]), SIZE)
                return torch.cat([value[:, :2] + 1.0, value[:, 2:]], dim=1) if read else value

            return inner(hidden, *map(said, args), **{n: said(v) for n, v in kwargs.items()})

        layer.forward = other
    assert close(logits, written_logits(own, PROMPTS[0], TARGETS[0]))
    assert not torch.allclose(logits, written_logits(seq2seq(name), PROMPTS[0], TARGETS[0]), atol=1e-2)


@pytest.mark.parametrize("entry", [0, 1])
def test_states_that_were_kept_enter_above_and_the_encoder_rests(base, entry, monkeypatch):
    ids, mask = rows(base, "left")
    expected = base.model(input_ids=ids, attention_mask=mask).logits
    kept = []
    with (
        running(base.model, range(entry + 1)),
        changing(base.model, [entry], lambda _, h: kept.append(h) or h),
    ):
        base.model(input_ids=ids, attention_mask=mask)
    monkeypatch.setattr(base.model.model.get_encoder(), "forward", None)
    with running(base.model, range(entry + 1, 3), kept[0]):
        assert close(base.model(input_ids=ids, attention_mask=mask).logits, expected)


def test_a_copy_runs_apart_from_its_original(base):
    ids, mask = rows(base, "left")
    other = copy.deepcopy(base.model)
    assert torch.equal(other(input_ids=ids).logits, base.model(input_ids=ids).logits)
    for weight in other.parameters():
        weight.zero_()
    assert other(input_ids=ids, attention_mask=mask).logits.abs().max() < 1e-6
    assert base.model(input_ids=ids, attention_mask=mask).logits.abs().max() > 0.1


def test_every_weight_counts_once(base, name):
    assert sum(weight.numel() for weight in base.model.parameters()) == seq2seq(name).num_parameters()


def test_a_folder_is_loaded_and_its_card_and_answers_are_the_models(name, tmp_path):
    save_encoder_decoder(name, tmp_path)
    base = load(str(tmp_path), device="cpu")
    assert base.card == read_card(str(tmp_path))
    biases = VOCABULARY if name == "bart" else 0  # kept beside the parameters
    assert base.card.parameters == seq2seq(name).num_parameters() + biases
    assert (base.card.layers, base.card.hidden_size, base.context) == (3, SIZE, 64)
    heads = SIZE if name == "bart" else 4 * 5
    assert base.card.lora_qv == (2 + 2 * 3) * 2 * 8 * (SIZE + heads)
    prompt, target = [3, 4, 5], [6, 7]
    ids = torch.tensor([[*prompt, *base.mark, *target[:-1]]])
    logits = base.model(input_ids=ids).logits[0, -2:]
    assert close(logits, written_logits(seq2seq(name), prompt, target))


def test_prompts_end_with_the_mark_and_targets_with_the_end(tmp_path):
    save_encoder_decoder("t5", tmp_path)
    base = load(str(tmp_path), device="cpu")
    words = base.tokenizer("a b", add_special_tokens=False)["input_ids"]
    assert base.closing == [VOCABULARY]
    assert prompt_tokens(base, ["a b"]) == [[*words, VOCABULARY]]
    assert target_tokens(base, ["a b"], chat=False) == [[*words, base.end_of_text]]


@pytest.fixture
def around(tmp_path):
    """A model whose tokenizer writes a token before and one behind each text, as BART's does."""
    from tokenizers.processors import TemplateProcessing

    save_encoder_decoder("bart", tmp_path)
    base = load(str(tmp_path), device="cpu")
    special = [("<pad>", 0), ("</s>", 1)]
    base.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<pad> $A </s>", special_tokens=special
    )
    return base


def test_what_a_tokenizer_puts_around_a_text_stands_around_prompts_and_targets(around):
    words = around.tokenizer("a b", add_special_tokens=False)["input_ids"]
    assert prompt_tokens(around, ["a b"]) == [[0, *words, 1, VOCABULARY]]
    assert target_tokens(around, ["a b"], chat=False) == [[0, *words, 1]]


def test_the_functional_fingerprint_knows_a_copy_and_tells_another(tmp_path):
    for name in ("t5", "flan-t5"):
        save_encoder_decoder(name, tmp_path / name)
    first, other = (load(str(tmp_path / name), device="cpu") for name in ("t5", "flan-t5"))
    told = functional_fingerprint(first)
    assert told.distance(load(str(tmp_path / "t5"), device="cpu", dtype="bfloat16")) < 0.5
    assert told.distance(other) > 0.5


def test_a_model_that_hears_is_refused_in_one_line(tmp_path):
    config = WhisperConfig(
        **{"vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "pad_token_id": 0},
        **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 1},
        **{"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "decoder_start_token_id": 1},
    )
    WhisperForConditionalGeneration(config).save_pretrained(tmp_path)
    tokenizer_into(tmp_path)
    with pytest.raises(InputError, match="does not make text of text"):
        load(str(tmp_path))


def test_a_model_that_does_not_say_how_its_decoder_starts_is_refused(tmp_path):
    save_encoder_decoder("t5", tmp_path)
    edit_config(tmp_path, decoder_start_token_id=None)
    with pytest.raises(InputError, match=r"names no decoder_start_token_id$"):
        load(str(tmp_path))


def test_layers_that_do_not_read_the_encoders_states_as_they_are_are_refused(base):
    def projected(module, args, kwargs):
        return args, {**kwargs, "encoder_hidden_states": 2 * kwargs["encoder_hidden_states"]}

    base.model.model.get_decoder().register_forward_pre_hook(projected, with_kwargs=True)
    with pytest.raises(InputError, match="does not read the encoder's states"):
        base.model(input_ids=torch.tensor([[3, *base.mark]]))


def test_a_decoder_without_its_layers_is_refused():
    model = seq2seq("bart")
    model.config = BartConfig(decoder_layers=7)
    with pytest.raises(InputError, match="expected one list of 7 decoder layers, found 0"):
        EncoderDecoder(model)
