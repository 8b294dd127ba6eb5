"""The frozen basis that a person's folder keeps, so that the cloud sends it once."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fedperfit.protocol.messages.settings import CoordinateSettings
from fedperfit.protocol.messages.sums import SumSettings
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic

BASIS = "update.basis"
"""File in a person's folder with the basis that the cloud sent last."""


class BasisLacking(InputError):
    """The basis was not sent and is not kept here: the cloud sends it again."""


@dataclass(frozen=True)
class CoordinateRequest:
    """A broadcast in a basis, as the cloud sent it."""

    packed: bytes
    """The coordinates, packed for the broadcast."""
    wanted: CoordinateSettings
    """Digest of the basis, codec of the update."""
    basis: bytes = b""
    """The encoded basis; empty where the cloud believes that it is kept here."""
    sums: SumSettings | None = None
    """Terms of the sum that the update is sealed for; None where it travels open."""


class BasisFile:
    """The basis that a person's folder keeps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        """File of the encoded basis; missing before the first."""

    def find(self, request: CoordinateRequest) -> Basis:
        """Return the basis of a request, and keep it where it came with it.

        Raises:
            BasisLacking: It did not come, and another one or none is kept.
            InputError: What came is not the basis that the request names.
        """
        if request.basis:
            if hashlib.sha256(request.basis).hexdigest() != request.wanted.basis:
                raise InputError("the basis does not match its digest")
            basis = _parsed(request.basis)
            if not self.path.exists() or self.path.read_bytes() != request.basis:
                write_atomic(self.path, request.basis)
            return basis
        kept = self.path.read_bytes() if self.path.exists() else b""
        if hashlib.sha256(kept).hexdigest() != request.wanted.basis:
            raise BasisLacking(f"the basis {request.wanted.basis[:16]} is not here")
        return _parsed(kept)


@lru_cache(maxsize=2)
def _parsed(data: bytes) -> Basis:
    return Basis.from_bytes(data)
