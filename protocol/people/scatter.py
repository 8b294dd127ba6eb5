"""How people differ in a basis, as a sum that a prior over people is made of."""

import json
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fedperfit.protocol.system.errors import InputError

MOST_NUMBERS = 2048
"""Coordinates whose outer products are summed, and that a prior over people is of, at most."""


@dataclass(frozen=True, eq=False)
class Scatter:
    """The outer products of people's coordinates about their mean, summed; no person's own are kept."""

    basis: str
    """Digest of the basis."""
    total: torch.Tensor
    """The sum: (n, n) fp64."""
    count: int
    """Degrees of freedom: the people less one for each mean."""

    @classmethod
    def of(cls, basis: str, numbers: torch.Tensor) -> "Scatter":
        """Sum what differs between people.

        Each counts with the length of the median one at most, so that nobody alone decides how people differ.

        Args:
            basis: Digest of the basis.
            numbers: Coordinates of people, or what training changed in them: (people, n).
        """
        centred = numbers.double() - numbers.double().mean(dim=0)
        lengths = centred.norm(dim=1)
        scales = (lengths.median() / lengths.clamp(min=1e-30)).clamp(max=1.0)
        bounded = centred * scales[:, None]
        return cls(basis, bounded.T @ bounded, max(len(numbers) - 1, 0))

    def to_bytes(self) -> bytes:
        """Encode as the bytes of a safetensors file, in fp32."""
        tensors = {"sum": self.total.float(), "count": torch.tensor([self.count])}
        return save(tensors, metadata={"basis": json.dumps(self.basis)})

    @classmethod
    def from_bytes(cls, data: bytes, basis: str, numbers: int) -> "Scatter":
        """Decode what `to_bytes` wrote.

        Args:
            data: The bytes.
            basis: Digest of the basis that it must be in.
            numbers: Coordinates of that basis.

        Raises:
            InputError: If the bytes are malformed, or of another basis.
        """
        try:
            kept = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            told = header.get("__metadata__", {}).get("basis", json.dumps(basis))  # earlier runs told none
            made = cls(json.loads(told), kept["sum"].double(), int(kept["count"]))
        except (
            SafetensorError,
            KeyError,
            RuntimeError,
            ValueError,
            TypeError,
            AttributeError,
            RecursionError,
        ):
            raise InputError("not what differs between people") from None
        if made.basis != basis or made.total.shape != (numbers, numbers):
            raise InputError(f"how people differ in another basis than this one of {numbers} coordinates")
        if made.count < 0 or not bool(made.total.isfinite().all()):
            raise InputError("what differs between people is not made of finite numbers")
        return made
