"""Updates as whole numbers, so that their sum is exact: what can be added up under a seal.

    sign       a vote, +1 or -1 (0 for a change of nothing)
    float32    clipped to the norm C; units of C / 2^20, rounded towards zero; coarser above 1,023 clients
    int8, int4 clipped to C; 127 or 7 steps either way of a range of about 4 C / sqrt(n), rounded at random

No rounding lets the norm grow beyond C, and all units are powers of two, as `cloud.privacy.mechanism` needs.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedperfit.protocol.secure_sums.field import Elements, PrimeField
from fedperfit.protocol.system.errors import InputError

if TYPE_CHECKING:
    import torch  # settings name the encodings, and start without it

VOTES = "sign"
_FINE_BITS = 20
_LARGEST_SUM = 2**30 - 1
_STEPS = {"int8": 128, "int4": 8}
"""Steps of a range, of which the last is left out."""
CODECS = (VOTES, "float32", *_STEPS)
"""Encodings of updates that sums can be made of."""
_SPREAD = 4.0
"""Range of a number, in what each has where all are alike."""
_DRAWS = 20


@dataclass(frozen=True)
class FixedPoint:
    """How the numbers of one round become whole ones."""

    codec: str
    """Encoding, one of CODECS."""
    numbers: int
    """Numbers of an update, n."""
    addends: int
    """Largest number of updates in a sum."""

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise InputError(
                f"transport-dtype={self.codec}: sums need an encoding of fixed points: {', '.join(CODECS)}"
            )

    @property
    def unit(self) -> float:
        """What a step is worth, in clipping norms; for votes, in votes."""
        if self.codec == VOTES:
            return 1.0
        if self.codec in _STEPS:
            spread = min(1.0, 2.0 ** math.ceil(math.log2(_SPREAD / math.sqrt(self.numbers))))
            return spread / _STEPS[self.codec]
        return 2.0 ** -min(_FINE_BITS, int(math.log2(_LARGEST_SUM / self.addends)))

    @property
    def most(self) -> int:
        """Largest whole number of one update."""
        if self.codec == VOTES:
            return 1
        return _STEPS[self.codec] - 1 if self.codec in _STEPS else round(1 / self.unit)

    @property
    def field(self) -> PrimeField:
        """Field that tells all sums apart."""
        return PrimeField.holding(self.addends * self.most)

    def encode(self, change: "torch.Tensor", norm: float, seed: int) -> Elements:
        """Return the whole numbers of an update.

        Args:
            change: (n,) what training changed.
            norm: Clipping norm C; votes have none.
            seed: Seed of the rounding at random.

        Returns:
            (n,) whole numbers, each at most `most` either way.

        Raises:
            InputError: If a number is not finite.
        """
        if not bool(change.isfinite().all()):
            raise InputError("numbers that are not finite cannot be encoded")
        values = change.detach().cpu().double().numpy()
        if self.codec == VOTES:
            return _whole(np.sign(values))
        steps = values / max(float(np.linalg.norm(values)), norm) / self.unit
        if self.codec in _STEPS:
            return self._rounded(np.clip(steps, -self.most, self.most), np.random.default_rng(seed))
        return _whole(np.trunc(steps))

    def _rounded(self, steps: np.ndarray, draws: np.random.Generator) -> Elements:
        for _ in range(_DRAWS):
            whole = np.floor(steps + draws.random(len(steps)))
            if np.linalg.norm(whole) * self.unit <= 1:
                return _whole(whole)
        return _whole(np.trunc(steps))

    def decode(self, total: Elements, addends: int) -> "torch.Tensor":
        """Return a sum of updates, in clipping norms or votes.

        Args:
            total: (n,) whole numbers.
            addends: Number of updates in it.

        Returns:
            (n,) float64.

        Raises:
            InputError: If it is larger than so many updates can make it.
        """
        if bool((np.abs(total) > addends * self.most).any()):
            raise InputError(f"a sum is beyond what {addends} honest clients can add up to")
        import torch

        return torch.from_numpy(total * self.unit)


def _whole(steps: np.ndarray) -> Elements:
    whole: Elements = steps.astype(np.int64)
    return whole
