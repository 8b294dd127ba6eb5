"""Arithmetic modulo a prime, on numpy's whole numbers.

A prime is the largest below a power of 256, so that an element takes one to three bytes, or 2^31 - 1, so that
a product fits into 63 bits.
"""

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedperfit.protocol.system.errors import InputError

Elements = npt.NDArray[np.int64]
"""Elements of a field, each in 0..prime - 1."""


@dataclass(frozen=True)
class PrimeField:
    """The whole numbers modulo a prime."""

    prime: int
    """The modulus, at most 2^31 - 1."""
    width: int
    """Bytes of an element."""

    @classmethod
    def holding(cls, most: int) -> "PrimeField":
        """Return the smallest field that tells all whole numbers from -most to most apart.

        Raises:
            InputError: If none does.
        """
        for field in FIELDS:
            if 2 * most < field.prime:
                return field
        raise InputError(f"sums of up to {most} do not fit into a field of 31 bits")

    def matmul(self, left: Elements, right: Elements) -> Elements:
        """Multiply two matrices, (a, b) and (b, c), of fewer than 2^31 columns each."""
        product = np.zeros((left.shape[0], right.shape[1]), np.int64)
        for column, row in zip(left.T, right, strict=True):
            product += np.outer(column, row) % self.prime
        return product % self.prime

    def inverse(self, element: int) -> int:
        """Return the reciprocal of an element that is not zero."""
        return pow(element, -1, self.prime)

    def random(self, rows: int, columns: int) -> Elements:
        """Draw uniform elements (rows, columns) from the operating system."""
        count, mask = rows * columns, (1 << self.prime.bit_length()) - 1
        drawn = np.zeros(0, np.int64)
        while len(drawn) < count:
            words = np.frombuffer(os.urandom(4 * (count + 16)), "<u4").astype(np.int64) & mask
            drawn = np.concatenate([drawn, words[words < self.prime]])
        return drawn[:count].reshape(rows, columns)

    def signed(self, elements: Elements) -> Elements:
        """Return the whole numbers nearest to zero that elements stand for."""
        return np.where(elements > self.prime // 2, elements - self.prime, elements)

    def to_bytes(self, elements: Elements) -> bytes:
        """Encode a vector (n,), little endian."""
        return elements.astype("<u4").view(np.uint8).reshape(-1, 4)[:, : self.width].tobytes()

    def from_bytes(self, data: bytes, count: int) -> Elements:
        """Decode a vector (count,); raises InputError for a wrong length or what is no element."""
        if len(data) != count * self.width:
            raise InputError(f"{len(data)} bytes of shares, expected {count * self.width}")
        words = np.zeros((count, 4), np.uint8)
        words[:, : self.width] = np.frombuffer(data, np.uint8).reshape(count, self.width)
        elements = words.reshape(-1).view("<u4").astype(np.int64)
        if bool((elements >= self.prime).any()):
            raise InputError(f"a share is not below {self.prime}")
        return elements


FIELDS = (
    PrimeField(251, 1),
    PrimeField(65_521, 2),
    PrimeField(16_777_213, 3),
    PrimeField(2**31 - 1, 4),
)
"""All fields, the smallest first."""
