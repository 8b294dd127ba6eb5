"""The basis of personal shifts, and the prior over people, as a release carries them."""

import json
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fedperfit.protocol.people.prior import Prior
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.system.errors import InputError

_METADATA = "people"
_RULE = {"floor": float, "strength": float, "items": int, "numbers": int}
_LATER = {"gives_way": "items"}
"""Parts of the rule that are left out where they are as before there was a choice."""


def _whole(rule: dict[str, Any]) -> bool:
    return not rule or set(_RULE) <= set(rule) <= set(_RULE) | set(_LATER)


@dataclass(frozen=True, eq=False)
class People:
    """The basis in which a release wants personal shifts, and the prior over them where it has one."""

    basis: Basis
    """The frozen R and P of personal shifts."""
    prior: Prior | None = None
    """How people differ in this basis; None where nothing is known."""

    def __post_init__(self) -> None:
        if self.prior is not None and self.prior.directions.shape[1] != self.basis.numbers:
            raise InputError(
                f"the prior over people has {self.prior.directions.shape[1]} coordinates, its basis "
                f"{self.basis.numbers}"
            )

    def factor(self) -> torch.Tensor:
        """Return the prior's L, which makes coordinates of z: (n, q), in the type of the basis.

        Raises:
            InputError: Without a prior.
        """
        if self.prior is None:
            raise InputError("nothing is known of how people differ in this basis")
        return self.prior.factor().to(self.basis.R.dtype)

    def check(self, header: ShiftHeader) -> None:
        """Refuse a basis and a prior that are not for a collective shift.

        Args:
            header: Description of the collective shift.

        Raises:
            InputError: Naming what differs.
        """
        for name, has, expected in (
            ("task", self.basis.task, header.task),
            ("base model", self.basis.fingerprint, header.fingerprint),
            ("shape", self.basis.shape, header.shape),
        ):
            if has != expected:
                raise InputError(f"the {name} of the personal basis is not its collective shift's")

    def to_bytes(self) -> bytes:
        """Encode as the bytes of a safetensors file."""
        tensors = {"basis": torch.frombuffer(bytearray(self.basis.to_bytes()), dtype=torch.uint8)}
        rule: dict[str, Any] = {}
        if self.prior is not None:
            tensors |= {"directions": self.prior.directions.contiguous(), "deviations": self.prior.deviations}
            rule = {name: getattr(self.prior, name) for name in sorted(_RULE)}
            later = {name: getattr(self.prior, name) for name in _LATER}
            rule |= {name: value for name, value in later.items() if value != _LATER[name]}
        return save(tensors, metadata={_METADATA: json.dumps(rule, sort_keys=True)})

    @classmethod
    def from_bytes(cls, data: bytes) -> "People":
        """Decode what `to_bytes` wrote.

        Raises:
            InputError: If the bytes are truncated or hold anything else.
        """
        try:
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            rule = json.loads(header["__metadata__"][_METADATA])
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, RecursionError):
            raise InputError("the prior over people is truncated, or not a safetensors file") from None
        wanted = {"basis", "directions", "deviations"} if rule else {"basis"}
        if set(tensors) != wanted or not isinstance(rule, dict) or not _whole(rule):
            raise InputError("the prior over people has missing or unknown parts")
        if tensors["basis"].dtype != torch.uint8:
            raise InputError("the basis of the prior over people is not bytes")
        basis = Basis.from_bytes(tensors["basis"].numpy().tobytes())
        if not rule:
            return cls(basis)
        if any(type(rule[name]) is not kind for name, kind in _RULE.items()):
            raise InputError("the rule of the prior over people is not made of numbers")
        if any(tensors[name].dtype != torch.float32 for name in ("directions", "deviations")):
            raise InputError("the prior over people is not in fp32")
        return cls(basis, Prior(tensors["directions"], tensors["deviations"], **rule))
