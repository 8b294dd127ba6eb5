"""Random encoder-decoder models, whose encoders are less deep than their decoders."""

import torch
from tests.protocol.model.folders import tokenizer_into
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BartConfig, GenerationConfig, T5Config

from fedperfit.protocol.model.base_model import BaseModel, BaseModelCard, embedded_folder
from fedperfit.protocol.model.encoder_decoder import EncoderDecoder

VOCABULARY, END, SIZE = 40, 1, 16
_T5 = {
    **{"vocab_size": VOCABULARY, "d_model": SIZE, "d_ff": 24, "num_heads": 4, "d_kv": 5, "n_positions": 64},
    **{"num_layers": 2, "num_decoder_layers": 3, "decoder_start_token_id": 0, "initializer_factor": 3.0},
}
CONFIGS = {
    "t5": lambda: T5Config(**_T5),
    "flan-t5": lambda: T5Config(**_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "bart": lambda: BartConfig(
        **{"vocab_size": VOCABULARY, "d_model": SIZE, "encoder_layers": 2, "decoder_layers": 3},
        **{"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "init_std": 0.3, "max_position_embeddings": 64},
        **{"encoder_attention_heads": 4, "decoder_attention_heads": 4},
        **{"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": END, "decoder_start_token_id": END},
    ),
}


def seq2seq(name):
    """Frozen random model as transformers makes it, always the same one."""
    torch.manual_seed(1)
    return AutoModelForSeq2SeqLM.from_config(CONFIGS[name]()).eval().requires_grad_(False)


def encoder_decoder(name):
    """The model as a base model without a tokenizer."""
    card = BaseModelCard("", SIZE, 3, 0, "float32", 0)
    return BaseModel(EncoderDecoder(seq2seq(name)), None, card)


def save_encoder_decoder(name, folder):
    seq2seq(name).save_pretrained(folder)
    tokenizer_into(folder)


def save_with_words(folder):
    """A random Flan-T5 with the embedded model's words; returns the folder's name."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    torch.manual_seed(0)
    config = T5Config(
        **{"vocab_size": len(tokenizer), "d_model": 32, "d_ff": 48, "num_heads": 4, "d_kv": 8},
        **{"num_layers": 2, "num_decoder_layers": 4, "initializer_factor": 2.0, "n_positions": 512},
        **{"decoder_start_token_id": 0, "eos_token_id": tokenizer.eos_token_id},
        **{"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    )
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def written_logits(model, prompt, target):
    """Logits (target tokens, vocabulary) by transformers' own forward pass, of a prompt without its mark."""
    start = model.config.decoder_start_token_id
    own = torch.tensor([[start, *target[:-1]]])
    return model(input_ids=torch.tensor([prompt]), decoder_input_ids=own).logits[0]


def continued(model, prompt, **how):
    """Tokens by transformers' own `generate`, without its cache, which has as many layers as the encoder."""
    config = GenerationConfig(
        decoder_start_token_id=model.config.decoder_start_token_id, pad_token_id=0, use_cache=False, **how
    )
    return model.generate(input_ids=torch.tensor([prompt]), generation_config=config)[0, 1:].tolist()
