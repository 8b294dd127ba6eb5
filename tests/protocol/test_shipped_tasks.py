"""The files of LaMP's tasks say what the code that they replaced said, to the letter."""

import hashlib
import json
import random
from typing import Any

import pytest

from fedperfit.edge.chameleon.prompts import Persona, history_text, insight_prompt, output_prompt
from fedperfit.protocol.tasks import TASKS, PromptForm, Task

FORMS = (PromptForm.LAMP, PromptForm.OPPU)
WORDS = [
    *("a", "Zz", "9", "{text}", "{}", "}{", "naïve", "新闻", "🙂", "article:", "review:"),
    *("\n", "\t", "&amp;", "5.0", "x" * 40),
]
DIGESTS = {
    "LaMP_2N": "a48c8cc6e2cb916a69f8013eae57f8357a573bdb23f57cb8b6182791ec16357c",
    "LaMP_2M": "ba9ff8e6393691096cb43cb2d9fd3bd2bcdfbce4cf52d0db8630f39faf5965dd",
    "LaMP_3": "c82fa9b41944f29e55f6bd89a5ff82dfa5eb288ef64aa971b590f59155813516",
    "LaMP_4": "f00b9a657052b9ee462ac35cf3ace8968e8cb3a55c536cf25550be4e21784a5f",
    "LaMP_5": "0816280d2fafb06cefb8de92a01d795ea07663febe9116448fbcf51f557da22e",
    "LaMP_7": "b1fb56238b465486796a88fa64d9055a813d933e04539a7864e37000d7753fec",
}
"""SHA-256 of everything that the tasks written in Python said of 200 items each."""


def text(rng: random.Random) -> str:
    count = rng.choice((0, 1, 3, 12, 60, 800))
    return rng.choice(("", " ")) + " ".join(rng.choice(WORDS) for _ in range(count)) + rng.choice(("", "\n"))


def answer(task: Task, rng: random.Random) -> str:
    labels = task.labels or ("a title", "")
    return rng.choice((rng.choice(labels), f" {rng.choice(labels)}\n", text(rng)))


def prompts(task: Task, rng: random.Random, items: list[dict[str, Any]]) -> list[Any]:
    """Prompts, targets and labels of 200 items and questions; the items are added to `items`."""
    lines: list[Any] = []
    for number in range(200):
        item = {task.field: text(rng), task.answer: answer(task, rng), "id": number}
        if number % 7 == 0:
            item[task.answer] = number
        items.append(item)
        question = rng.choice(("", "Say: ")) + task.instruction + text(rng)
        lines += [task.query_fields(question)[task.field], task.parse(str(item[task.answer]))]
        for form in FORMS:
            pairs = (task.item_pair(item, form), task.query_pair(question, str(item[task.answer]), form))
            lines += [side for pair in pairs for side in (pair.prompt, pair.target)]
            lines.append(task.target("x", form))
    return lines


def wording(task: Task, items: list[dict[str, Any]]) -> list[str]:
    """The words of other methods' prompts."""
    lines = [task.wording.sentence.format(**item) for item in items]
    lines += [task.wording.joint, task.wording.profile, history_text(task, items[:9])]
    for persona in Persona:
        lines.append(insight_prompt(task, items[:5], persona))
        lines.append(output_prompt(task, items[:3], "a question {x}", persona, " short. "))
    return lines


def former_cut(text: str) -> str:
    """Cut a text as that code did, which lost its lines where it was long."""
    words = text.split()
    return text if len(words) <= 768 else " ".join(words[:768])


@pytest.mark.parametrize("name", DIGESTS)
def test_a_file_says_what_the_code_before_it_said(name, monkeypatch):
    monkeypatch.setattr("fedperfit.protocol.tasks.task.first_words", former_cut)
    task, items = TASKS[name], []
    lines = prompts(task, random.Random(name), items)
    lines += [task.labels, task.instruction, task.field, task.answer, *wording(task, items)]
    assert hashlib.sha256(json.dumps(lines).encode()).hexdigest() == DIGESTS[name]
