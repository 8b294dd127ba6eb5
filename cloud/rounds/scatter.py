"""How the clients' updates of each round differ, from which a prior over people is made.

A round's file holds the sum of the outer products of its updates about their mean, no update of its own. Each
counts with the length of the median one at most, so that no client alone decides how people differ. A round
that is run again after a kill writes its file again.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic

MOST_NUMBERS = 2048
"""Coordinates whose outer products are summed, at most."""


class UpdateScatter:
    """The sums of one federation, a file for each round in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Folder of the files; made by the first write."""

    def record(self, number: int, changes: torch.Tensor) -> None:
        """Keep how the updates of a round differ.

        Args:
            number: The round.
            changes: What each client's training changed: (clients, n).
        """
        centred = changes.double() - changes.double().mean(dim=0)
        lengths = centred.norm(dim=1)
        scales = (lengths.median() / lengths.clamp(min=1e-30)).clamp(max=1.0)
        bounded = centred * scales[:, None]
        counts = torch.tensor([max(len(changes) - 1, 0)])
        write_atomic(self._path(number), save({"sum": (bounded.T @ bounded).float(), "count": counts}))

    def total(self, numbers: int, rounds: int) -> tuple[torch.Tensor, int]:
        """Add up the rounds.

        Args:
            numbers: Number n of coordinates.
            rounds: Number of the last round.

        Returns:
            The sum of outer products (n, n) fp64, and its degrees of freedom.

        Raises:
            InputError: Naming the file, if one is malformed.
        """
        total, count = torch.zeros(numbers, numbers, dtype=torch.double), 0
        for path in (self._path(number) for number in range(1, rounds + 1)):
            if not path.exists():
                continue
            try:
                kept = load(path.read_bytes())
                total += kept["sum"].double()
                count += int(kept["count"])
            except (SafetensorError, KeyError, RuntimeError, ValueError):
                raise InputError(f"{path}: not what differed between {numbers} coordinates") from None
        return total, count

    def _path(self, number: int) -> Path:
        return self.folder / f"scatter-{number:04d}.safetensors"
