"""How the clients' updates of each round differ, from which a prior over people is made.

A round's file holds the sum of the outer products of its updates about their mean, no update of its own. A
round that is run again after a kill writes its file again.
"""

from pathlib import Path

import torch

from fedperfit.protocol.people.scatter import Scatter
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic


class UpdateScatter:
    """The sums of one federation, a file for each round in a folder."""

    def __init__(self, folder: Path, basis: Basis) -> None:
        """Set up the sums.

        Args:
            folder: Folder of the files; made by the first write.
            basis: Basis of the updates.
        """
        self.folder, self.basis = folder, basis

    def record(self, number: int, changes: torch.Tensor) -> None:
        """Keep how the updates of a round differ.

        Args:
            number: The round.
            changes: What each client's training changed: (clients, n).
        """
        write_atomic(self._path(number), Scatter.of(self.basis.digest, changes).to_bytes())

    def total(self, rounds: int) -> Scatter:
        """Add up the rounds.

        Args:
            rounds: Number of the last round.

        Raises:
            InputError: Naming the file, if one is malformed.
        """
        numbers = self.basis.numbers
        total, count = torch.zeros(numbers, numbers, dtype=torch.double), 0
        for path in (self._path(number) for number in range(1, rounds + 1)):
            if not path.exists():
                continue
            try:
                kept = Scatter.from_bytes(path.read_bytes(), self.basis.digest, numbers)
            except InputError as error:
                raise InputError(f"{path}: {error}") from None
            total, count = total + kept.total, count + kept.count
        return Scatter(self.basis.digest, total, count)

    def _path(self, number: int) -> Path:
        return self.folder / f"scatter-{number:04d}.safetensors"
