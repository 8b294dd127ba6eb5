"""Looks for the numbers of personal shifts in bytes that leave, so that none being there is measured.

Found are, of R, W and b:

- numbers in float16, bfloat16, float32 or float64, in either byte order, where 16 bytes in a row are those of
  neighbours in a row or a column (8 bytes in float64);
- all of a tensor, or of its part for one layer, in an encoding of updates (`protocol.shift.codecs`), however
  it was rounded;
- decimal numbers with seven digits or more.

Not found are fewer numbers than these, and what was computed from them, encrypted or compressed. Numbers
that the cloud itself has sent are none of a person's.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.shift.codecs import CODECS, MOST, decode, encode
from fedperfit.protocol.system.errors import InputError

_FLOATS = {torch.float16: 16, torch.bfloat16: 16, torch.float32: 16, torch.float64: 8}
"""Bytes in a row that are looked for, by number format."""
_HEAD = 8
"""Bytes of these that are compared with all others at once."""
_FEWEST_VALUES = 4
"""Different bytes below which bytes in a row tell nothing; zeros are everywhere."""
_FEWEST_BITS = 64
"""Length below which an encoded tensor may be there by chance."""
_DECIMAL = re.compile(rb"-?\d+\.\d+(?:[eE][-+]?\d+)?")
_DIGITS = 7
_RELATIVE = 1e-6
"""Difference of a decimal number with seven digits from what it was."""


class Traces:
    """Numbers of personal shifts, to be looked for in messages."""

    def __init__(self, shifts: Iterable[PersonalShift]) -> None:
        """Take the tensors.

        Args:
            shifts: personal shifts of one person.
        """
        self._tensors = [
            tensor.detach().cpu().float() for shift in shifts for tensor in (shift.R, shift.W, shift.b)
        ]

    @classmethod
    def of(cls, vault: Vault, slots: Iterable[str]) -> Self:
        """Open slots of a vault.

        Args:
            vault: the person's own.
            slots: names of slots that hold a shift.

        Raises:
            InputError: a shift is missing or was changed.
        """
        return cls(vault.open(slot)[1] for slot in slots)

    def bytes_in(self, data: bytes, known: bytes = b"") -> int:
        """Count the bytes of `data` that are numbers of these shifts.

        Args:
            data: a message that leaves.
            known: what the cloud has sent, whose numbers are not counted.
        """
        found = np.zeros(len(data), bool)
        for length in {length for length in _FLOATS.values() if length <= len(data)}:
            wanted = np.concatenate([*self._windows(length), np.empty((0, length), np.uint8)])
            for place in _places(data, wanted, known):
                found[place : place + length] = True
        for start, end in (*self._encoded_in(data), *self._decimals_in(data)):
            if data[start:end] not in known:
                found[start:end] = True
        return int(found.sum())

    def _windows(self, length: int) -> Iterator[NDArray[np.uint8]]:
        """Bytes in a row (n, length) of the tensors, row by row and column by column, in each format."""
        for tensor in self._tensors:
            orders = [tensor] if tensor.ndim < 3 else [tensor, tensor.transpose(1, 2)]
            for values in orders:
                for dtype in (dtype for dtype, bytes_ in _FLOATS.items() if bytes_ == length):
                    raw = values.to(dtype).contiguous().view(-1).view(torch.uint8).numpy()
                    swapped = raw.reshape(-1, dtype.itemsize)[:, ::-1].reshape(-1)
                    for written in (raw, swapped):
                        if len(written) >= length:
                            yield sliding_window_view(written, length)[:: dtype.itemsize]

    def _encoded_in(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where a tensor stands in `data` in an encoding of updates that has a scale."""
        parts = [part.reshape(-1) for tensor in self._tensors for part in (tensor, *tensor)]
        for values in parts:
            for name, codec in CODECS.items():
                short = codec.bits * len(values) < _FEWEST_BITS
                if not codec.scaled or short or not bool(values.isfinite().all()):
                    continue
                written = encode(name, values, seed=0)
                scale, size = written[: codec.size(0)], len(written)
                start = data.find(scale)
                while 0 <= start <= len(data) - size:
                    read = decode(name, data[start : start + size], len(values))
                    if _alike(name, read, decode(name, written, len(values)), values):
                        yield start, start + size
                    start = data.find(scale, start + 1)

    def _decimals_in(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where a number of a tensor stands in `data` in decimal digits."""
        texts = [one for one in _DECIMAL.finditer(data) if _digits(one.group()) >= _DIGITS]
        if not texts or not self._tensors:
            return
        numbers = np.sort(np.concatenate([tensor.reshape(-1).numpy() for tensor in self._tensors]))
        for text in texts:
            value = float(text.group())
            low, high = sorted((value * (1 - _RELATIVE), value * (1 + _RELATIVE)))
            if np.searchsorted(numbers, low, "left") < np.searchsorted(numbers, high, "right"):
                yield text.span()


class PersonalNumbers(InputError):
    """A message holds numbers of a personal shift, and must not leave."""


def check_leaving(vault: Vault, data: bytes, known: bytes) -> None:
    """Look for the numbers of a person's shifts in a message before it leaves.

    A shift that cannot be opened has no numbers to be looked for.

    Args:
        vault: The person's own.
        data: The message.
        known: What the cloud asked, whose numbers are not the person's.

    Raises:
        PersonalNumbers: The message holds some.
    """
    try:
        traces = Traces.of(vault, vault.slots())
    except InputError:
        return
    found = traces.bytes_in(data, known)
    if found:
        raise PersonalNumbers(
            f"{found} bytes of the reply were numbers of the personal shift; it did not leave"
        )


def _alike(codec: str, read: torch.Tensor, written: torch.Tensor, values: torch.Tensor) -> bool:
    """Whether two decoded vectors (n,) are roundings of the same values."""
    if not bool(read.any()):  # zeros are everywhere
        return False
    if codec == "sign":
        return torch.equal(read, written)
    return bool(((read - values).abs() <= 1.02 * values.abs().max() / MOST[codec]).all())


def _places(data: bytes, wanted: NDArray[np.uint8], known: bytes) -> Iterator[int]:
    """Where in `data` one of the rows of `wanted` (n, length) begins that is not in `known`."""
    length = wanted.shape[1]
    if not len(wanted):
        return
    heads = _heads(np.ascontiguousarray(sliding_window_view(np.frombuffer(data, np.uint8), length)))
    rows = wanted[np.isin(_heads(np.ascontiguousarray(wanted)), heads)]
    told = [row for row in map(bytes, rows) if len(set(row)) >= _FEWEST_VALUES and row not in known]
    for row in set(told):
        start = data.find(row)
        while start >= 0:
            yield start
            start = data.find(row, start + 1)


def _heads(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first bytes of each row, as one number."""
    heads: NDArray[np.uint64] = np.ascontiguousarray(rows[:, :_HEAD]).view(np.uint64).reshape(-1)
    return heads


def _digits(text: bytes) -> int:
    """Number of digits that count in a decimal number."""
    mantissa = re.split(rb"[eE]", text)[0]
    return len(mantissa.replace(b"-", b"").replace(b".", b"").lstrip(b"0"))
