"""Text that comes in pieces is, joined, what all its tokens make together, whatever the tokenizer does."""

import random
from functools import partial

import pytest
import torch
from tests.protocol.tiny_models import tiny_model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from fedperfit.edge.engine.answering import generate
from fedperfit.edge.engine.batching import Question
from fedperfit.edge.engine.generation import Sampling
from fedperfit.edge.engine.slab import Stack
from fedperfit.edge.writing.pieces import Pieces
from fedperfit.edge.writing.streaming import stream
from fedperfit.protocol.model.base_model import load

NOTHING = Stack([], None, False)
TEXTS = [
    "def f(x):\n    return x\n\n  # it 's done , or is n't it ?\n",
    "a quiet story about an extraordinarily uninteresting lighthouse",
    "他说:灯塔的看守人写日记。 ひらがなとカタカナのテキスト。",
    "สวัสดีครับผม मैंने कहा था। Ещё раз: ёлка",
    "😀👩‍👩‍👧 e\u0301té \ufffd end",
    "",
]


def sentence_pieces():
    """Tokenizer that leaves out the blank before a text's first word, as Llama 2's and Mistral's do."""
    names = ["</s>", "<unk>", *(f"<0x{number:02X}>" for number in range(256)), "▁", "▁▁"]
    letters = [letter for letter in dict.fromkeys("".join(TEXTS)) if letter.isascii() and letter not in " \n"]
    model = models.BPE(
        vocab={name: number for number, name in enumerate([*names, *letters])},
        merges=[("▁", "▁")],
        byte_fallback=True,
        unk_token="<unk>",
        fuse_unk=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    first = decoders.Strip(content=" ", left=1, right=0)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), first]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


def trained(tokenizer, trainer, **options):
    tokenizer.train_from_iterator(TEXTS * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", **options)


def unigrams():
    """Tokenizer that takes blanks before commas away, as T5's does."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=["<unk>", "</s>"], unk_token="<unk>")
    return trained(tokenizer, trainer, unk_token="<unk>", clean_up_tokenization_spaces=True)


def word_pieces():
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=["<unk>", "</s>"])
    return trained(tokenizer, trainer, unk_token="<unk>", clean_up_tokenization_spaces=True)


def byte_pairs():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["</s>"], initial_alphabet=alphabet)
    return trained(tokenizer, trainer)


def in_pieces(tokenizer, tokens):
    pieces = Pieces(partial(tokenizer.decode, skip_special_tokens=True))
    return [*(pieces.add(token) for token in tokens), pieces.rest()]


@pytest.mark.parametrize("kind", [sentence_pieces, unigrams, word_pieces, byte_pairs])
def test_joined_they_are_the_whole_text(kind):
    tokenizer, draw = kind(), random.Random(0)
    for text in [*TEXTS, *("".join(draw.choices(TEXTS, k=12)) for _ in range(5))]:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        whole = tokenizer.decode(tokens, skip_special_tokens=True)
        assert "".join(in_pieces(tokenizer, tokens)) == whole


@pytest.mark.parametrize("kind", [sentence_pieces, byte_pairs])
def test_they_come_early_in_any_script_and_none_is_a_part_of_a_character(kind):
    tokenizer = kind()
    for text in ("灯塔的看守人写日记" * 8, "ひらがなのテキスト" * 8, "สวัสดีครับผม" * 6, "a quiet story " * 8):
        told = 0
        *pieces, rest = in_pieces(tokenizer, tokenizer.encode(text, add_special_tokens=False))
        for piece in pieces:
            assert text.startswith(piece, told)
            told += len(piece)
        assert told >= len(text) - 10
        assert text[told:] == rest


def test_a_long_text_is_not_decoded_from_its_beginning_with_every_token():
    tokenizer, decoded = byte_pairs(), []

    def decode(tokens):
        decoded.append(len(tokens))
        return tokenizer.decode(tokens)

    pieces, text = Pieces(decode), "灯塔 a quiet story\n" * 200
    tokens = tokenizer.encode(text)
    assert "".join([*map(pieces.add, tokens), pieces.rest()]) == text
    assert max(decoded) < 200 < len(tokens)


def test_what_is_streamed_is_what_is_generated_as_a_whole(tmp_path):
    """After a line's end, too, where a tokenizer leaves out the blank before a text's first word."""
    model, tokenizer = tiny_model("llama"), sentence_pieces()
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    base = load(str(tmp_path), device="cpu", dtype="float32")
    blank, line, letter = tokenizer.convert_tokens_to_ids(["▁", "<0x0A>", "a"])
    with torch.no_grad():  # nothing else than these three is written
        weight = base.model.lm_head.weight
        rows = torch.stack([weight[blank], -weight[blank], weight[letter]])
        weight.zero_()
        weight[[blank, line, letter]] = rows
    wholes = []
    for prompt in ((first, 9, 12) for first in range(4, 12)):
        pieces = []
        stream(base, NOTHING, prompt, Sampling(max_new_tokens=24), pieces.append, lambda: True)
        wholes += generate(base, NOTHING, [Question(prompt)], most=24, batch_size=1)
        assert "".join(pieces).strip() == wholes[-1]
    assert any("\n " in whole for whole in wholes), wholes
