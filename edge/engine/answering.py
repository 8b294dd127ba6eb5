"""Answers questions by the shifted model: with greedy text, or one of a fixed set of labels.

Questions of many users are answered side by side, each under its own user's shifts.
"""

from collections.abc import Sequence

import torch

from fedperfit.edge.engine.batching import Question, question_batches
from fedperfit.edge.engine.generation import generation_config
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.paths.check import checked
from fedperfit.edge.engine.paths.labels import label_scores
from fedperfit.edge.engine.slab import Stack
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.prompt_tokens import target_tokens
from fedperfit.protocol.tasks import AnswerKind, Estimate, PromptForm, Task


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
    """Answer questions of a task: with one of its labels, or with text where it has none.

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
    scores = score_labels(base, stack, questions, labels, batch_size=batch_size, items=items)
    return choose(task, scores)


def choose(task: Task, scores: torch.Tensor) -> list[str]:
    """Take the labels that a task's estimate makes of their scores.

    Args:
        task: has labels.
        scores: log-likelihood of each label in nats, up to a constant per question: (questions, labels).

    Returns:
        One label per question.
    """
    if task.estimate is Estimate.MODE:
        return [task.labels[index] for index in scores.argmax(-1).tolist()]
    ascending = sorted(range(len(task.labels)), key=lambda index: float(task.labels[index]))
    below = scores[:, ascending].double().softmax(-1).cumsum(-1)
    places = (2 * below < below[:, -1:]).sum(-1)
    return [task.labels[ascending[place]] for place in places.tolist()]


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
    path = checked(base, stack.layers, stack.positions).text
    for batch in question_batches(base, stack, questions, batch_size, items, path):
        width = batch.ids.shape[1]
        with batch.shifted(base, stack, batch.mask[:, batch.known :]):
            rows = base.model.generate(
                **batch.inputs,
                generation_config=generation_config(
                    base, min(most, base.context - width), cached=not batch.plain
                ),
            )
        texts = base.tokenizer.batch_decode(rows[:, width:], skip_special_tokens=True)
        for index, text in zip(batch.indices, texts, strict=True):
            answers[index] = text.strip()
    return answers


@torch.inference_mode()
def score_labels(
    base: BaseModel,
    stack: Stack,
    questions: Sequence[Question],
    labels: Sequence[tuple[int, ...]],
    *,
    batch_size: int,
    items: ItemCache | None = None,
) -> torch.Tensor:
    """Find the log-likelihood of each label, end token included, for each question.

    Args:
        base: the frozen model.
        stack: shifts of the users.
        questions: prompts of any users.
        labels: token ids of each label's target.
        batch_size: questions answered side by side.
        items: keeps keys and values of prompts for when they are asked again; None to keep none.

    Returns:
        Log-likelihoods in nats, on the CPU: (questions, labels), questions in their order.
    """
    scores = torch.zeros(len(questions), len(labels))
    path = checked(base, stack.layers, stack.positions).labels
    for batch in question_batches(base, stack, questions, batch_size, items, path):
        scores[torch.tensor(batch.indices)] = label_scores(base, stack, batch, labels).float().cpu()
    return scores
