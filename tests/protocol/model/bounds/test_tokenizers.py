"""Tokenizers that anybody may have written: one that cannot be the model's is one line."""

import json
import random
import shutil

import pytest
from tokenizers import AddedToken

from fedperfit.protocol.model.base_model import embedded_folder, load
from fedperfit.protocol.model.bounds.tokenizers import errors_told, most_characters, tokens_of
from fedperfit.protocol.system.errors import InputError, PromptError

REPLACE = {"type": "Replace", "pattern": {"Regex": "."}, "content": "a" * 10}
FRAME = {"SpecialToken": {"id": "<s>", "type_id": 0}}
TEXT = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(embedded_folder(), tmp_path / "model")


def edited(folder, name="tokenizer.json", **changes):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return str(folder)


def refused(name, why):
    with pytest.raises(InputError, match=why) as caught:
        load(name, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_text_that_grows_without_measure(folder):
    refused(edited(folder, normalizer={"type": "Sequence", "normalizers": [REPLACE] * 12}), "times as long")
    refused(edited(folder, normalizer={"type": "Prepend", "prepend": "a" * 10**6}), "times as long")
    refused(edited(folder, normalizer=None, decoder=REPLACE | {"content": "a" * 10**6}), "times as long")


def test_a_frame_of_more_tokens_than_any_has(folder):
    tokens = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    frame = {"single": [*[FRAME] * 10**4, TEXT[0]], "pair": TEXT, "special_tokens": tokens}
    post = {"type": "TemplateProcessing", **frame}
    refused(edited(folder, post_processor=post), "too many tokens around a text")


@pytest.mark.parametrize("place", ["words", "frame", "end"])
def test_tokens_that_the_model_does_not_know(folder, place):
    if place == "words":
        model = json.loads((folder / "tokenizer.json").read_text())["model"]
        model["vocab"] = {word: 1000 * number for word, number in model["vocab"].items()}
        name = edited(folder, model=model)
    elif place == "frame":
        post = {"type": "RobertaProcessing", "sep": ["x", 10**6], "cls": ["y", 10**6]}
        name = edited(folder, post_processor=post | {"trim_offsets": True, "add_prefix_space": False})
    else:
        name = edited(folder, "tokenizer_config.json", eos_token="an end of its own")
    refused(name, r"a token \d+, the model 3072 tokens")


def test_a_length_that_is_no_number(folder):
    refused(edited(folder, "tokenizer_config.json", model_max_length="x"), "model_max_length='x'")


def test_a_panic_is_one_line(folder):
    split = {
        "type": "Split",
        "pattern": {"Regex": r"(\w+\s?)+$\b\B"},
        "behavior": "Isolated",
        "invert": False,
    }
    tokenizer = load(edited(folder, pre_tokenizer=split), device="cpu").tokenizer
    with pytest.raises(PromptError, match="the base model's tokenizer fails: Onig"):
        tokens_of(tokenizer, ["The quick brown fox jumps over the lazy dog " * 6])
    broken = {"type": "Precompiled", "precompiled_charsmap": "/w=="}
    refused(edited(folder, normalizer=broken), "the base model's tokenizer fails: ")


def test_an_interruption_is_none():
    with pytest.raises(KeyboardInterrupt), errors_told():
        raise KeyboardInterrupt


NFC = {"type": "NFC"}
BLANKS = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


@pytest.mark.parametrize("normalizer", [None, NFC, {"type": "Sequence", "normalizers": [BLANKS, NFC]}])
def test_a_text_has_no_more_characters_than_its_tokens_can_hold(folder, normalizer):
    tokenizer = load(edited(folder, normalizer=normalizer), device="cpu").tokenizer
    most, longest = most_characters(tokenizer), max(map(len, tokenizer.get_vocab()))
    assert most == (longest if normalizer is None else 4 * longest)
    draw = random.Random(0)
    letters = [
        "a",
        " ",
        "\n",
        "é",
        "灯",
        "🙂",
        "\x00",
        "<s>",
        "\u03b1\u0313\u0300\u0345",
        *tokenizer.get_vocab(),
    ]
    for _ in range(300):
        text = draw.choice(letters) * draw.randrange(30) + "".join(draw.choices(letters, k=9))
        (row,) = tokens_of(tokenizer, [text])
        assert len(text) <= most * len(row)


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}},
        {"normalizer": BLANKS | {"content": ""}},
        {"normalizer": BLANKS | {"pattern": {"Regex": " +"}}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                ],
            }
        },
    ],
)
def test_where_letters_may_be_dropped_there_is_no_bound(folder, changes):
    assert most_characters(load(edited(folder, **changes), device="cpu").tokenizer) is None


def test_a_token_that_takes_the_blanks_beside_it_has_no_bound(folder):
    tokenizer = load(str(folder), device="cpu").tokenizer
    tokenizer.add_tokens([AddedToken("<more>", lstrip=True)])
    assert most_characters(tokenizer) is None
