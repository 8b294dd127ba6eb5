"""Reading tokens of a person's history out of updates: without a guard, within the policy, and at chance.

Without a guard the cloud asks for the one step of training whose result is the gradient of W on every token
of one item: layer 0, full rank, all positions, R and W next to nothing, so that Adam's step can be undone.
Within the policy it reads several updates together, of shifts that it chooses at random. Chance is what the
same reader tells of the same texts from updates of another person: what all texts of a task have in common.

    python -m tests.attacks.reading --base-model smollm2 --people 4
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tests.attacks.cloud_requests import Edge, read_tokens, shape, span, training

from fedperfit.edge.engine.examples import Example
from fedperfit.protocol.model.base_model import BaseModel, load
from fedperfit.protocol.shift.packing import unpack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shift import Shift

RATE, CLIP, EPSILON = 1e8, 1e-9, 1e-8
GREEDY = {
    "epochs": 1,
    "batch_size": 1,
    "learning_rate": RATE,
    "weight_decay": 0.0,
    "clip_norm": CLIP,
    "max_items": 1,
}
"""Settings of the one step that can be undone."""
UPDATES = 8
"""Updates within the policy that are read together."""
TEXTS = 4
"""Texts of a person that are read."""
WIDTHS = (8, 64)
"""Leading directions of the updates that are tried; the reader's best counts."""


@dataclass(frozen=True)
class Reading:
    """Shares of tokens that are read out of one person's updates."""

    unguarded: float
    """From one update that no guard looked at."""
    guarded: float
    """From `UPDATES` updates within the policy, at shifted positions."""
    chance: float
    """The same from another person's updates."""


def inverting(base: BaseModel) -> Shift:
    """Make a shift of full rank on every token of layer 0 that does nothing; its gradient tells all."""
    d = base.card.hidden_size
    nothing = 1e-9 * torch.eye(d)[None]
    where = shape(base, layers=(0,), rank=d, positions=Positions.parse("f9999"))
    return Shift(where, R=nothing, W=nothing.clone(), b=torch.zeros(1, d))


def unguarded(base: BaseModel, edge: Edge) -> float:
    """Read the latest item out of one update that no guard looked at."""
    before = inverting(base)
    after, _ = unpack(edge.contribute(before, training(**GREEDY)))
    step = (after.W - before.W)[0].detach().double() / RATE
    gradient = EPSILON * step / (1 - step.abs()).clamp(min=1e-12)
    examples = edge.examples(8)
    latest = examples[-1]
    places = own_words(latest, shared_tokens(examples))
    assert len(places) > 8
    return read_tokens(base, span(gradient), latest, 0, places)


def steps_within_policy(base: BaseModel, edge: Edge) -> torch.Tensor:
    """Return what `UPDATES` updates change in W of the first shifted layer, (rows, d)."""
    steps = []
    for number in range(UPDATES):
        before = Shift.identity(shape(base), seed=number)
        settings = training(learning_rate=4e-2, clip_norm=0.25, weight_decay=0.0)
        after, _ = unpack(edge.contribute(before, settings))
        steps.append((after.W - before.W)[0].detach())
    return torch.cat(steps)


def read(base: BaseModel, edge: Edge, steps: torch.Tensor) -> float:
    """Read a person's texts at shifted positions out of updates, the person's own or another's.

    Args:
        base: Frozen base model.
        edge: The person.
        steps: What updates changed in W, (rows, d).

    Returns:
        Share of the tokens that are told from decoys.
    """
    examples = edge.examples(24)
    shared = shared_tokens(examples)
    found = []
    for most in WIDTHS:
        directions = span(steps, most=most)
        shares = [
            read_tokens(base, directions, example, 3, list(own_words(example, shared))[-6:])
            for example in examples[:TEXTS]
        ]
        found.append(sum(shares) / len(shares))
    return max(found)


def measure(base: BaseModel, folder: Path, people: int) -> Iterator[Reading]:
    """Read several people's texts; each one's chance is taken from the updates of the person before.

    Args:
        base: Frozen base model.
        folder: Folder for their files.
        people: Number of people.
    """
    before = steps_within_policy(base, Edge.make(folder / "other", base, guarded=True, seed="reading"))
    for n in range(people):
        edge, free = (
            Edge.make(folder / f"{guarded}{n}", base, guarded=guarded, seed=f"reading-{n}")
            for guarded in (True, False)
        )
        steps = steps_within_policy(base, edge)
        yield Reading(
            unguarded=unguarded(base, free), guarded=read(base, edge, steps), chance=read(base, edge, before)
        )
        before = steps


def own_words(example: Example, instruction: int) -> range:
    """Return the positions of the person's own words in a prompt."""
    return range(instruction, len(example.prompt) - 1)


def shared_tokens(examples: list[Example]) -> int:
    """Count the tokens that all prompts begin with."""
    first, *others = [example.prompt for example in examples]
    return next(n for n, token in enumerate(first) if any(other[n] != token for other in others))


def main() -> None:
    """Print the shares of tokens that are read, person by person."""
    parser = argparse.ArgumentParser(description="Tokens of a history that are read out of updates.")
    parser.add_argument("--base-model", default="embedded")
    parser.add_argument("--people", type=int, default=4, help="people of the synthetic world")
    arguments = parser.parse_args()
    base = load(arguments.base_model, device="cpu", dtype="float32")
    print("without a guard   within the policy   by another's updates")
    with TemporaryDirectory() as folder:
        for one in measure(base, Path(folder), arguments.people):
            print(f"{one.unguarded:15.3f}   {one.guarded:17.3f}   {one.chance:20.3f}", flush=True)


if __name__ == "__main__":
    main()
