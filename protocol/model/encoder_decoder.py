"""Encoder-decoder models as models of whole rows, so that all else sees one kind of model.

A row is a prompt, a mark, and a target. The encoder reads what is before the mark; the decoder reads what is
after it, and its start token in the mark's place. What a decoder layer passes on is one hidden state for each
token of the row: for the prompt the encoder's, as the layers above attend to them, then the decoder's own. So
a prompt's tokens have their place in every decoder layer, as in a decoder-only model, and a change there
changes what all layers above read of the prompt.
"""

from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast, MoEModelOutput

from fedperfit.protocol.model.config import decoder_config
from fedperfit.protocol.model.joint_rows import JointLayer, Rows, StackedLayer, packed
from fedperfit.protocol.model.layers import layers_within
from fedperfit.protocol.system.errors import InputError


class EncoderDecoder(PreTrainedModel, GenerationMixin):
    """A model that writes a text for one that it has read, called like a causal language model."""

    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, model: Any) -> None:
        """Put whole rows in front of a model, whose decoder layers are replaced in place.

        Args:
            model: Made by `AutoModelForSeq2SeqLM`.

        Raises:
            InputError: Its decoder layers are not found, or nothing says how the decoder starts.
        """
        super().__init__(decoder_config(model.config))
        self.model = model
        self.mark = int(model.get_input_embeddings().num_embeddings)
        """Id between prompt and target, which is no token's."""
        stated = (getattr(model.config, name, None) for name in ("decoder_start_token_id", "bos_token_id"))
        start = next((token for token in stated if token is not None), None)
        if start is None:
            raise InputError("its config.json names no decoder_start_token_id")
        self._start, self._padding = int(start), int(getattr(model.config, "pad_token_id", None) or 0)
        layers = layers_within(model.get_decoder(), self.config.num_hidden_layers)
        self._stacked = [StackedLayer(layer) for layer in layers]
        """Layers as the decoder calls them, in a plain list, so that no weight has two names."""
        for number, layer in enumerate(self._stacked):
            layers[number] = layer

    @property
    def joint_layers(self) -> list[JointLayer]:
        """Decoder layers, whose outputs are the states of whole rows."""
        return [layer.joint for layer in self._stacked]

    def get_input_embeddings(self) -> Any:
        """Return the embeddings of the tokens."""
        return self.model.get_input_embeddings()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Predict what follows each token from the mark on.

        Args:
            input_ids: (batch, tokens) rows, padded on either side; with a filled cache the tokens behind it.
            attention_mask: (batch, all tokens) 1 at tokens, 0 at padding; None where all are tokens.
            past_key_values: Cache, filled by the passes before or empty.
            use_cache: Whether keys and values are kept.
            logits_to_keep: Number of last columns, or the columns, whose logits are wanted; 0 for all.

        Returns:
            Logits (batch, columns, vocabulary), 0 where nothing is predicted: in front of the mark and at
            padding.
        """
        filled = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if isinstance(past_key_values, EncoderDecoderCache) and past_key_values.get_seq_length():
            cache: EncoderDecoderCache | None = past_key_values
            rows = self._continuing(input_ids, filled.bool(), past_key_values.get_seq_length())
        else:
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache()) if use_cache else None
            rows = self._beginning(input_ids, filled.bool())
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)
        kept = columns[-logits_to_keep:] if isinstance(logits_to_keep, int) else columns[logits_to_keep]
        row, column = rows.written[:, kept].nonzero(as_tuple=True)
        logits = torch.zeros(len(input_ids), len(kept), self.mark, dtype=self.dtype, device=input_ids.device)
        if rows.writes.numel():
            places = (rows.written.cumsum(1) - 1)[:, kept][row, column]
            predicted = self._decoded(input_ids, rows, cache)
            logits = logits.index_put((row, column), predicted[row, places])
        return CausalLMOutputWithPast(
            logits=logits,
            past_key_values=cache if rows.writes.numel() else None,
        )

    def _beginning(self, ids: torch.Tensor, filled: torch.Tensor) -> Rows:
        """Rows with their prompts read; ids: (batch, tokens); filled: (batch, tokens) bool."""
        behind = (ids == self.mark).cumsum(1) > 0
        prompt, written = filled & ~behind, filled & behind
        read, reads = packed(ids, prompt, self._padding)
        _, writes = packed(ids, written, self._padding)
        skipped = "forward" in vars(self.joint_layers[0])  # states that hold the prompt's enter above it
        if skipped or not writes.numel():
            states = self._no_states(reads)
        else:
            states = self.model.get_encoder()(input_ids=read, attention_mask=reads.long()).last_hidden_state
        return Rows(prompt, written, reads, writes, states, states)

    def _continuing(self, ids: torch.Tensor, filled: torch.Tensor, known: int) -> Rows:
        """Rows of tokens (batch, tokens) behind `known` others; filled: (batch, all tokens) bool."""
        counts = filled[:, : filled.shape[1] - ids.shape[1] - known].sum(1)
        reads = torch.arange(int(counts.max()), device=ids.device) < counts[:, None]
        written = torch.ones_like(ids, dtype=torch.bool)
        states = self._no_states(reads)
        return Rows(~written, written, reads, written, states, states, known)

    def _no_states(self, reads: torch.Tensor) -> torch.Tensor:
        size = self.config.hidden_size
        return torch.zeros(*reads.shape, size, dtype=self.dtype, device=reads.device)

    def _decoded(self, ids: torch.Tensor, rows: Rows, cache: EncoderDecoderCache | None) -> torch.Tensor:
        """Logits (batch, D, vocabulary) of rows; ids: (batch, tokens)."""
        own, _ = packed(torch.where(ids == self.mark, self._start, ids), rows.written, self._padding)
        for layer in self._stacked:
            layer.rows = rows
        try:
            logits: torch.Tensor = self.model(
                encoder_outputs=MoEModelOutput(last_hidden_state=rows.encoded),
                attention_mask=rows.reads.long(),
                decoder_input_ids=own,
                decoder_attention_mask=nn.functional.pad(rows.writes, (rows.known, 0), value=True).long(),
                past_key_values=cache,
                use_cache=cache is not None,
            ).logits
        finally:
            for layer in self._stacked:
                layer.rows = None
        return logits
