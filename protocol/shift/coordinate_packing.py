"""Coordinates as they travel: four bytes that tell what was agreed on, then numbers.

Down: tag, number of the rounds behind the coordinates (4 bytes, little endian), coordinates in fp32. Up: tag,
then what the client's training changed in them, in one of `protocol.shift.codecs`. Both sides know basis,
codec and round; the tag only tells that they know the same ones.
"""

import hashlib
import struct
from dataclasses import dataclass

import torch

from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.codecs import decode, encode
from fedperfit.protocol.system.errors import InputError

TAG_BYTES = 4
"""Bytes of a tag."""
_PREFIX_BYTES = TAG_BYTES + 4


@dataclass(frozen=True)
class Agreement:
    """What cloud and edge have agreed on before an update travels."""

    basis: str
    """Digest of the basis."""
    codec: str
    """Encoding of updates, one of `CODECS`."""
    round: int
    """Number of the rounds behind the coordinates that were broadcast."""

    @property
    def tag(self) -> bytes:
        """First bytes of the SHA-256 of all that."""
        text = f"{self.basis}/{self.codec}/{self.round}"
        return hashlib.sha256(text.encode()).digest()[:TAG_BYTES]


def pack_coordinates(coordinates: Coordinates, agreement: Agreement) -> bytes:
    """Pack the collective shift's coordinates for a broadcast.

    Args:
        coordinates: Coordinates after the last round.
        agreement: Of the round that begins.
    """
    values = encode("float32", coordinates.numbers, seed=0)
    return agreement.tag + struct.pack("<I", agreement.round) + values


def unpack_coordinates(data: bytes, basis: Basis, codec: str) -> tuple[Coordinates, Agreement]:
    """Unpack a broadcast; the inverse of `pack_coordinates`.

    Args:
        data: The broadcast.
        basis: The basis that it names.
        codec: The encoding that updates shall have.

    Raises:
        InputError: If it is malformed, not finite, or of another basis or codec.
    """
    if len(data) < _PREFIX_BYTES:
        raise InputError("packed coordinates are truncated")
    agreement = Agreement(basis.digest, codec, struct.unpack("<I", data[TAG_BYTES:_PREFIX_BYTES])[0])
    if data[:TAG_BYTES] != agreement.tag:
        raise InputError("the coordinates belong to another basis or codec")
    numbers = decode("float32", data[_PREFIX_BYTES:], basis.numbers)
    if not bool(numbers.isfinite().all()):
        raise InputError("the coordinates are not finite")
    return Coordinates.of(basis, numbers), agreement


def broadcast_numbers(data: bytes) -> torch.Tensor:
    """Return the numbers (n,) of a broadcast whose basis is not at hand; raises InputError for a cut one."""
    values = data[_PREFIX_BYTES:]
    return decode("float32", values, len(values) // 4)


def pack_update(change: torch.Tensor, agreement: Agreement, seed: int) -> bytes:
    """Pack what a client's training changed.

    Args:
        change: (n,) differences of the coordinates.
        agreement: That of the broadcast.
        seed: Seed of the codec's rounding.

    Raises:
        InputError: If a difference is not finite.
    """
    return agreement.tag + encode(agreement.codec, change, seed)


def unpack_update(data: bytes, agreement: Agreement, numbers: int) -> torch.Tensor:
    """Unpack an update; the inverse of `pack_update`, up to the codec's rounding.

    Args:
        data: The update.
        agreement: That of the broadcast it answers.
        numbers: Number of coordinates.

    Returns:
        (n,) fp32 differences, finite.

    Raises:
        InputError: If it is malformed, not finite, or answers another broadcast.
    """
    if data[:TAG_BYTES] != agreement.tag:
        raise InputError("the update belongs to another basis, codec or round")
    change = decode(agreement.codec, data[TAG_BYTES:], numbers)
    if not bool(change.isfinite().all()):
        raise InputError("the update is not finite")
    return change
