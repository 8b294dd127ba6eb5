"""Metrics as sums over questions, so that they can be pooled without the answers.

Definitions (reference: LaMP's evaluation): accuracy by exact match after stripping, an unknown
label is wrong; macro F1 over the task's labels from per-label counts; an unparsable number scores
as the farther end of the scale; texts as `protocol.tasks.text_metrics` compares them,
whichever way their accents are coded.
"""

import unicodedata
from collections.abc import Sequence

from fedperfit.protocol.tasks import AnswerKind, Task
from fedperfit.protocol.tasks.door import admitted_answer
from fedperfit.protocol.tasks.metrics import own_metric, sums_of
from fedperfit.protocol.tasks.text_metrics import TEXT_METRICS

Sums = dict[str, float | list[int]]
"""Metric sums over questions, by name; lists have one count per label of the task."""


def score(task: Task, answers: Sequence[str], golds: Sequence[str]) -> Sums:
    """Score answers to questions of one task.

    Args:
        task: decides which metrics there are.
        answers: one text per question.
        golds: the right answer to each.

    Returns:
        Sums over the questions.

    Raises:
        InputError: A gold number is none of the task's, or a metric of one's own fails.
    """
    if task.kind is AnswerKind.LABELS:
        sums = _category(task, answers, golds)
    elif task.kind is AnswerKind.NUMBER:
        sums = _rating(task, answers, golds)
    else:
        answers, golds = (
            [unicodedata.normalize("NFC", text) for text in texts] for texts in (answers, golds)
        )
        matches = sum(a.strip() == g.strip() for a, g in zip(answers, golds, strict=True))
        sums = {"correct": float(matches)}
    for name in sums_of(task.kind, task.metrics):
        if name not in sums:
            scored = TEXT_METRICS[name] if name in TEXT_METRICS else own_metric(name)
            sums[name] = float(sum(scored(a, g) for a, g in zip(answers, golds, strict=True)))
    return sums


def _category(task: Task, answers: Sequence[str], golds: Sequence[str]) -> Sums:
    hits, predicted, gold_counts = ([0] * len(task.labels) for _ in range(3))
    for answer, gold in zip(answers, golds, strict=True):
        label, true = task.parse(answer), task.parse(gold)
        if label is not None:
            predicted[task.labels.index(label)] += 1
        if true is not None:
            gold_counts[task.labels.index(true)] += 1
            hits[task.labels.index(true)] += label == true
    return {
        "correct": float(sum(hits)),
        "true-positives": hits,
        "predicted": predicted,
        "gold": gold_counts,
    }


def _rating(task: Task, answers: Sequence[str], golds: Sequence[str]) -> Sums:
    scale = [float(label) for label in task.labels]
    errors = []
    for answer, gold in zip(answers, golds, strict=True):
        true, label = float(admitted_answer(task, gold)), task.parse(answer)
        worst = max(abs(end - true) for end in scale)
        errors.append(worst if label is None else abs(true - float(label)))
    return {
        "correct": float(sum(error == 0 for error in errors)),
        "absolute-error": float(sum(errors)),
        "squared-error": float(sum(error**2 for error in errors)),
    }
