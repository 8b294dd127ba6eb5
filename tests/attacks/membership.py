"""Membership inference: was this item among those that an update was made of?

The cloud is honest but curious: it sends an honest request, gets an honest update, and knows the broadcast
shift, the settings and the base model. For an item that it suspects it makes the update that this item alone
would give, and takes the cosine to the update it got. It is judged by the AUC: the probability that an item
that was used scores higher than one of the same person that was not; 0.5 is guessing.

    python -m tests.attacks.membership --people 8 --history 128 --sizes 1 8 24 64
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tests.attacks.cloud_requests import packed, shape, training
from tests.edge.edge_clients import write_client

from fedperfit.edge.agent.agent import Agent, contribute
from fedperfit.edge.agent.history import History, read_history, write_history
from fedperfit.edge.agent.outcome import Contribution
from fedperfit.edge.engine.items import ItemCache
from fedperfit.protocol.model.base_model import BaseModel, load
from fedperfit.protocol.shift.packing import unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.simulation.audit.attacks.items_in_updates import cosines
from fedperfit.simulation.audit.figures import area

DRAWS = 24
"""Items that are used, over all updates of one size and person."""


def updates(
    base: BaseModel, folder: Path, history: History, sets: Sequence[Sequence[int]], before: Shift
) -> torch.Tensor:
    """Make one honest update of each set of items.

    Args:
        base: Frozen base model.
        folder: Folder for the agents.
        history: The person's history.
        sets: Numbers of items, one list for each update.
        before: Broadcast shift.

    Returns:
        What each update changed in W and b, (sets, numbers).
    """
    agents = []
    for number, chosen in enumerate(sets):
        own = folder / f"{number}"
        items = [history.items[item] for item in chosen]
        write_history(own, replace(history, items=items, questions=[]))
        agents.append(Agent(own, base))
    settings = training(max_items=0)
    changed: dict[Agent, torch.Tensor] = {}
    for agent, done in contribute(agents, packed(before, base), settings, ItemCache(base)):
        assert isinstance(done, Contribution)
        after, _ = unpack(done.update)
        parts = [(after.W - before.W).flatten(), (after.b - before.b).flatten()]
        changed[agent] = torch.cat(parts).detach()
    return torch.stack([changed[agent] for agent in agents])


def membership(
    base: BaseModel, folder: Path, *, people: int, history: int, sizes: Sequence[int], rounds: int = 1
) -> Mapping[int, float]:
    """Measure the attack on people of the synthetic world.

    Args:
        base: Frozen base model.
        folder: Folder for their files.
        people: Number of people.
        history: Items of each; at most half of them are used, the others are the decoys.
        sizes: Numbers of items in an update.
        rounds: Updates of the same items that are read together, each of another broadcast shift.

    Returns:
        Mean AUC by the number of items.
    """
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for person in range(people):
        place = folder / f"p{person}"
        own = read_history(write_client(place, seed=f"member-{person}", items=history))
        shifts = [Shift.identity(shape(base), seed=1000 * person + number) for number in range(rounds)]
        single = [[item] for item in range(history)]
        alone = [updates(base, place / "alone", own, single, before) for before in shifts]
        for size in sizes:
            rng = random.Random(f"{person}/{size}")
            sets = [sorted(rng.sample(range(history), size)) for _ in range(max(1, DRAWS // size))]
            seen = [updates(base, place / f"{size}", own, sets, before) for before in shifts]
            for number, chosen in enumerate(sets):
                each = [cosines(a, s[number]) for a, s in zip(alone, seen, strict=True)]
                scores = [sum(of_one) for of_one in zip(*each, strict=True)]
                found[size].append(area(scores, [item in chosen for item in range(history)]))
    return {size: sum(values) / len(values) for size, values in found.items()}


def main() -> None:
    """Print the AUC for each number of items."""
    parser = argparse.ArgumentParser(description="AUC of the question whether an item was used.")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--history", type=int, default=128, help="items of each person, decoys included")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 24, 64])
    parser.add_argument("--rounds", type=int, default=1, help="updates of the same items, read together")
    arguments = parser.parse_args()
    base = load("embedded", device="cpu", dtype="float32")
    with TemporaryDirectory() as folder:
        measured = membership(
            base,
            Path(folder),
            people=arguments.people,
            history=arguments.history,
            sizes=arguments.sizes,
            rounds=arguments.rounds,
        )
    for size, value in measured.items():
        print(f"{size:4d} items: AUC {value:.3f}")


if __name__ == "__main__":
    main()
