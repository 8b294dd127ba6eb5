"""Admitted updates in a file, so that a round's memory does not grow with the size of its updates.

What stays in memory of each is its client, its counts and where its numbers stand in the file; these are
read when the update is combined with the others, in whatever order the aggregation takes them.
"""

import tempfile
from dataclasses import dataclass

import numpy as np
import torch

from fedperfit.cloud.clients.admission import Update
from fedperfit.cloud.clients.coordinate_gate import CoordinateUpdate
from fedperfit.cloud.clients.memory_limits import WAITING_BYTES
from fedperfit.cloud.clients.metric_rules import Metric
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift


class UpdateFile:
    """Numbers of updates in fp32, one after another, in a file without a name that ends with this object."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=WAITING_BYTES)  # noqa: SIM115
        self._end = 0

    def put(self, *tensors: torch.Tensor) -> int:
        """Append the numbers of tensors in fp32; returns where they stand."""
        place = self._end
        self._file.seek(place)
        for tensor in tensors:
            self._end += self._file.write(tensor.detach().contiguous().numpy().tobytes())
        return place

    def get(self, place: int, numbers: int) -> torch.Tensor:
        """Return numbers in fp32.

        Args:
            place: Where they stand.
            numbers: How many they are.
        """
        self._file.seek(place)
        return torch.from_numpy(np.frombuffer(self._file.read(4 * numbers), np.float32).copy())


@dataclass(frozen=True, eq=False, slots=True)
class FiledShift:
    """An admitted whole shift, whose tensors are in a file."""

    client: str
    """Name of the client."""
    items: int
    """Weight of the client: its training pairs, capped."""
    metrics: dict[str, Metric]
    """Sums over all its pairs; empty if the owner shares none."""
    trained: int
    """Training pairs as the client counts them."""
    shape: ShiftShape
    """Shape of the shift."""
    file: UpdateFile
    """File that holds its tensors."""
    place: int
    """Where they stand in the file."""

    @classmethod
    def keep(cls, update: Update, file: UpdateFile) -> "FiledShift":
        """Put an update into a file."""
        shift = update.shift
        place = file.put(shift.R, shift.W, shift.b)
        return cls(update.client, update.items, update.metrics, update.trained, shift.shape, file, place)

    @property
    def shift(self) -> Shift:
        """The shift as it was admitted, to the bit."""
        shape = self.shape
        rows = len(shape.layers) * shape.rank
        size = rows * shape.hidden_size
        slab = (len(shape.layers), shape.rank, shape.hidden_size)
        R, W, b = self.file.get(self.place, 2 * size + rows).split([size, size, rows])
        return Shift(shape, R=R.reshape(slab), W=W.reshape(slab), b=b.reshape(slab[:2]))


@dataclass(frozen=True, eq=False, slots=True)
class FiledChange:
    """An admitted change of coordinates, whose numbers are in a file."""

    client: str
    """Name of the client."""
    items: int
    """Weight of the client: its training pairs, capped."""
    metrics: dict[str, Metric]
    """Sums over all its pairs; empty if the owner shares none."""
    trained: int
    """Training pairs as the client counts them."""
    numbers: int
    """Number n of coordinates."""
    file: UpdateFile
    """File that holds the change."""
    place: int
    """Where it stands in the file."""

    @classmethod
    def keep(cls, update: CoordinateUpdate, file: UpdateFile) -> "FiledChange":
        """Put an update into a file."""
        place = file.put(update.change)
        numbers = len(update.change)
        return cls(update.client, update.items, update.metrics, update.trained, numbers, file, place)

    @property
    def change(self) -> torch.Tensor:
        """What the client's training changed in the coordinates: (n,) fp32."""
        return self.file.get(self.place, self.numbers)
