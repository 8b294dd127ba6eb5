"""Encodings of a vector of numbers, down to one bit each.

    float32, bfloat16   the numbers
    int8, int4          one scale s = max |x| / most, then round(x / s), rounded up or down at random with the
                        mean of x / s: unbiased (QSGD, Alistarh et al., 2017); two numbers of int4 in a byte
    sign                one scale s = mean |x|, then the sign of each number (signSGD, Bernstein et al., 2018)

Scales are bfloat16. There is no header: what the bytes mean, both sides have agreed on before.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fedperfit.protocol.system.errors import InputError

_SCALE_BYTES = 2
MOST = {"int8": 127, "int4": 7}
"""Largest whole number of an encoding."""


@dataclass(frozen=True)
class Codec:
    """A way to write a vector of numbers as bytes."""

    bits: int
    """Bits that one number takes."""
    scaled: bool
    """Whether a scale stands before the numbers."""
    encode: Callable[[torch.Tensor, torch.Generator], bytes]
    """Encodes a vector (n,) fp32, drawing from the generator where it rounds at random."""
    decode: Callable[[bytes, int], torch.Tensor]
    """Decodes a vector of a known length."""

    def size(self, numbers: int) -> int:
        """Return the bytes of so many encoded numbers, scale included."""
        return _SCALE_BYTES * self.scaled + (self.bits * numbers + 7) // 8


def encode(codec: str, values: torch.Tensor, seed: int) -> bytes:
    """Encode a vector.

    Args:
        codec: One of CODECS.
        values: (n,) finite numbers.
        seed: Seed of the random rounding.

    Raises:
        InputError: If a number is not finite.
    """
    if not bool(values.isfinite().all()):
        raise InputError("numbers that are not finite cannot be encoded")
    return CODECS[codec].encode(values.detach().cpu().float(), torch.Generator().manual_seed(seed))


def decode(codec: str, data: bytes, numbers: int) -> torch.Tensor:
    """Decode what `encode` made.

    Args:
        codec: One of CODECS.
        data: The bytes.
        numbers: Length of the vector.

    Returns:
        (n,) fp32.

    Raises:
        InputError: If there are too few or too many bytes.
    """
    expected = CODECS[codec].size(numbers)
    if len(data) != expected:
        raise InputError(f"{len(data)} bytes of {numbers} {codec} numbers, expected {expected}")
    return CODECS[codec].decode(data, numbers)


def _float_bytes(values: torch.Tensor, dtype: torch.dtype) -> bytes:
    return values.to(dtype).contiguous().view(torch.uint8).numpy().tobytes()


def _floats(data: bytes, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy()).view(dtype).float()


def _plain(dtype: torch.dtype) -> Codec:
    return Codec(
        bits=8 * dtype.itemsize,
        scaled=False,
        encode=lambda values, generator: _float_bytes(values, dtype),
        decode=lambda data, numbers: _floats(data, dtype),
    )


def _scale_of(data: bytes) -> float:
    """Decode the scale that stands first; raises InputError where no honest encoder wrote it."""
    scale = float(_floats(data[:_SCALE_BYTES], torch.bfloat16))
    if not 0 <= scale < float("inf"):
        raise InputError(f"a scale of {scale:g}: expected a finite number of at least 0")
    return scale


def _rounded(values: torch.Tensor, most: int, generator: torch.Generator) -> tuple[bytes, np.ndarray]:
    """Return the scale and the whole numbers (n,) int8 in -most..most."""
    wanted = values.abs().amax().reshape(1) / most
    data = _float_bytes(wanted, torch.bfloat16)
    if _scale_of(data) < float(wanted):  # rounded down, it would cut the largest numbers
        data = _float_bytes(wanted * (1 + 2**-7), torch.bfloat16)
    scale = _scale_of(data)
    if scale == 0:
        return data, np.zeros(len(values), np.int8)
    draws = torch.rand(values.shape, generator=generator)
    whole = torch.floor(values / scale + draws).clamp(-most, most)
    return data, whole.to(torch.int8).numpy()


def _encode_int8(values: torch.Tensor, generator: torch.Generator) -> bytes:
    scale, whole = _rounded(values, MOST["int8"], generator)
    return scale + whole.tobytes()


def _decode_int8(data: bytes, numbers: int) -> torch.Tensor:
    scale = _scale_of(data)
    return scale * torch.from_numpy(np.frombuffer(data, np.int8, offset=_SCALE_BYTES).copy())


def _encode_int4(values: torch.Tensor, generator: torch.Generator) -> bytes:
    scale, whole = _rounded(values, MOST["int4"], generator)
    nibbles = np.zeros(len(whole) + len(whole) % 2, np.uint8)
    nibbles[: len(whole)] = whole.astype(np.uint8) & 0xF
    return scale + (nibbles[::2] | nibbles[1::2] << 4).tobytes()


def _decode_int4(data: bytes, numbers: int) -> torch.Tensor:
    scale = _scale_of(data)
    packed = np.frombuffer(data, np.uint8, offset=_SCALE_BYTES)
    nibbles = np.stack([packed & 0xF, packed >> 4], axis=1).reshape(-1)[:numbers].astype(np.int8)
    return scale * torch.from_numpy(np.where(nibbles > MOST["int4"], nibbles - 16, nibbles).astype(np.int8))


def _encode_sign(values: torch.Tensor, generator: torch.Generator) -> bytes:
    scale = _float_bytes(values.abs().mean().reshape(1), torch.bfloat16)
    return scale + np.packbits((values > 0).numpy(), bitorder="little").tobytes()


def _decode_sign(data: bytes, numbers: int) -> torch.Tensor:
    scale = _scale_of(data)
    packed = np.frombuffer(data, np.uint8, offset=_SCALE_BYTES)
    bits = np.unpackbits(packed, count=numbers, bitorder="little")
    return scale * torch.from_numpy(bits.astype(np.float32) * 2 - 1)


CODECS: dict[str, Codec] = {
    "float32": _plain(torch.float32),
    "bfloat16": _plain(torch.bfloat16),
    "int8": Codec(8, True, _encode_int8, _decode_int8),
    "int4": Codec(4, True, _encode_int4, _decode_int4),
    "sign": Codec(1, True, _encode_sign, _decode_sign),
}
"""Encodings by the name of the setting `transport-dtype`."""
