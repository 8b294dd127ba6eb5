"""Reading tokens of a person's history out of updates that are coordinates in a basis that the cloud knows.

The cloud lifts what changed in A back to the hidden states, W - R = A P, and reads as it does whole shifts,
by several measures of which the best counts: by the strongest 1 to 8 directions, against the whole state or
what P shows of it, as it is or against the mean of all candidates. It also makes the update that the item
would give with each of some candidates, and takes the cosine to what it got. The control is one item, asked
for without a guard and in full precision; chance is what the same readers tell from another's updates.

    python -m tests.attacks.by_hand.reading_coordinates --base-model smollm2 --people 4
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tests.attacks.cloud_requests import Edge, candidates, states, training
from tests.attacks.reading import EPSILON, GREEDY, RATE, TEXTS, UPDATES, own_words, shared_tokens

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.protocol.model.base_model import BaseModel, load
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.simulation.basis.public import make_basis, world_pairs

PUBLIC_PAIRS = 32
"""Public pairs that the basis is made of."""
PLACES = 6
"""Tokens that are read at the end of each text, where the shift acts."""
WIDTHS = (1, 2, 4, 8)
"""Leading directions of the updates that are tried."""
VERSIONS = 10
"""Candidates whose own updates are made for a place, the true one included."""
_VERSION_PLACES = 3
"""Places of a text that are read by them."""


@dataclass(frozen=True)
class Reading:
    """Shares of tokens that are read out of one person's updates in a basis."""

    unguarded: float
    """From one update of one item in full precision, which no guard looked at."""
    guarded: float
    """From `UPDATES` updates of one bit a number within the policy, by their directions."""
    chance: float
    """The same from another person's updates."""
    made: float
    """From the same updates, by those that candidates would give; guessing gives 1 / `VERSIONS`."""
    made_chance: float
    """The same from another person's updates."""


def public(base: BaseModel, pairs: int = PUBLIC_PAIRS) -> Basis:
    """Make the basis of the shape that is attacked, of the world's population, which takes part in nothing.

    Args:
        base: Frozen base model.
        pairs: Number of public pairs.
    """
    given = {"update-basis": "public", "layers-of": base.card.layers, "layers": [3, 4]}
    settings = JobSettings.from_some(read_preset("quickstart") | given)
    return make_basis(base, settings, world_pairs(settings)[:pairs])


def updates_within_policy(edge: Edge, basis: Basis) -> torch.Tensor:
    """Return `UPDATES` updates of coordinates that the cloud chooses, (updates, numbers)."""
    found = []
    for number in range(UPDATES):
        drawn = torch.randn(basis.numbers, generator=torch.Generator().manual_seed(number))
        begun = Coordinates.of(basis, drawn * 0.5 * number / drawn.norm())
        settings = training(learning_rate=4e-2, clip_norm=0.25, weight_decay=0.0)
        found.append(edge.contribute_coordinates(begun, settings))
    return torch.stack(found)


def unguarded(edge: Edge, basis: Basis) -> torch.Tensor:
    """Return the gradient of the latest item's loss in the coordinates, (1, numbers)."""
    change = edge.contribute_coordinates(Coordinates.zero(basis), training(**GREEDY), "float32")
    step = change.double() / RATE
    return (EPSILON * step / (1 - step.abs()).clamp(min=1e-12))[None]


def read(
    base: BaseModel, basis: Basis, examples: Sequence[Example], updates: torch.Tensor, start: int
) -> float:
    """Read texts at shifted positions by the directions of updates, a person's own or another's.

    Args:
        base: Frozen base model.
        basis: The updates' basis.
        examples: The texts.
        updates: What changed in the coordinates, (updates, numbers).
        start: Tokens that all prompts begin with.

    Returns:
        Largest share of the tokens that one reader tells from decoys.
    """
    rows = torch.cat([Coordinates.of(basis, update.float()).A[0] for update in updates]).double()  # (n r, k)
    directions = torch.linalg.svd(rows, full_matrices=False).Vh
    right = torch.zeros(len(WIDTHS) * 4)
    count = 0
    for example in examples:
        rng = random.Random(str(example.prompt))
        for place in list(own_words(example, start))[-PLACES:]:
            tokens = candidates(base, example.prompt[place], rng)
            hidden = states(base, example.prompt[:place], tokens, basis.shape.layers[0])
            right += torch.tensor(
                [float((one[0] > one[1:]).all()) for one in _scores(hidden, basis, directions)]
            )
            count += 1
    return float(right.max() / count)


def _scores(hidden: torch.Tensor, basis: Basis, directions: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the score of each candidate (tokens,) by every reader; hidden: (tokens, d)."""
    shown = hidden @ basis.P[0].double().T  # (tokens, k)
    for seen in (shown, shown - shown.mean(0)):
        for width in WIDTHS:
            energy = (seen @ directions[:width].T).square().sum(1)
            yield energy / hidden.square().sum(1)
            yield energy / seen.square().sum(1)


def read_by_versions(
    edge: Edge, basis: Basis, examples: Sequence[Example], updates: Sequence[torch.Tensor], start: int
) -> list[float]:
    """Read texts by the updates that they would give with other tokens in a place.

    Args:
        edge: Whose model makes them.
        basis: The updates' basis.
        examples: The texts.
        updates: Updates (updates, numbers), of the person and of others.
        start: Tokens that all prompts begin with.

    Returns:
        Share of the tokens that are told from decoys, by each of the sets of updates.
    """
    right, count = [0] * len(updates), 0
    for example in examples:
        rng = random.Random(str(example.prompt))
        for place in list(own_words(example, start))[-_VERSION_PLACES:]:
            tokens = candidates(edge.agent.base, example.prompt[place], rng)[:VERSIONS]
            before, after = example.prompt[:place], example.prompt[place + 1 :]
            versions = [replace(example, prompt=(*before, token, *after)) for token in tokens]
            made = _made(edge, basis, versions)
            for number, seen in enumerate(updates):
                scores = torch.cosine_similarity(made, seen.sum(0)[None].float())
                right[number] += int((scores[0] > scores[1:]).all())
            count += 1
    return [each / count for each in right]


def _made(edge: Edge, basis: Basis, versions: Sequence[Example]) -> torch.Tensor:
    """Return what one small step on each text changes, exactly: (texts, numbers)."""
    jobs = [FitJob(Coordinates.zero(basis), [one], "") for one in versions]
    fit(jobs, training(**GREEDY), edge.agent.items)
    return torch.stack([job.shift.numbers / RATE for job in jobs])


def measure(base: BaseModel, folder: Path, people: int) -> Iterator[Reading]:
    """Read several people's texts; each one's chance is taken from the updates of the person before.

    Args:
        base: Frozen base model.
        folder: Folder for their files.
        people: Number of people, at least two.
    """
    basis = public(base)

    def edge(n: int, guarded: bool) -> Edge:
        return Edge.make(folder / f"{guarded}{n}", base, guarded=guarded, seed=f"reading-{n}", basis=basis)

    edges = [edge(n, True) for n in range(people)]
    updates = [updates_within_policy(one, basis) for one in edges]
    for n, one in enumerate(edges):
        examples = one.examples(24)
        start = shared_tokens(examples)
        texts, latest = examples[:TEXTS], examples[-1:]
        yield Reading(
            read(base, basis, latest, unguarded(edge(n, False), basis), start),
            read(base, basis, texts, updates[n], start),
            read(base, basis, texts, updates[n - 1], start),
            *read_by_versions(one, basis, texts, [updates[n], updates[n - 1]], start),
        )


def main() -> None:
    """Print the shares of tokens that are read, person by person."""
    parser = argparse.ArgumentParser(description="Tokens of a history that are read out of coordinates.")
    parser.add_argument("--base-model", default="embedded")
    parser.add_argument("--people", type=int, default=4, help="people of the synthetic world")
    arguments = parser.parse_args()
    base = load(arguments.base_model, device="cpu", dtype="float32")
    print("one item, no guard   within the policy   by another's   by candidates' updates   by another's")
    with TemporaryDirectory() as folder:
        for one in measure(base, Path(folder), arguments.people):
            columns = (one.unguarded, one.guarded, one.chance, one.made, one.made_chance)
            print("   ".join(f"{value:12.3f}" for value in columns), flush=True)


if __name__ == "__main__":
    main()
