"""Answers questions by the shifted model: with greedy text, or the likeliest of a fixed set of labels.

Questions of many users are answered side by side, each under its own user's shifts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from fedperfit.edge.engine.batching import Question, QuestionBatch, question_batches
from fedperfit.edge.engine.examples import position_arguments
from fedperfit.edge.engine.generation import generation_config
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.prefix import (
    forgets,
    whole_layers,
)
from fedperfit.edge.engine.slab import Stack
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.layers import decoder_layers
from fedperfit.protocol.model.prompt_tokens import target_tokens
from fedperfit.protocol.tasks import AnswerKind, PromptForm, Task


def answer(
    base: BaseModel,
    task: Task,
    form: PromptForm,
    stack: Stack,
    questions: Sequence[Question],
    *,
    batch_size: int,
    items: ItemCache | None = None,
) -> list[str]:
    """Answer questions of a task: with the likeliest of its labels, or with text where it has none.

    Args:
        base: the frozen model.
        task: decides which of the two it is.
        form: form of the labels.
        stack: shifts of the users.
        questions: prompts of any users.
        batch_size: questions answered side by side.
        items: keeps keys and values of prompts for when they are asked again; None to keep none.

    Returns:
        One answer per question, in their order.
    """
    if task.kind is AnswerKind.TEXT:
        most = task.answer_tokens
        return generate(base, stack, questions, most=most, batch_size=batch_size, items=items)
    labels = label_tokens(base, task, form)
    chosen = likeliest(base, stack, questions, labels, batch_size=batch_size, items=items)
    return [task.labels[index] for index in chosen]


def label_tokens(base: BaseModel, task: Task, form: PromptForm) -> list[tuple[int, ...]]:
    """Tokenize the targets of a task's labels.

    Args:
        base: model whose tokenizer counts.
        task: has labels.
        form: form of the targets.

    Returns:
        Token ids of each label, end token included.
    """
    targets = [task.target(label, form) for label in task.labels]
    return [tuple(label) for label in target_tokens(base, targets, form is PromptForm.CHAT)]


@torch.inference_mode()
def generate(
    base: BaseModel,
    stack: Stack,
    questions: Sequence[Question],
    *,
    most: int,
    batch_size: int,
    items: ItemCache | None = None,
) -> list[str]:
    """Continue prompts greedily up to a token that ends texts.

    The shifts act in the prefill only, so a decoded token costs what it costs without them.

    Args:
        base: the frozen model.
        stack: shifts of the users.
        questions: prompts of any users.
        most: most tokens of an answer.
        batch_size: questions answered side by side.
        items: keeps keys and values of prompts for when they are asked again; None to keep none.

    Returns:
        One stripped text per question, in their order.
    """
    answers = [""] * len(questions)
    for batch in question_batches(base, stack, questions, batch_size, items):
        width = batch.ids.shape[1]
        with batch.shifted(base, stack, batch.mask[:, batch.known :]):
            rows = base.model.generate(
                input_ids=batch.ids,
                attention_mask=batch.mask.long(),
                past_key_values=batch.cache,
                generation_config=generation_config(base, min(most, base.context - width)),
            )
        texts = base.tokenizer.batch_decode(rows[:, width:], skip_special_tokens=True)
        for index, text in zip(batch.indices, texts, strict=True):
            answers[index] = text.strip()
    return answers


@torch.inference_mode()
def likeliest(
    base: BaseModel,
    stack: Stack,
    questions: Sequence[Question],
    labels: Sequence[tuple[int, ...]],
    *,
    batch_size: int,
    items: ItemCache | None = None,
) -> list[int]:
    """Find the label with the highest log-likelihood, end token included, for each question.

    A prompt is run once; then all labels stand side by side in one row, each attending to the prompt and
    itself, so that no cache is copied.

    Args:
        base: the frozen model.
        stack: shifts of the users.
        questions: prompts of any users.
        labels: token ids of each label's target.
        batch_size: questions answered side by side.
        items: keeps keys and values of prompts for when they are asked again; None to keep none.

    Returns:
        Number of the label for each question, in their order.
    """
    best = [0] * len(questions)
    tree = _LabelTree.of(labels, base.device)
    depth = range(len(decoder_layers(base.model)))
    for batch in question_batches(base, stack, questions, batch_size, items):
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
        scores = first[:, tree.starts]
        if forgets(base, mask.shape[1] + len(tree.inputs)) or not whole_layers(
            prefill.past_key_values, depth, mask.shape[1]
        ):
            scores = _recomputed_scores(base, stack, batch, labels)
        elif tree.inputs.numel():
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
            scores = scores.index_add(1, tree.label, later[:, :, 0])
        for index, choice in zip(batch.indices, scores.argmax(-1).tolist(), strict=True):
            best[index] = choice
    return best


@dataclass(frozen=True)
class _LabelTree:
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
    def of(cls, labels: Sequence[tuple[int, ...]], device: torch.device) -> "_LabelTree":
        rows = [
            (token, following, number, depth)
            for number, label in enumerate(labels)
            for depth, (token, following) in enumerate(pairwise(label))
        ]
        columns = torch.tensor(rows, dtype=torch.long, device=device).reshape(-1, 4).unbind(1)
        return cls(torch.tensor([label[0] for label in labels], device=device), *columns)

    def attention(self, prompt: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Additive mask (batch, 1, S, prompt + S) that lets an input see the prompt and its label so far."""
        own = (self.label[:, None] == self.label) & (self.depth[:, None] >= self.depth)
        rows = len(self.inputs)
        seen = torch.cat(
            [prompt[:, None, None].expand(-1, 1, rows, -1), own.expand(len(prompt), 1, -1, -1)], dim=-1
        )
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
            ~seen, torch.finfo(dtype).min
        )


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
