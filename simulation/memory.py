"""The most memory something takes above what was there before."""

import ctypes
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Peak:
    """Within the block; `bytes` afterwards, None where the system does not tell."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self.bytes: int | None = None

    def __enter__(self) -> Self:
        self._before = reset_peak(self._cuda)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        peak = torch.cuda.max_memory_allocated() if self._cuda else bytes_of("VmHWM")
        if self._before is not None and peak is not None:
            self.bytes = max(0, peak - self._before)


def reset_peak(cuda: bool) -> int | None:
    """Forget the peak so far; returns the bytes in use now, with what was freed given back."""
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        _CLEAR_REFS.write_text("5")
    except OSError:
        return None
    return bytes_of("VmRSS")


def bytes_of(name: str) -> int | None:
    """What the line `name` of /proc/self/status says; None where there is none."""
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return None
