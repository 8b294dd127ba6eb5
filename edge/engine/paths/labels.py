"""Scores of labels after prompts: all labels side by side after one run of each prompt."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from transformers import EncoderDecoderCache

from fedperfit.edge.engine.batching import QuestionBatch
from fedperfit.edge.engine.examples import position_arguments
from fedperfit.edge.engine.paths.plain import plain_scores
from fedperfit.edge.engine.prefix import forgets, whole_layers
from fedperfit.edge.engine.slab import Stack
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.layers import decoder_layers


@dataclass(frozen=True)
class LabelTree:
    """The labels' tokens in one row: S inputs, each predicting the next token of its own label."""

    starts: torch.Tensor
    """(labels,) first tokens, predicted by the prompt."""
    inputs: torch.Tensor
    """(S,) tokens of all labels but their last ones."""
    outputs: torch.Tensor
    """(S,) token that follows each input."""
    label: torch.Tensor
    """(S,) number of the label each input belongs to."""
    depth: torch.Tensor
    """(S,) place of each input in its label, from 0."""

    @classmethod
    def of(cls, labels: Sequence[tuple[int, ...]], device: torch.device) -> "LabelTree":
        """Lay out labels in one row.

        Args:
            labels: token ids of each label, at least one.
            device: where the tensors are wanted.
        """
        rows = [
            (token, following, number, depth)
            for number, label in enumerate(labels)
            for depth, (token, following) in enumerate(pairwise(label))
        ]
        columns = torch.tensor(rows, dtype=torch.long, device=device).reshape(-1, 4).unbind(1)
        return cls(torch.tensor([label[0] for label in labels], device=device), *columns)

    def attention(self, prompt: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Additive mask (batch, 1, S, prompt + S) that lets an input see the prompt and its label so far.

        Args:
            prompt: (batch, tokens) bool, false at padding.
            dtype: type of the mask, the model's.
        """
        own = (self.label[:, None] == self.label) & (self.depth[:, None] >= self.depth)
        rows = len(self.inputs)
        seen = torch.cat(
            [prompt[:, None, None].expand(-1, 1, rows, -1), own.expand(len(prompt), 1, -1, -1)], dim=-1
        )
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
            ~seen, torch.finfo(dtype).min
        )


def label_scores(
    base: BaseModel, stack: Stack, batch: QuestionBatch, labels: Sequence[tuple[int, ...]]
) -> torch.Tensor:
    """Log-likelihoods (batch, labels) of labels after prompts.

    A prompt is run once; then all labels stand side by side in one row, each attending to the prompt and
    itself, so that no cache is copied.

    Args:
        base: the frozen model.
        stack: shifts of all users.
        batch: prompts; a batch that is not run fast holds one.
        labels: token ids of each label.
    """
    if batch.plain:
        prompt = tuple(batch.ids[0].tolist())
        return plain_scores(base, stack.some(batch.owners), prompt, labels)[None]
    tree = LabelTree.of(labels, base.device)
    mask, rest = batch.mask, batch.ids[:, batch.known :]
    with batch.shifted(base, stack, batch.mask[:, batch.known :]):
        prefill = base.model(
            input_ids=rest,
            attention_mask=mask.long(),
            **position_arguments(base, mask, last=rest.shape[1]),
            past_key_values=batch.cache,
            use_cache=True,
            logits_to_keep=1,
        )
    first = prefill.logits[:, -1].float().log_softmax(-1)
    if base.mark:
        return _branching_scores(base, mask, first, prefill.past_key_values, labels)
    scores: torch.Tensor = first[:, tree.starts]
    depth = range(len(decoder_layers(base.model)))
    if forgets(base, mask.shape[1] + len(tree.inputs)) or not whole_layers(
        getattr(prefill, "past_key_values", None), depth, mask.shape[1]
    ):
        return _recomputed_scores(base, stack, batch, labels)
    if not tree.inputs.numel():
        return scores
    position = {}
    if position_arguments(base, mask):
        position = {"position_ids": mask.sum(1, keepdim=True) + tree.depth}
    logits = base.model(
        input_ids=tree.inputs.expand(len(mask), -1),
        attention_mask=tree.attention(mask, prefill.logits.dtype),
        **position,
        past_key_values=prefill.past_key_values,
        use_cache=True,
    ).logits
    later = logits.float().log_softmax(-1).gather(2, tree.outputs.expand(len(mask), -1)[:, :, None])
    return scores.index_add(1, tree.label, later[:, :, 0])


def _branching_scores(
    base: BaseModel,
    mask: torch.Tensor,
    first: torch.Tensor,
    cache: EncoderDecoderCache,
    labels: Sequence[tuple[int, ...]],
) -> torch.Tensor:
    """Log-likelihoods (batch, labels), each label with its own keys and the encoder's of all.

    mask: (batch, tokens) bool, false at the prompts' padding; first: (batch, vocabulary) log-likelihoods of
    the first token; cache: keys of what was read, and of the decoder's start.
    """
    scores = []
    for label in labels:
        score = first[:, label[0]]
        tokens = torch.tensor(label, device=base.device).expand(len(mask), -1)
        if len(label) > 1:
            own = copy.deepcopy(cache.self_attention_cache)
            logits = base.model(
                input_ids=tokens[:, :-1],
                attention_mask=torch.cat([mask.long(), torch.ones_like(tokens[:, :-1])], dim=1),
                past_key_values=EncoderDecoderCache(own, cache.cross_attention_cache),
                use_cache=True,
            ).logits
            logs = logits.float().log_softmax(-1).gather(2, tokens[:, 1:, None])
            score = score + logs.sum(dim=(1, 2))
        scores.append(score)
    return torch.stack(scores, dim=1)


def _recomputed_scores(
    base: BaseModel, stack: Stack, batch: QuestionBatch, labels: Sequence[tuple[int, ...]]
) -> torch.Tensor:
    """Log-likelihoods (batch, labels), each label run with its whole prompt: for models that forget keys."""
    prompt = batch.ids.shape[1]
    scores = []
    for label in labels:
        tokens = torch.tensor(label, device=base.device).expand(len(batch.ids), -1)
        mask = torch.cat([batch.mask, torch.ones_like(tokens, dtype=torch.bool)], dim=1)
        inside = torch.cat([batch.mask, torch.zeros_like(tokens, dtype=torch.bool)], dim=1)
        with batch.shifted(base, stack, inside):
            logits = base.model(
                input_ids=torch.cat([batch.ids, tokens], dim=1),
                attention_mask=mask.long(),
                **position_arguments(base, mask),
                use_cache=False,
            ).logits
        logs = logits[:, prompt - 1 : -1].float().log_softmax(-1)
        scores.append(logs.gather(2, tokens[:, :, None]).sum(dim=(1, 2)))
    return torch.stack(scores, dim=1)
