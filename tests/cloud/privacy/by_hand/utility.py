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
from fedperfit.protocol.model.base_model import EMBEDDED, load
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.tasks import PromptForm
from fedperfit.protocol.trust.release_file import read_release

FEDPERFIT = [sys.executable, "-c", "from fedperfit.simulation.cli import main; main()"]
SETTINGS = (
    *("update-basis=public", "transport-dtype=sign", "collective-learning-rate=1e-2", "rounds=4"),
    *("targets=1", "new=40", "history-lengths=[]", "collective-sizes=[]"),
)
_ITEMS = 12
"""Latest items of a person whose loss is measured."""
_RESAMPLES = 10_000
_ROWS = 64


def train(folder: Path, seed: int, clients: int, *promise: str) -> Path:
    """Run a federation of the world, unless it is there already; returns its release."""
    release = folder / "release.safetensors"
    if not (folder / "report.html").exists():
        sizes = (f"seed={seed}", f"others={clients}", f"clients-per-round={clients}")
        chosen = [word for setting in (*SETTINGS, *sizes, *promise) for word in ("--set", setting)]
        again = ["--resume"] if (folder / "settings.json").exists() else chosen
        subprocess.run([*FEDPERFIT, "simulate", "--run-dir", str(folder), *again], check=True)
    return release


class People:
    """People of a run who trained nothing, with their latest items."""

    def __init__(self, folder: Path) -> None:
        """Read those of a run's folder who have held-out questions, and load the base model."""
        self._base = load(EMBEDDED, device="cpu", dtype="float32")
        kept = [read_history(one) for one in sorted((folder / "clients").iterdir()) if one.is_dir()]
        kept = [history for history in kept if history.questions]
        self._items = [encode(self._base, history.pairs(PromptForm.LAMP, _ITEMS)) for history in kept]
        self._prefix = shared_prefix(self._base, kept[0].task, PromptForm.LAMP)
        self._cache = ItemCache(self._base)

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
    promise = (f"target-epsilon={epsilon}", f"target-delta={delta}")
    plain = train(folder / f"plain-{clients}-{seed}", seed, clients)
    private = train(folder / f"epsilon-{epsilon:g}-{clients}-{seed}", seed, clients, *promise)
    shifts = [read_release(path).shift for path in (plain, private)]
    people = People(plain.parent)
    bare = Shift.identity(shifts[0].shape, seed=0)
    losses = np.stack([people.losses(shift) for shift in (bare, *shifts)])
    base, without, kept = losses.mean(1)
    told = f"base {base:.4f}, plain {without:.4f}, epsilon={epsilon:g} {kept:.4f}, {share(losses)}"
    print(f"{clients} clients, seed {seed}: {told}", flush=True)
    return losses


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
