"""Folders of tiny models with a tokenizer, as base models are kept."""

import json

from tests.protocol.tiny_models import tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def save_model(name, folder, **options):
    tiny_model(name).save_pretrained(folder, **options)
    tokenizer_into(folder)


def tokenizer_into(folder):
    words = {word: number for number, word in enumerate(["<pad>", "</s>", *"abcdefghij"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    wrapped.save_pretrained(folder)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
