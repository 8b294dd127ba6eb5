"""The size of a shift and where it acts; known without torch."""

from dataclasses import dataclass

from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.system.errors import InputError


@dataclass(frozen=True)
class ShiftShape:
    """The layers and positions a shift acts on, and its size."""

    layers: tuple[int, ...]
    """Decoder layers whose output is shifted, ascending, counted from 0."""
    rank: int
    """Rank r, the rows of R and W in each layer."""
    hidden_size: int
    """Hidden size d of the base model."""
    positions: Positions
    """Prompt positions the shift acts on."""

    def __post_init__(self) -> None:
        if self.hidden_size < 1:
            raise InputError(f"hidden_size={self.hidden_size}: must be at least 1")
        if not 1 <= self.rank <= self.hidden_size:
            raise InputError(f"rank={self.rank} is outside 1..{self.hidden_size}, the hidden size")
        if not self.layers:
            raise InputError("layers is empty: a shift needs at least one layer")
        if list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise InputError(f"layers={self.layers}: must be distinct, ascending and not negative")

    @property
    def parameters(self) -> int:
        """Number of parameters, n (2 r d + r) for n layers (reference: PerFit's parameter table)."""
        return len(self.layers) * (2 * self.rank * self.hidden_size + self.rank)

    def check_depth(self, depth: int) -> None:
        """Raise InputError if a layer lies beyond a model of `depth` decoder layers."""
        if self.layers[-1] >= depth:
            raise InputError(
                f"layer {self.layers[-1]} is beyond the base model, whose layers are 0..{depth - 1}"
            )

    def check_effect(self, depth: int) -> None:
        """Raise InputError if such a shift could change no answer of a model of `depth` layers."""
        if self.layers[0] == depth - 1 and not self.positions.last:
            raise InputError(
                f"positions={self.positions} after the last layer change no answer: shift a lower one"
            )
