"""Whether recorded bytes hold something that must not be there, in any of the codings it might travel in."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch

_WORD = 8
_MANY = 1000


def coded(tensor: torch.Tensor) -> dict[str, bytes]:
    """A tensor as somebody might send it, by the name of the coding."""
    values = tensor.detach().flatten()
    scale = values.abs().max()
    kinds = {
        "fp32": values.float(),
        "fp64": values.double(),
        "bf16": values.bfloat16(),
        "fp16": values.half(),
        "int8": (values / scale * 127).round().to(torch.int8),
        "uint8": ((values / scale + 1) * 127.5).round().to(torch.uint8),
    }
    return {name: bytes(one.contiguous().view(torch.uint8).numpy()) for name, one in kinds.items()}


def windows(data: bytes, size: int = 24, step: int = 97) -> Iterator[bytes]:
    """Parts by which the whole is known, also when only a stretch of it is there."""
    for start in range(0, max(len(data) - size, 0) + 1, step):
        window = data[start : start + size]
        if len(set(window)) > 6:
            yield window


def found_in(recorded: bytes, secret: Mapping[str, bytes]) -> set[str]:
    """Names of the secrets of which a window is in what was recorded.

    Where they are many, only windows whose first bytes are there are searched for.
    """
    parts = [(what, window) for what, data in secret.items() for window in windows(data)]
    if len(parts) < _MANY:
        return {what for what, window in parts if window in recorded}
    first = np.array([int.from_bytes(window[:_WORD], "little") for _, window in parts], dtype=np.uint64)
    there = np.isin(first, _words(recorded)) | np.array([len(window) < _WORD for _, window in parts], bool)
    return {what for (what, window), maybe in zip(parts, there, strict=True) if maybe and window in recorded}


def _words(data: bytes) -> np.ndarray:
    """The eight bytes that begin at each place, as numbers."""
    padded = data + bytes(2 * _WORD)
    whole = [np.frombuffer(padded[n : n + (len(data) // _WORD + 1) * _WORD], np.uint64) for n in range(_WORD)]
    return np.unique(np.concatenate(whole))


def rows_coded(name: str, rows: Iterable[torch.Tensor]) -> dict[str, bytes]:
    """Every row in every coding."""
    return {
        f"{name} {number} {coding}": data
        for number, row in enumerate(rows)
        for coding, data in coded(row).items()
    }
