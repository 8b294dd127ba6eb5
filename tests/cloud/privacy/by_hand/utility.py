"""How much of the collective shift's gain a promise of differential privacy keeps, over clients and seeds.

Trains the same clients of the world twice, in all rounds: without a promise, and with one. Compares the loss
on the latest items of people who took part in neither with the base model's, paired over people. Runs that
are in the folder already are taken as they are.

    python -m tests.cloud.privacy.by_hand.utility FOLDER --clients 200 --epsilon 2 --seeds 0 1 2
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from fedperfit.edge.agent.history import read_history
from fedperfit.edge.agent.side_by_side import shared_prefix
from fedperfit.edge.engine.examples import Example, encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.paths.check import checked
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.edge.engine.step import StepRow, step_losses
from fedperfit.protocol.model.base_model import load
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.tasks import Pair, PromptForm, Task
from fedperfit.protocol.trust.release_file import read_release

FEDPERFIT = [sys.executable, "-c", "from fedperfit.simulation.cli import main; main()"]
ROUNDS = ("transport-dtype=sign", "collective-learning-rate=1e-2", "rounds=4", "targets=1")
NO_STUDIES = ("history-lengths=[]", "collective-sizes=[]")
SETTINGS = (*ROUNDS, *NO_STUDIES, "update-basis=public", "new=40", "cache-gib=4")
"""Settings of the world's federations; a bound on the cache, for thousands of clients, changes no result."""
_ITEMS = 12
"""Latest items of a person whose loss is measured."""
_RESAMPLES = 10_000
_ROWS = 64


def train(folder: Path, settings: Sequence[str], *options: str) -> Path:
    """Run a federation, unless it is there already; returns its folder.

    Args:
        folder: Folder of the run.
        settings: Settings, each KEY=VALUE.
        options: Other options of `fedperfit simulate`.
    """
    if not (folder / "report.html").exists():
        chosen = [word for setting in settings for word in ("--set", setting)]
        again = ["--resume"] if (folder / "settings.json").exists() else [*options, *chosen]
        subprocess.run([*FEDPERFIT, "simulate", "--run-dir", str(folder), *again], check=True)
    return folder


class People:
    """People with pairs of theirs that trained nothing, on a run's base model."""

    def __init__(self, run: Path, task: Task, people: Sequence[Sequence[Pair]]) -> None:
        """Load the base model, and encode the pairs.

        Args:
            run: Folder of a run.
            task: Task of the pairs.
            people: Pairs of each person.
        """
        settings = read_json(run / "settings.json")
        self._base = load(settings["base-model"], device="cpu", dtype="float32")
        self._items = [encode(self._base, pairs) for pairs in people]
        self._prefix = shared_prefix(self._base, task, PromptForm(settings["prompt-form"]))
        self._cache = ItemCache(self._base)

    @classmethod
    def latest(cls, run: Path) -> Self:
        """Take the latest items of those in a run's folder who have held-out questions."""
        kept = [read_history(one) for one in sorted((run / "clients").iterdir()) if one.is_dir()]
        kept = [history for history in kept if history.questions]
        return cls(run, kept[0].task, [history.pairs(PromptForm.LAMP, _ITEMS) for history in kept])

    @torch.no_grad()
    def losses(self, shift: Shift) -> NDArray[np.float64]:
        """Mean loss (people,) in nats under a shift, of each person's items."""
        positions, layers = shift.shape.positions, shift.shape.layers
        path = checked(self._base, layers, positions).training
        means = []
        for items in self._items:
            prepared = self._cache.prepare([items], layers[0], positions, self._prefix, path)
            parts: list[torch.Tensor] = []
            for start in range(0, len(items), _ROWS):
                some: Sequence[Example] = items[start : start + _ROWS]
                stack = Stack((), Slab.of([shift] * len(some), self._base.device), False)
                rows = [StepRow(place, one, prepared.items[one]) for place, one in enumerate(some)]
                parts.append(step_losses(self._base, stack, prepared, rows))
            means.append(float(torch.cat(parts).mean()))
        return np.array(means)


def compare(folder: Path, seed: int, clients: int, epsilon: float, delta: float) -> NDArray[np.float64]:
    """Return losses (base, plain, private; people) of one seed, and print them."""
    sizes = (*SETTINGS, f"seed={seed}", f"others={clients}", f"clients-per-round={clients}")
    plain = train(folder / f"plain-{clients}-{seed}", sizes)
    promised = (*sizes, *promise(epsilon, delta))
    private = train(folder / f"epsilon-{epsilon:g}-{clients}-{seed}", promised)
    losses = losses_of(People.latest(plain), plain, private)
    tell(f"{clients} clients, seed {seed}, epsilon {epsilon:g}", losses)
    return losses


def promise(epsilon: float, delta: float) -> tuple[str, str]:
    """Return the settings of a promise."""
    return f"target-epsilon={epsilon}", f"target-delta={delta}"


def losses_of(people: People, *runs: Path) -> NDArray[np.float64]:
    """Return losses (1 + runs, people): of the base model, and of each run's collective shift."""
    shifts = [read_release(run / "release.safetensors").shift for run in runs]
    bare = Shift.identity(shifts[0].shape, seed=0)
    return np.stack([people.losses(shift) for shift in (bare, *shifts)])


def tell(what: str, losses: NDArray[np.float64]) -> None:
    """Print mean losses (base, plain, private; people) and the share of the gain that is kept."""
    base, plain, private = losses.mean(1)
    print(f"{what}: base {base:.4f}, plain {plain:.4f}, private {private:.4f}, {share(losses)}", flush=True)


def share(losses: NDArray[np.float64]) -> str:
    """Say which share of the gain is kept, with its 95 % bootstrap interval over people."""
    people = losses.shape[1]
    drawn = np.random.default_rng(0).integers(people, size=(_RESAMPLES, people))
    base, plain, private = losses[:, drawn].mean(2)
    low, high = np.quantile((base - private) / (base - plain), (0.025, 0.975))
    mean_base, mean_plain, mean_private = losses.mean(1)
    kept = (mean_base - mean_private) / (mean_base - mean_plain)
    return f"kept {kept:.2f} [{low:.2f}, {high:.2f}] of the gain on {people} people"


def main() -> None:
    """Run or resume, and print each seed's share and that of all."""
    parser = argparse.ArgumentParser(description="Which share of the gain a promise keeps.")
    parser.add_argument("folder", type=Path, help="folder for the runs")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--epsilon", type=float, default=2.0)
    parser.add_argument("--delta", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    asked = (given.clients, given.epsilon, given.delta)
    each = [compare(given.folder, seed, *asked) for seed in given.seeds]
    print(f"{given.clients} clients, epsilon {given.epsilon:g}: {share(np.concatenate(each, axis=1))}")


if __name__ == "__main__":
    main()
