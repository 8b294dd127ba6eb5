"""The personal shift: a shift that cannot be written, copied or sent by generic code.

Only `edge.vault.vault` reads its tensors, and `edge.vault.export` at its owner's command. Pickling (and so
`torch.save`, `copy.deepcopy`, Ray and multiprocessing), `state_dict` (and so safetensors and every checkpoint
helper), packing and printing all refuse.
"""

from typing import Any, NoReturn

from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift


class PersonalShift(Shift):
    """Shift of one person, fitted in PerFit's stage 2 on top of the frozen collective shift."""

    @classmethod
    def start(cls, shape: ShiftShape, *, seed: int) -> "PersonalShift":
        """A new shift that changes nothing yet (W = R, b = 0).

        Args:
            shape: layers, rank, hidden size and positions.
            seed: of the random rows of R.
        """
        origin = Shift.identity(shape, seed=seed)
        return cls(shape, R=origin.R.data, W=origin.W.data, b=origin.b.data)

    @classmethod
    def of_coordinates(cls, coordinates: Coordinates) -> "PersonalShift":
        """The shift that a person's coordinates in a basis stand for.

        Args:
            coordinates: the person's own.
        """
        plain = coordinates.shift()
        return cls(plain.shape, R=plain.R.data, W=plain.W.data, b=plain.b.data)

    def _refuse(self) -> NoReturn:
        raise TypeError("a personal shift does not leave the edge")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        self._refuse()

    def __getstate__(self) -> NoReturn:
        self._refuse()

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse with a TypeError: tensors of a personal shift are not handed out."""
        self._refuse()

    def __repr__(self) -> str:
        return "PersonalShift()"


class PersonalCoordinates(Coordinates):
    """Coordinates of one person's shift in a frozen basis, as little to be handed out as the shift."""

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a personal shift does not leave the edge")

    def __repr__(self) -> str:
        return "PersonalCoordinates()"
