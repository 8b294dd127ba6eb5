"""The answer to one question that a cloud knows, out of sums of scores over 24 questions.

The owner shares scores. The cloud trains a shift of the agreed form and size to answer that question with one
label and public ones with another, releases it, and has it scored: the label is predicted once, and whether
that was right says what the person answered.

    python -m tests.attacks.by_hand.single_score --people 6
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.attacks.cloud_requests import packed, policy, shape, training
from tests.edge.edge_clients import evaluation, write_client

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.history import read_history, write_history
from fedperfit.edge.consent.shift_rule import check_shift
from fedperfit.protocol.model.base_model import BaseModel, load
from fedperfit.protocol.shift.packing import unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.tasks import TASKS

TASK = TASKS["LaMP_2M"]
QUESTIONS = 24
COPIES, PUBLIC = 20, 70
"""Copies of the question, and public items, that the shift is trained on."""


def crafted(base: BaseModel, folder: Path, question: str, label: str, seed: str) -> Shift:
    """Train a shift that answers one question with a label, and others with another one.

    Args:
        base: Frozen base model.
        folder: Folder for the items.
        question: Text that is asked about.
        label: Answer to it.
        seed: Seed of the public items.
    """
    public = read_history(write_client(folder, seed=seed, items=PUBLIC, questions=1))
    other = next(one for one in TASK.labels if one != label)
    items = [{**item, TASK.answer: other} for item in public.items]
    items += [{TASK.field: question, TASK.answer: label}] * COPIES
    random.Random(1).shuffle(items)
    write_history(folder, replace(public, items=items, questions=[], answered=[]))
    start = packed(Shift.identity(shape(base), seed=0), base)
    settings = training(epochs=12, learning_rate=8e-3, max_items=0)
    shift, _ = unpack(Agent(folder, base).contribute(start, settings).update)
    check_shift("evaluate", shift, policy(base))
    return shift


def named(base: BaseModel, folder: Path, number: int) -> bool:
    """Return whether scores name one person's answer: they do for it, and for another label do not.

    Args:
        base: Frozen base model.
        folder: Folder for the files.
        number: Number of the person, and of the question that the cloud knows.
    """
    person = write_client(folder / "person", seed=f"victim-{number}", items=24, questions=QUESTIONS)
    agent = Agent(person, base)
    asked = agent.history.questions[number % QUESTIONS]
    true = TASK.labels.index(asked["gold"])
    question = asked["input"].removeprefix(TASK.instruction)
    told = {}
    for place in (true, (true + 3) % len(TASK.labels)):
        label = TASK.labels[place]
        shift = crafted(base, folder / str(place), question, label, f"public-{number}")
        sums = agent.evaluate(packed(shift, base), evaluation("collective")).metrics
        told[label] = (sums["predicted"][place], sums["true-positives"][place])  # type: ignore[index]
    print(f"person {number}, {asked['gold']}: predicted and right by label {told}", flush=True)
    return list(told.values()) == [(1, 1), (1, 0)]


def main() -> None:
    """Print for how many people the answer is named."""
    parser = argparse.ArgumentParser(description="One answer out of sums of scores.")
    parser.add_argument("--people", type=int, default=6)
    people = parser.parse_args().people
    base = load("embedded", device="cpu", dtype="float32")
    with TemporaryDirectory() as folder:
        right = sum(named(base, Path(folder) / str(number), number) for number in range(people))
    print(f"named: {right} of {people}")


if __name__ == "__main__":
    main()
